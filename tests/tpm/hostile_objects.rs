//! TPMs in which others have left something, or from which something has gone: keys at our handles, full memory, cleared TPMs,
//! other TPMs.

use std::fs;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cutter::{Cut, Cutter};
use crate::hostile_gateway::{Gateway, ID, each, emulator, endorsement_key};
use crate::relay::{Act, TpmRelay, rc};
use crate::swtpm::Swtpm;

/// Makes a key with these options of `tpm2_createprimary` and keeps it at a handle.
fn keep(tpm: &Swtpm, handle: &str, options: &str) {
    tpm.tool(&format!("tpm2_createprimary -Q -C o {options} -c foreign.ctx")).success();
    tpm.tool(&format!("tpm2_evictcontrol -Q -C o -c foreign.ctx {handle}")).success();
    tpm.tool("tpm2_flushcontext -t").success();
}

/// As systemd makes its storage key: ECC, with a storage key's attributes.
const ECC: &str = "-g sha256 -G ecc -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
/// A signing key, which looks like a storage key to nobody.
const SIGNING: &str = "-g sha256 -G rsa2048:rsassa-sha256:null -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign";

#[test]
fn what_others_keep_at_our_handles_is_reported_and_neither_used_nor_evicted() {
    let cases = [
        ("0x81000001", ECC, "an ECC key", "the storage key", "srk_handle"),
        ("0x81000001", SIGNING, "an RSA key", "the storage key", "srk_handle"),
        ("0x81010001", ECC, "an ECC key", "the endorsement key", "ek_handle"),
        ("0x81010001", SIGNING, "an RSA key", "the endorsement key", "ek_handle"),
    ];
    for (handle, options, kind, what, setting) in cases {
        let gateway = Gateway::new();
        keep(&gateway.tpm, handle, options);
        let foreign = gateway.at(handle).unwrap();
        let ran = gateway.provision();
        let warning = format!(
            "{kind} sits at TPM handle {handle} where {what} belongs; it is left alone, and {what} is made anew at each start, \
             which is slow: set {setting} to a free handle\n"
        );
        assert!(ran.stderr.ends_with(&warning) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        let storage_key = gateway.record()["tpm"]["storageKey"]["handle"].clone();
        assert_eq!(storage_key, if setting == "srk_handle" { Value::Null } else { "0x81000001".into() });
        assert!(gateway.works());
        let said = gateway.emulator.transcript(ID);
        gateway.provision();
        assert_eq!(gateway.emulator.transcript(ID), said, "a start with such a TPM is like any other");
        gateway.run(&["provision", "--force"]).well();
        assert!(gateway.works());
        assert_eq!(gateway.at(handle), Some(foreign));
    }
}

#[test]
fn what_others_keep_at_the_identity_handle_stays_there() {
    for options in [ECC, SIGNING, "-g sha256 -G hmac:sha256 -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"] {
        let mut gateway = Gateway::new();
        keep(&gateway.tpm, "0x81000100", options);
        let foreign = gateway.at("0x81000100").unwrap();
        gateway.set("attestation.identity_handle = \"0x81000100\"");
        for arguments in [&["provision"][..], &["provision"], &["provision", "--force"]] {
            let ran = gateway.run(arguments).well();
            let warning = "[attestation] identity_handle holds an object that this agent did not make, so the hub key is not put \
                           there; if nobody needs it, remove it (tpm2_evictcontrol -c HANDLE), or name another handle\n";
            assert!(ran.stderr.ends_with(warning) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
            assert_eq!(gateway.at("0x81000100").unwrap(), foreign);
            assert!(gateway.works());
        }
        gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000100").success();
        assert_eq!(gateway.provision().stderr, "");
        assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()));
    }
}

