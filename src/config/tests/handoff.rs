//! `[handoff]`: what it means, what it cannot mean, and how a drop-in changes it.

use serde_json::json;

use super::Place::{After, AfterTpm, AfterX509, Before};
use super::{DROP_IN, KEY, MAIN, assert_wrong, load};
use crate::config::{Credentials, Handoff, Shipped, Template, TemplateSource};

fn handoff(lines: &str) -> Handoff {
    load(&[(MAIN, &format!("{KEY}{lines}"))], &[]).unwrap_or_else(|errors| panic!("{lines}\n{errors}")).config.handoff
}

fn shipped(name: &str, shipped: Shipped) -> Template {
    Template {
        name: name.into(),
        source: TemplateSource::Shipped(shipped),
        file: shipped.name().into(),
        group: None,
        mode: 0o640,
        export_key: None,
    }
}

#[test]
fn a_template_that_the_agent_brings_along_needs_its_name_only() {
    for (source, template) in [
        ("hub.env", Shipped::HubEnv),
        ("hub.json", Shipped::HubJson),
        ("mosquitto-bridge.conf", Shipped::MosquittoBridge),
        ("thin-edge.env", Shipped::ThinEdge),
    ] {
        let found = handoff(&format!("[handoff.template.my-1_A]\nsource = '{source}'\n")).templates;
        assert_eq!(found, [shipped("my-1_A", template)]);
    }
    assert_eq!(handoff(""), Handoff::default());
}

#[test]
fn every_key_of_a_template_is_understood() {
    let found = handoff(
        "[handoff.template.b]\nsource = '/etc/b.conf'\nfile = 'b.conf'\ngroup = 'mosquitto'\nmode = '0600'\nexport_key = true\n\
         [handoff.template.a]\nsource = 'hub.env'\nfile = 'a.env'\ngroup = '991'\nexport_key = false\n",
    );
    let [a, b] = found.templates.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (a.name.as_str(), a.file.as_str(), a.group.as_deref(), a.mode, a.export_key.is_some()),
        ("a", "a.env", Some("991"), 0o640, false)
    );
    assert_eq!((b.name.as_str(), &b.source), ("b", &TemplateSource::File("/etc/b.conf".into())));
    assert_eq!((b.file.as_str(), b.group.as_deref(), b.mode, b.export_key.is_some()), ("b.conf", Some("mosquitto"), 0o600, true));
}

#[test]
fn credentials_are_for_every_unit_unless_that_is_narrowed() {
    let every = vec!["*".to_owned()];
    assert_eq!(handoff("").credentials, Credentials { hub_json: every.clone(), hub_env: every.clone(), connection_string: None });
    let found = handoff("[handoff.credentials]\n\"hub.json\" = []\n\"hub.env\" = ['a.service', 'b-*@*.service']\n").credentials;
    assert_eq!(found.hub_json, Vec::<String>::new());
    assert_eq!(found.hub_env, ["a.service", "b-*@*.service"]);
    let units = |lines: &str| handoff(lines).credentials.connection_string.map(|(units, _)| units);
    assert_eq!(units("[handoff.credentials]\nexport_key = true\n"), Some(every));
    assert_eq!(
        units("[handoff.credentials]\nexport_key = true\nconnection-string = ['a.service']\n"),
        Some(vec!["a.service".to_owned()])
    );
}

#[test]
fn a_drop_in_overrides_a_template_by_its_name_and_takes_it_back() {
    let main = format!("{KEY}[handoff.template.a]\nsource = 'hub.env'\ngroup = 'x'\n[handoff.template.b]\nsource = 'hub.json'\n");
    let load = |drop_in: &str| load(&[(MAIN, &main), (DROP_IN, drop_in)], &[]).unwrap().config.handoff.templates;
    let changed = load("[handoff.template.a]\ngroup = 'y'\nfile = 'other.env'\n");
    assert_eq!((changed[0].group.as_deref(), changed[0].file.as_str()), (Some("y"), "other.env"));
    assert_eq!(changed[1], shipped("b", Shipped::HubJson));
    assert_eq!(load("[handoff.template.a]\nsource = ''\ngroup = ''\n"), [shipped("b", Shipped::HubJson)]);
}

