//! Templates that cannot be filled in, files that cannot be placed: each with its message, and the others none the worse.

use super::*;

#[tokio::test]
async fn what_is_wrong_with_a_template_is_said_with_file_line_and_cure() {
    let name = "DIR/own.template";
    for (file, text, said) in [
        (
            "a.txt",
            "{{ host }}\n{{ hots }}",
            format!("{name}:2: names something that does not exist; docs/handoff.md lists the names there are"),
        ),
        ("a.txt", "{{ host", format!("{name}:1: invalid syntax: expected end expression, found EOF; correct this line")),
        ("a.txt", "{% for x in payload.many %}", format!("{name}:1: invalid syntax: unclosed `for` block; correct this line")),
        (
            "a.txt",
            "{\"a\": {\"b\": 1}}",
            format!("{name}:1: invalid syntax: unexpected end expression; where it is text, write a space into it"),
        ),
        ("a.txt", "{% include \"hub.env\" %}", format!("{name}:1: unknown template; correct this line")),
        (
            "a.txt",
            "éèêëàâäîïôöùûüÿœæ€\n{# ß #}\nñ {{ hots }} {# naïve #}\n\n",
            format!("{name}:3: names something that does not exist; docs/handoff.md lists the names there are"),
        ),
        (
            "a.txt",
            "{{ payload.sites }}",
            format!("{name}:1: names something that does not exist; docs/handoff.md lists the names there are"),
        ),
        (
            "a.txt",
            "{{ join([host, certificateFile]) }}",
            format!(
                "{name}:1: prints something that this device does not have: one with a certificate has no password, one without has no certificateFile, and connectionString is there for a certificate or with export_key = true; put {{% if NAME %}} before and {{% endif %}} after it"
            ),
        ),
        (
            "a.txt",
            "{{ host|upper }}",
            format!("{name}:1: unknown formatter or function; fail, join, contains and equal are the functions there are"),
        ),
        (
            "a.txt",
            "{{ port + host }}",
            format!("{name}:1: invalid syntax: expected end expression, found plus; correct this line"),
        ),
        ("a.txt", "\n{{ fail(\"no; do that\") }}", format!("{name}:2: no; do that")),
        (
            "a.env",
            "A={{ payload.lines }}",
            format!(
                "{name}:1: prints a value with a line break or another control character, which would begin a line of its own; print another value, or make a .json file"
            ),
        ),
        (
            "a.conf",
            "a {{ payload.lines }}",
            format!(
                "{name}:1: prints a value with a line break or another control character, which would begin a line of its own; print another value, or make a .json file"
            ),
        ),
        (
            "a.env",
            "A={{ payload.many }}",
            format!("{name}:1: prints a list or an object where one value belongs; name one of its members, as in payload.site"),
        ),
        (
            "a.env",
            "A={{ certificateFile }}",
            format!(
                "{name}:1: prints something that this device does not have: one with a certificate has no password, one without has no certificateFile, and connectionString is there for a certificate or with export_key = true; put {{% if NAME %}} before and {{% endif %}} after it"
            ),
        ),
        (
            "a.toml",
            "a = {{ payload }}",
            format!("{name}:1: prints a list or an object where one value belongs; name one of its members, as in payload.site"),
        ),
    ] {
        assert_eq!(Box::with_key(&own(file, text)).await.said().await, said, "{text}");
    }
}

#[tokio::test]
async fn a_number_that_templates_cannot_hold_is_named_where_it_is_printed_and_nowhere_else() {
    let mut gateway = Box::with_key(&own("a.json", "[{{ payload.small }},\n{{ payload }}]")).await;
    gateway.served.record.payload = Some(json!({"small": i64::MAX, "large": u64::MAX}));
    let said = "DIR/own.template:2: prints a number above 9223372036854775807, or one is inside; send it as a text";
    assert_eq!(gateway.said().await, said);
}

#[tokio::test]
async fn an_expression_without_end_is_refused_before_it_costs_the_stack() {
    let deep = format!("\n{{{{ {}host{} }}}}", "(".repeat(30_000), ")".repeat(30_000));
    let said = "DIR/own.template:2: has more than 1000 bytes in one pair of braces; divide it";
    assert_eq!(Box::with_key(&own("a.txt", &deep)).await.said().await, said);
    let brackets = format!("{{{{ {}host{} }}}}", "(".repeat(100), ")".repeat(100));
    let gateway = Box::with_key(&own("a.txt", &brackets)).await;
    gateway.outcome().await.unwrap();
    assert_eq!(gateway.text("a.txt"), "contoso.azure-devices.net");
}

#[tokio::test]
async fn a_template_chooses_and_asks_for_what_may_be_missing() {
    let text = "{% if equal(attestation, \"symmetric-key\") %}key{% else %}other{% endif %}\n\
        {%- if contains(hub, \"fabrikam\") %}\nno\n{%- else if not payload?.area %}\n{{ join([port, \"@\", payload?.site]) }}\n{%- endif %}\n\
        {%- for one in payload.many %}\n- {{ one }}\n{%- endfor %}\n";
    let gateway = Box::with_key(&own("a.txt", text)).await;
    gateway.outcome().await.unwrap();
    assert_eq!(gateway.text("a.txt"), "key\n8883@Hall 4\n- 1\n- 2\n");
}