#[test]
fn no_memory_is_named_with_what_it_is_for() {
    let cases = [
        ("CreatePrimary", rc::OBJECT_MEMORY, "objects"),
        ("Load", rc::OBJECT_MEMORY, "objects"),
        ("StartAuthSession", rc::SESSION_MEMORY, "sessions"),
    ];
    for (command, code, what) in cases {
        let gateway = Gateway::new();
        gateway.relay.rules(&[each(command, Act::Answer(code))]);
        let message = format!(
            "the TPM has no free memory for {what}; use device:/dev/tpmrm0, or end the program that fills it (tpm2_flushcontext -t -l)"
        );
        assert_eq!(gateway.fails(&["provision"]), (71, message), "{command}");
        gateway.relay.rules(&[]);
        gateway.provision();
        assert!(gateway.works());
        gateway.relay.rules(&[each(command, Act::Answer(code))]);
        let key = gateway.hub_key();
        if command != "CreatePrimary" {
            assert_eq!(gateway.fails(&["provision", "--force"]).0, 71, "{command}");
        }
        gateway.relay.rules(&[]);
        assert_eq!((gateway.hub_key(), gateway.works()), (key, true), "{command}");
    }
}

/// Transient objects and sessions in the TPM.
fn left_behind(tpm: &Swtpm) -> [usize; 2] {
    ["handles-transient", "handles-loaded-session"].map(|what| tpm.tool(&format!("tpm2_getcap {what}")).success().lines().count())
}

#[test]
fn a_tpm_that_others_have_filled_is_tidied_up() {
    let gateway = Gateway::new();
    for _ in 0..3 {
        gateway.tpm.tool("tpm2_createprimary -Q -C n -G ecc -c filling.ctx").success();
    }
    assert_ne!(gateway.tpm.tool("tpm2_createprimary -Q -C n -G ecc -c filling.ctx").code, Some(0));
    gateway.provision();
    assert!(gateway.works());
    assert_eq!(left_behind(&gateway.tpm), [0, 0]);
}