#[test]
fn what_a_template_cannot_be_is_said_with_its_line() {
    assert_wrong(&[
        (Before, "[handof]\na = 1", "F:1: [handof]: unknown table; did you mean `[handoff]`?"),
        (
            Before,
            "handoff = 3",
            "F:1: [handoff]: is a number where a table should be; write [handoff.template.NAME] on a line of its own",
        ),
        (
            After,
            "[handoff]\nexport_key = true",
            "F:8: [handoff] export_key: unknown; there are [handoff.template.NAME] and [handoff.credentials]",
        ),
        (
            After,
            "[handoff.templates.a]\nsource = 'hub.env'",
            "F:7: [handoff] templates: unknown; there are [handoff.template.NAME] and [handoff.credentials]; did you mean `template`?",
        ),
        (
            After,
            "[handoff.template]\nsource = 'hub.env'",
            "F:8: [handoff.template.source]: a template needs a name; write the key under [handoff.template.NAME], with a name of your choice",
        ),
        (
            After,
            "[handoff]\ntemplate = 1",
            "F:8: [handoff.template]: is a number where a table should be; write [handoff.template.NAME] on a line of its own",
        ),
        (
            After,
            "[handoff.template.'a b']\nsource = 'hub.env'",
            "F:7: [handoff.template.a b]: not a name for a template; write up to 64 letters, digits, '-' or '_'",
        ),
        (
            After,
            "[handoff.template.a]\nsuorce = 'hub.env'\nsource = 'hub.env'",
            "F:8: [handoff.template.a] suorce: unknown key; did you mean `source`?",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 'hub.env'\ncolour = 1",
            "F:9: [handoff.template.a] colour: unknown key; [handoff.template.a] has source, file, group, mode, export_key",
        ),
        (
            After,
            "[handoff.template.a]\nfile = 'x'",
            "F:8: [handoff.template.a] source: is missing; write one of \"hub.env\", \"hub.json\", \"mosquitto-bridge.conf\", \"thin-edge.env\", or the path of a template",
        ),
        (
            After,
            "[handoff.template.a]\nsource = ''",
            "F:8: [handoff.template.a] source: is empty; write a value or remove the line",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 'hub.evn'",
            "F:8: [handoff.template.a] source: neither an absolute path nor a template that the agent brings along (hub.env, hub.json, mosquitto-bridge.conf, thin-edge.env); did you mean \"hub.env\"?",
        ),
        (
            After,
            "[handoff.template.a]\nsource = '/etc/a'",
            "F:8: [handoff.template.a] file: is missing; write the name of the file to be made, such as file = \"my-app.env\"",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 1",
            "F:8: [handoff.template.a] source: is a number where a text should be; write one text in quotes",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 'hub.env'\nmode = 640",
            "F:9: [handoff.template.a] mode: is a number where a text should be; write mode = \"0640\"",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 'hub.env'\nexport_key = 'yes'",
            "F:9: [handoff.template.a] export_key: is a text where true or false should be; write export_key = true or export_key = false",
        ),
        (
            After,
            "[handoff.template.a]\nsource = 'hub.env'\ngroup = 'a b'",
            "F:9: [handoff.template.a] group: not a group; write its name as /etc/group has it, or its number",
        ),
    ]);
}

#[test]
fn a_file_stays_in_its_directory_and_has_one_template() {
    for name in ["../x", "/etc/x", "a/b", "..", "."] {
        let said = "F:9: [handoff.template.a] file: leads elsewhere; write a name alone, since all these files are made in the directory handoff below [runtime] directory";
        assert_wrong(&[(After, &format!("[handoff.template.a]\nsource = 'hub.env'\nfile = '{name}'"), said)]);
    }
    for name in [".x", "x.new", &"x".repeat(201)] {
        let said = "F:9: [handoff.template.a] file: not a name for such a file; write one that begins with no dot and does not end in .new";
        assert_wrong(&[(After, &format!("[handoff.template.a]\nsource = 'hub.env'\nfile = '{name}'"), said)]);
    }
    let said = "F:10: [handoff.template.b] file: makes \"hub.env\", as [handoff.template.a] does; write another file";
    assert_wrong(&[(After, "[handoff.template.a]\nsource = 'hub.env'\n[handoff.template.b]\nsource = 'hub.env'", said)]);
}