#[tokio::test]
async fn what_a_json_template_makes_is_json() {
    let template = scratch("own.json", b"{\"host\":\n\"{{ host }}\"}");
    let gateway = Box::with_key(&format!("[handoff.template.own]\nsource = {template:?}\nfile = 'a.json'\n")).await;
    let said = gateway.outcome().await.unwrap_err().message;
    let expected = format!(
        "{}: what it makes is not JSON at line 2; values bring their own quotes: write \"host\": {{{{ host }}}}",
        template.display()
    );
    assert_eq!(said, expected);
}

#[tokio::test]
async fn values_in_json_and_toml_bring_their_own_quotes() {
    let gateway = Box::with_key(&own("a.toml", "a = {{ payload.lines }}\nb = {{ port }}\nc = {{ payload.many }}\n")).await;
    gateway.outcome().await.unwrap();
    assert_eq!(gateway.text("a.toml"), "a = \"a\\nb\"\nb = 8883\nc = [1,2]\n");
}

#[tokio::test]
async fn a_template_that_cannot_be_read_is_named() {
    let line = |source: &str| format!("[handoff.template.own]\nsource = '{source}'\nfile = 'a'\n");
    let said = |settings: String| async move { Box::with_key(&settings).await.said().await };
    assert_eq!(
        said(line("/nowhere/t")).await,
        "/nowhere/t: cannot be read: No such file or directory (os error 2); the agent's user must be able to read it"
    );
    assert_eq!(said(line("/tmp")).await, "/tmp: is no file of at most 64 KiB; name the template itself");
    let (large, other) = (scratch("large", &[b'x'; 65_537]), scratch("other", b"caf\xe9"));
    assert!(said(line(large.to_str().unwrap())).await.ends_with("large: is no file of at most 64 KiB; name the template itself"));
    assert!(said(line(other.to_str().unwrap())).await.ends_with("other: is not UTF-8; save it as UTF-8"));
}

#[tokio::test]
async fn a_broken_template_keeps_no_other_from_being_made_and_its_old_file_stays() {
    let template = scratch("t", b"{{ hub }}");
    let settings =
        format!("[handoff.template.a]\nsource = {template:?}\nfile = 'a'\n[handoff.template.b]\nsource = 'hub.json'\n");
    let gateway = Box::with_key(&settings).await;
    let mut handoff = Handoff::new(0);
    handoff.render(&gateway.served).await;
    fs::write(&template, "{{ hbu }}").unwrap();
    fs::remove_file(gateway.file("hub.json")).unwrap();
    let made = handoff.render(&gateway.served).await;
    assert_eq!(made.iter().map(|made| made.template.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(made[0].outcome.is_err());
    assert!(matches!(made[1].outcome, Ok(Outcome::Written)));
    assert_eq!(gateway.text("a"), "contoso.azure-devices.net");
}

#[tokio::test]
async fn a_secret_is_not_shown_to_everybody() {
    let open = |text: &str, more: &str| format!("{}mode = '0644'\n{more}", own("a.txt", text));
    let refused = "its file would show a secret to every user of this machine (mode = \"0644\"); write mode = \"0640\", and the group of the program that reads it";
    assert_eq!(Box::with_key(&open("x {{ password }}", "")).await.said().await, refused);
    assert_eq!(Box::with_key(&open("{{ connectionString }}", "export_key = true\n")).await.said().await, refused);
    let harmless = Box::with_key(&open("{{ hub }}", "")).await;
    assert_eq!(harmless.outcome().await.unwrap(), Outcome::Written);
    assert_eq!(fs::metadata(harmless.file("a.txt")).unwrap().mode() & 0o7777, 0o644);
}

#[tokio::test]
async fn no_message_shows_a_secret() {
    let gateway =
        Box::with_key(&format!("{}export_key = true\n", own("a.txt", "{{ fail(join([\"ouch \", sharedAccessKey])) }}"))).await;
    assert_eq!(gateway.said().await, "DIR/own.template:1: its own message shows a secret; correct this line");
}

#[tokio::test]
async fn a_group_that_is_not_there_is_named() {
    let gateway = Box::with_key("[handoff.template.a]\nsource = 'hub.json'\ngroup = 'no-such-group'\n").await;
    assert_eq!(
        gateway.said().await,
        "there is no group \"no-such-group\" on this machine; install the program that brings it, or correct group"
    );
}

#[tokio::test]
async fn a_trouble_that_may_pass_is_looked_at_again_soon() {
    let mut gateway = Box::with_key("[handoff.template.a]\nsource = 'hub.json'\n").await;
    gateway.served.clock = Clock::with_floor(Some(Clock::wall() + 1_000_000));
    let mut handoff = Handoff::new(0);
    assert_eq!(handoff.render(&gateway.served).await[0].outcome.as_ref().unwrap_err().blame, Blame::Clock);
    let wait = handoff.next(gateway.served.clock.now()).unwrap();
    assert!((50..=60).contains(&wait.as_secs()), "{wait:?}");
}

#[test]
fn who_is_no_member_of_the_group_is_told_how_to_become_one() {
    // Whoever runs the tests may be root, who can give files to every group; the refusal is made up.
    let source = std::io::Error::from_raw_os_error(1);
    let error = crate::files::FileError::NotAMember { path: "/run/f.new".into(), source };
    let template = Template {
        name: "a".into(),
        source: TemplateSource::Shipped(Shipped::HubEnv),
        file: "f".into(),
        group: Some("mosquitto".into()),
        mode: 0o640,
        export_key: None,
    };
    assert_eq!(
        place::refused(&template, error).message,
        "cannot give /run/f.new to its group: Operation not permitted (os error 1): the agent's user is no member of mosquitto; write SupplementaryGroups=mosquitto into a drop-in of its unit, or run usermod -aG mosquitto for it and restart it"
    );
}