#[test]
fn what_ten_killed_predecessors_have_left_does_not_accumulate() {
    let mut gateway = Gateway::new();
    let cutter = Cutter::default();
    let relay = TpmRelay::start(&gateway.tpm, &cutter);
    gateway.set(&format!("attestation.tcti = \"{}\"", relay.tcti()));
    let register = || {
        let mut command = gateway.command(&["provision", "--force"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(cutter.spawn(&mut register(), None).wait().unwrap().success());
    assert!(cutter.spawn(&mut register(), None).wait().unwrap().success());
    let events = cutter.events();
    let places = |event: &'static str| events.iter().enumerate().filter(move |(_, known)| *known == event).map(|(at, _)| at + 1);
    let places: Vec<_> =
        ["TPM StartAuthSession", "TPM PolicySecret", "TPM Load", "TPM HMAC"].into_iter().flat_map(places).collect();
    assert_eq!(places.len(), 2 + 2 + 3 + 2);
    let mut left = Vec::new();
    for place in places.iter().cycle().take(10) {
        assert_eq!(cutter.spawn(&mut register(), Some(Cut::After(*place))).wait().unwrap().code(), None);
        left.push(left_behind(&gateway.tpm));
    }
    println!("transient objects and sessions after each of ten kills: {left:?}");
    let most = [0, 1].map(|kind| left.iter().map(|both| both[kind]).max().unwrap());
    assert_eq!(most, [1, 1], "as much as one run holds at once");
    assert!(cutter.spawn(&mut register(), None).wait().unwrap().success());
    assert_eq!(left_behind(&gateway.tpm), [0, 0]);
    assert!(gateway.works());
}

#[test]
fn a_cleared_tpm_registers_again_by_itself() {
    let mut gateway = Gateway::new();
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    gateway.provision();
    let (old, key) = (gateway.record(), gateway.hub_key());
    gateway.tpm.clear();
    let lost = "the TPM does not load the hub key any more: the TPM was cleared, or it is another one: its storage key has changed; \
                `dps-agent provision --force` registers the device again";
    assert_eq!(gateway.token(), Err((71, lost.to_owned())));
    let ran = gateway.provision();
    let warning =
        "the TPM was cleared: the hub key does not work without the storage key that is gone, so the device registers again\n";
    assert!(ran.stderr.ends_with(warning) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    let new = gateway.record();
    assert_eq!(new["tpm"]["endorsementKey"], old["tpm"]["endorsementKey"]);
    assert_ne!(new["tpm"]["storageKey"]["public"], old["tpm"]["storageKey"]["public"]);
    assert_eq!((&new["identity"], &new["generation"], &new["proof"]), (&old["identity"], &old["generation"], &"proven".into()));
    assert_ne!(gateway.hub_key(), key);
    assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()));
    assert!(gateway.works());
    let said = gateway.emulator.transcript(ID);
    assert_eq!(gateway.provision().stderr, "");
    assert_eq!(gateway.emulator.transcript(ID), said);
}

#[test]
fn another_tpm_is_told_from_a_cleared_one_with_what_enrolls_it() {
    let mut gateway = Gateway::new();
    gateway.provision();
    let before = endorsement_key(&gateway.tpm);
    gateway.tpm.new_seed();
    let after = endorsement_key(&gateway.tpm);
    assert_ne!(before, after);
    let (exit_code, message) = gateway.fails(&["provision"]);
    let line = gateway.run(&["identity", "--csv"]).well().stdout.trim_end().to_owned();
    let enrolled = line.split(',').nth(2).unwrap().to_owned();
    assert_eq!((exit_code, &enrolled), (69, &after), "{message}");
    let cure = format!(
        "; the TPM's endorsement key is not the one of the last registration (another board, or the firmware TPM was written anew): \
         enroll this one: {line}"
    );
    assert!(message.ends_with(&cure), "{message}");
    gateway.meets(&emulator("", ID, &enrolled, "answer = \"at-once\""));
    let ran = gateway.provision();
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    assert_eq!(gateway.record()["tpm"]["endorsementKey"], after);
    assert!(gateway.works());
    assert_eq!(gateway.provision().stderr, "");
}

#[test]
fn an_endorsement_key_with_an_empty_unique_is_another_key() {
    let tpm = Swtpm::start();
    let tcg = endorsement_key(&tpm);
    // PolicySecret(TPM_RH_ENDORSEMENT), TCG EK Credential Profile.
    let policy = [
        0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e,
        0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
    ];
    fs::write(tpm.path("policy"), policy).unwrap();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|adminwithpolicy|restricted|decrypt";
    tpm.tool(&format!("tpm2_createprimary -Q -C e -g sha256 -G rsa2048:aes128cfb -L policy -a {attributes} -c empty.ctx"))
        .success();
    tpm.tool("tpm2_readpublic -Q -c empty.ctx -f tss -o empty.pub").success();
    tpm.tool("tpm2_flushcontext -t").success();
    let empty = STANDARD.encode(fs::read(tpm.path("empty.pub")).unwrap());
    assert_ne!(empty, tcg);
    let mut gateway = Gateway::of(tpm, &emulator("", ID, &empty, "answer = \"at-once\""));
    let (exit_code, message) = gateway.fails(&["provision"]);
    assert!(exit_code == 77 && message.starts_with("the service answered 401, error code 401000"), "{message}");
    let cure = "another endorsement key is enrolled under this registration ID, or none: `dps-agent identity` prints this TPM's, and \
                [attestation] ek_unique = \"empty\" brings back the one that some of Microsoft's clients enrolled";
    assert!(message.ends_with(cure), "{message}");
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81010001").success();
    gateway.set("attestation.ek_unique = \"empty\"");
    gateway.provision();
    assert_eq!(gateway.record()["tpm"]["endorsementKey"], empty);
    assert!(gateway.works());
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81010001").success();
    gateway.run(&["provision", "--force"]).well();
    assert!(gateway.works());
}