#[test]
fn a_mode_is_of_a_file_that_is_not_everybodys() {
    for mode in ["640", "0777", "0700", "0646", "0440", "0x40", "", "00640", "0642"] {
        let expected = match mode {
            "" => "F:9: [handoff.template.a] mode: is empty; write a value or remove the line",
            _ => {
                "F:9: [handoff.template.a] mode: not a mode for such a file; write \"0600\", \"0640\" or \"0660\", or \"0644\" if it holds no secret"
            }
        };
        assert_wrong(&[(After, &format!("[handoff.template.a]\nsource = 'hub.env'\nmode = '{mode}'"), expected)]);
    }
    for (mode, bits) in [("0600", 0o600), ("0640", 0o640), ("0660", 0o660), ("0644", 0o644), ("0664", 0o664)] {
        let found = handoff(&format!("[handoff.template.a]\nsource = 'hub.env'\nmode = '{mode}'"));
        assert_eq!(found.templates[0].mode, bits);
    }
}

#[test]
fn only_a_symmetric_key_can_be_given_away() {
    let lines = "[handoff.template.a]\nsource = 'hub.env'\nexport_key = true";
    let said = |line: &str, method: &str| {
        format!(
            "F:{line}: [handoff.template.a] export_key: there is no key that could be given away, since F:4 says method = \"{method}\"; remove this line"
        )
    };
    assert_wrong(&[(AfterX509, lines, &said("9", "x509"))]);
    if cfg!(feature = "tpm") {
        assert_wrong(&[(AfterTpm, lines, &said("7", "tpm"))]);
    }
}

#[test]
fn what_credentials_cannot_be_is_said_with_its_line() {
    let list = "write a list of units, such as \"hub.env\" = [\"my-app.service\"]";
    assert_wrong(&[
        (
            After,
            "[handoff]\ncredentials = 1",
            "F:8: [handoff.credentials]: is a number where a table should be; write [handoff.credentials] on a line of its own",
        ),
        (
            After,
            "[handoff.credentials]\n'hub.envs' = ['a.service']",
            "F:8: [handoff.credentials] hub.envs: unknown key; did you mean `hub.env`?",
        ),
        (
            After,
            "[handoff.credentials]\n'hub.env' = 'a.service'",
            &format!("F:8: [handoff.credentials] hub.env: is a text where a list should be; {list}"),
        ),
        (
            After,
            "[handoff.credentials]\n'hub.env' = [1]",
            &format!("F:8: [handoff.credentials] hub.env: holds something that is no text; {list}"),
        ),
        (
            After,
            "[handoff.credentials]\n'hub.env' = ['a b']",
            "F:8: [handoff.credentials] \"hub.env\": holds something that is no unit's name; write names such as \"hub.env\" = [\"my-app.service\"], in which * stands for anything",
        ),
        (
            After,
            "[handoff.credentials]\nconnection-string = ['a.service']",
            "F:8: [handoff.credentials] connection-string: a connection string holds the device's key; write export_key = true beside it, or remove this line",
        ),
    ]);
}

#[test]
fn it_is_shown_as_it_was_written() {
    let text = format!(
        "{KEY}[handoff.template.a]\nsource = 'hub.env'\nmode = '0600'\n[handoff.credentials]\n'hub.json' = ['a.service', 'b*']\nexport_key = true\n"
    );
    let loaded = load(&[(MAIN, &text)], &[]).unwrap();
    let shown = loaded.to_toml();
    let expected = format!(
        "\n[handoff.template.a]\nsource = \"hub.env\"  # {MAIN}:8\nmode = \"0600\"  # {MAIN}:9\n\n[handoff.credentials]\n\"hub.json\" = [\"a.service\", \"b*\"]  # {MAIN}:11\nexport_key = true  # {MAIN}:12\n"
    );
    assert!(shown.ends_with(&expected), "{shown}");
    assert_eq!(load(&[(MAIN, &shown)], &[]).unwrap().config, loaded.config);
    let json = loaded.to_json();
    assert_eq!(json["handoff.template.a"]["mode"], json!({"value": "0600", "origin": format!("{MAIN}:9")}));
    assert_eq!(json["handoff.credentials"]["hub.json"]["value"], json!(["a.service", "b*"]));
}
