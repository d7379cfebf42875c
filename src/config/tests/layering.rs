//! Files over files: which are read, in what order they win, and what is said when one of them is of no use.

use std::fs;
use std::path::PathBuf;

use super::{DROP_IN, KEY, MAIN, errors, load};
use crate::config::{Config, ConfigErrors, IdentitySource, Loaded, Profile, RegistrationIdSource, Source};

/// A root directory with files in it, gone at the end of the test.
struct Root(PathBuf);

impl Root {
    fn with(name: &str, files: &[(&str, &[u8])]) -> Self {
        let root = std::env::temp_dir().join(format!("dps-agent-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        Config::load(&Source::System { root: self.0.clone() }, &|_| None)
    }

    /// The errors, with this directory's name cut off.
    fn errors(&self) -> String {
        self.load().unwrap_err().to_string().replace(self.0.to_str().unwrap(), "")
    }

    /// The files that were read, with this directory's name cut off.
    fn read(&self) -> Vec<String> {
        let files = self.load().unwrap().files;
        files.iter().map(|file| format!("/{}", file.strip_prefix(&self.0).unwrap().display())).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn drop_ins_win_in_the_order_of_their_directories_and_then_of_their_names() {
    let port = |port: u16| format!("[dps]\nmqtt_port = {port}");
    let files = [
        ("etc/dps-agent/config.toml", KEY.to_owned()),
        ("usr/lib/dps-agent/config.d/99-vendor.toml", port(1)),
        ("run/dps-agent/config.d/50-image.toml", port(2)),
        ("etc/dps-agent/config.d/20-site.toml", port(4)),
        ("etc/dps-agent/config.d/10-site.toml", port(3)),
        ("etc/dps-agent/config.d/.30-hidden.toml", "not TOML".to_owned()),
        ("etc/dps-agent/config.d/30-site.toml.bak", "not TOML".to_owned()),
    ];
    let root = Root::with("order", &files.each_ref().map(|(path, text)| (*path, text.as_bytes())));
    assert_eq!(root.load().unwrap().config.dps.mqtt_port, 4);
    let read = [
        "/etc/dps-agent/config.toml",
        "/usr/lib/dps-agent/config.d/99-vendor.toml",
        "/run/dps-agent/config.d/50-image.toml",
        "/etc/dps-agent/config.d/10-site.toml",
        "/etc/dps-agent/config.d/20-site.toml",
    ];
    assert_eq!(root.read(), read);
}

#[test]
fn a_named_file_stands_alone() {
    let root = Root::with("alone", &[("own.toml", KEY.as_bytes()), ("etc/dps-agent/config.d/a.toml", b"not TOML")]);
    let path = root.0.join("own.toml");
    let loaded = Config::load(&Source::File(path.clone()), &|_| None).unwrap();
    assert_eq!(loaded.files, [path]);
    let absent = Config::load(&Source::File(PathBuf::from("/nowhere/own.toml")), &|_| None).unwrap_err();
    assert_eq!(absent.to_string(), "/nowhere/own.toml: there is no such file; create it or name another");
}

#[test]
fn drop_ins_do_without_a_main_file_which_is_still_where_the_rest_belongs() {
    let root = Root::with("drop-ins", &[("run/dps-agent/config.d/a.toml", KEY.as_bytes())]);
    assert_eq!(root.load().unwrap().config.dps.id_scope.as_str(), "0ne1");
    let text = KEY.replace("id_scope", "#");
    let root = Root::with("drop-ins-2", &[("run/dps-agent/config.d/a.toml", text.as_bytes())]);
    assert_eq!(
        root.errors(),
        "/etc/dps-agent/config.toml: [dps] id_scope: is missing; write id_scope = \"0ne00000000\" as the overview page of your DPS instance shows it"
    );
}

#[test]
fn nothing_at_all_is_answered_with_what_to_write() {
    let expected = r#"/etc/dps-agent/config.toml: there is no configuration, neither here nor in /usr/lib/dps-agent/config.d/*.toml, /run/dps-agent/config.d/*.toml, /etc/dps-agent/config.d/*.toml; write into this file:
    [dps]
    id_scope = "0ne00000000"                  # as the overview page of your DPS instance shows it
    [attestation]
    method = "symmetric-key"
    registration_id = "gw-0001"
    key_file = "/etc/dps-agent/device.key"    # base64 text of the device's key, mode 0600"#;
    assert_eq!(Root::with("nothing", &[]).errors(), expected);
    let advice: Vec<&str> = expected.lines().skip(1).collect();
    assert!(load(&[(MAIN, &advice.join("\n"))], &[]).is_ok());
}

#[test]
fn files_of_no_use_are_named_together() {
    let root = Root::with(
        "no-use",
        &[
            ("etc/dps-agent/config.toml", b"[dps]\nhost = 'a'\nid_scope = '\xe9'"),
            ("usr/lib/dps-agent/config.d/a.toml/b", b""),
            ("run/dps-agent/config.d", b""),
            ("etc/dps-agent/config.d/a.toml", b"[dps]\nhots = ''\nca_file = ''"),
        ],
    );
    std::os::unix::fs::symlink("nowhere", root.0.join("etc/dps-agent/config.d/b.toml")).unwrap();
    let expected = "\
/run/dps-agent/config.d: is no directory, or lies below something that is none; a directory is needed here
/etc/dps-agent/config.toml:3: is not UTF-8 from byte 0xe9 on; save the file as UTF-8
/usr/lib/dps-agent/config.d/a.toml: is a directory; a file is needed here
/etc/dps-agent/config.d/b.toml: there is no such file; create it or name another
/etc/dps-agent/config.d/a.toml:2: [dps] hots: unknown key; did you mean `host`?";
    assert_eq!(root.errors(), expected);
}

#[test]
fn a_dangling_main_file_is_an_error_and_not_absent() {
    let root = Root::with("dangling", &[("etc/dps-agent/config.d/a.toml", KEY.as_bytes())]);
    std::os::unix::fs::symlink("nowhere", root.0.join("etc/dps-agent/config.toml")).unwrap();
    assert_eq!(root.errors(), "/etc/dps-agent/config.toml: there is no such file; create it or name another");
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark_and_end_its_lines_as_windows_does() {
    let text = format!("\u{feff}{}", KEY.replace('\n', "\r\n"));
    assert_eq!(load(&[(MAIN, &text)], &[]).unwrap().config, load(&[(MAIN, KEY)], &[]).unwrap().config);
}

#[test]
fn a_drop_in_that_changes_the_method_is_told_what_it_left_behind() {
    let drop_in = "[attestation]\nmethod = 'x509'\ncertificate_file = '/c'\nprivate_key_file = '/p'\n";
    assert_eq!(
        errors(&[(MAIN, KEY), (DROP_IN, drop_in)], &[]),
        "/etc/dps-agent/config.toml:6: [attestation] key_file: belongs to method \"symmetric-key\", but /etc/dps-agent/config.d/50-site.toml:2 says method = \"x509\"; remove one of the two; key_file = \"\" in /etc/dps-agent/config.d/50-site.toml takes the other back"
    );
    let taken_back = format!("{drop_in}key_file = ''\nregistration_id = ''");
    let loaded = load(&[(MAIN, KEY), (DROP_IN, &taken_back)], &[]).unwrap();
    let expected = Profile::X509 {
        registration_id: RegistrationIdSource::From { source: IdentitySource::CertificateCn, prefix: String::new() },
        chain: PathBuf::from("/c"),
        key: PathBuf::from("/p"),
    };
    assert_eq!(loaded.config.attestation, expected);
}

#[test]
fn a_drop_in_is_told_which_key_below_it_stands_in_the_way() {
    assert_eq!(
        errors(&[(MAIN, KEY), (DROP_IN, "[attestation]\nregistration_id_from = 'machine-id'")], &[]),
        "/etc/dps-agent/config.d/50-site.toml:2: [attestation] registration_id_from: cannot stand beside registration_id of /etc/dps-agent/config.toml:5; keep one of them; registration_id = \"\" in /etc/dps-agent/config.d/50-site.toml takes the other back"
    );
}

#[test]
fn an_empty_text_in_a_drop_in_brings_the_default_back() {
    let main = KEY.replace("[attestation]", "host = 'a.b'\nca_file = '/c'\n[attestation]");
    let loaded =
        load(&[(MAIN, &main), (DROP_IN, "[dps]\nhost = ''\nca_file = ''\n[attestation]\nkey_file = '/other'")], &[]).unwrap();
    let mut expected = load(&[(MAIN, KEY)], &[]).unwrap().config;
    if let Profile::SymmetricKey { primary, .. } = &mut expected.attestation {
        *primary = crate::config::KeySource::File(PathBuf::from("/other"));
    }
    assert_eq!(loaded.config, expected);
}

#[test]
fn a_file_that_is_not_toml_hides_what_is_missing_but_not_what_is_wrong_elsewhere() {
    let said =
        errors(&[(MAIN, "[dps]\nid_scope = 5\nhots = 1\n"), (DROP_IN, "x"), ("/a", "[dps]\ntransport = 'mqtt'\nx = 1")], &[]);
    let expected = "\
/etc/dps-agent/config.toml:2: [dps] id_scope: is a number where a text should be; put it in quotes
/etc/dps-agent/config.toml:3: [dps] hots: unknown key; did you mean `host`?
/etc/dps-agent/config.d/50-site.toml:1: not TOML: key with no value, expected `=`; write KEY = VALUE
/a:3: [dps] x: unknown key; [dps] has host, id_scope, transport, mqtt_port, https_port, ca_file, ca_only, api_version, payload, payload_file, proxy, proxy_credentials_file";
    assert_eq!(said, expected);
}

#[test]
fn no_layer_at_all_still_says_where_to_write() {
    assert!(errors(&[], &[]).starts_with("/etc/dps-agent/config.toml: [dps] id_scope: is missing;"));
}
