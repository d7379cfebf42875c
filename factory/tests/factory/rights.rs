//! Least privilege: what a refusal says, and that a role made by `permissions` is enough for its commands and for nothing else.

use serde_json::Value;

use crate::bench::{Bench, OWNER, POLICY_KEY, READER, SECRET, STATION, ended, tpm};

fn tracking_id(stderr: &str) -> &str {
    stderr.lines().find_map(|line| line.strip_prefix("tracking ID for Microsoft: ")).unwrap()
}

#[test]
fn a_token_without_the_right_is_refused_with_what_is_missing_and_where_it_is_given() {
    let bench = Bench::plain();
    bench.put("a.jsonl", &tpm("gw-1", 1));
    let ran = bench.run_as(READER, &["enroll", "a.jsonl", "--output", "json"]);
    assert_eq!(ran.code, Some(77));
    let instance = bench.instance();
    assert_eq!(
        ran.stderr,
        format!(
            "dps-factory: {instance} answered 403 (Forbidden)\n\
             missing permission: Microsoft.Devices/provisioningServices/enrollments/write\n\
             where it can be assigned: the DPS instance {instance}, its resource group, its subscription, or a management group; \
             not a single enrollment\n\
             what gives it: the built-in role \"Device Provisioning Service Data Contributor\", or a custom role \
             (dps-factory permissions --role-definition FILE COMMAND…)\n\
             if it has just been assigned: that takes some minutes to act\n\
             if it is there: the token may be of another tenant, or an IP filter of the instance refuses this address, which looks the same\n\
             tracking ID for Microsoft: {}\n",
            tracking_id(&ran.stderr)
        )
    );
    let error: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(error["error"]["permission"], "Microsoft.Devices/provisioningServices/enrollments/write");
    assert_eq!(error["error"]["builtInRole"], "Device Provisioning Service Data Contributor");
    assert_eq!((&error["error"]["blame"], &error["error"]["exitCode"]), (&"unauthorized".into(), &77.into()));
    assert!(bench.enrolled().is_empty());
}

#[test]
fn a_401_is_explained_in_the_same_way() {
    let bench = Bench::new("", "not_allowed = 401", "");
    let ran = bench.run_as(STATION, &["registration", "show", "--registration-id", "gw-1"]);
    assert_eq!(ran.code, Some(77));
    assert!(
        ran.stderr.contains("missing permission: Microsoft.Devices/provisioningServices/registrationStates/read\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("the built-in role \"Device Provisioning Service Data Reader\""), "{}", ran.stderr);
}

#[test]
fn a_policy_key_without_the_right_is_told_which_right() {
    let bench = Bench::new(
        "",
        "",
        &format!("[[service_api.policy]]\nname = \"reader\"\nprimary_key = \"{POLICY_KEY}\"\nrights = [\"EnrollmentRead\"]\n"),
    );
    bench.put("policy", &format!("HostName=localhost;SharedAccessKeyName=reader;SharedAccessKey={POLICY_KEY}"));
    let with = |arguments: &[&str]| {
        let more = ["--auth", "key", "--policy-file", "policy", "--ca-file", "ca.pem"];
        ended(bench.command(&[arguments, &more].concat()).spawn().unwrap())
    };
    assert_eq!(with(&["enrollment", "list"]).code, Some(0));
    let ran = with(&["enrollment", "create", "--eid", "gw-1", "--at", "symmetricKey"]);
    assert_eq!(ran.code, Some(77));
    assert!(ran.stderr.contains("missing right: the shared access policy needs EnrollmentWrite\n"), "{}", ran.stderr);
}

/// Every command that asks the service, made to succeed by the owner first; `None` for what needs no permission.
const COMMANDS: [(&str, &[&str]); 17] = [
    ("enroll", &["enroll", "a.jsonl"]),
    ("enrollment list", &["enrollment", "list"]),
    ("enrollment show", &["enrollment", "show", "--eid", "there"]),
    ("enrollment query", &["enrollment", "query", "SELECT * FROM enrollments"]),
    ("enrollment create", &["enrollment", "create", "--eid", "fresh", "--at", "symmetricKey"]),
    ("enrollment update", &["enrollment", "update", "--eid", "there", "--ps", "disabled"]),
    ("enrollment delete", &["enrollment", "delete", "--eid", "there"]),
    ("enrollment-group list", &["enrollment-group", "list"]),
    ("enrollment-group show", &["enrollment-group", "show", "--eid", "line"]),
    ("enrollment-group query", &["enrollment-group", "query", "SELECT * FROM enrollmentGroups"]),
    ("enrollment-group create", &["enrollment-group", "create", "--eid", "fresh"]),
    ("enrollment-group update", &["enrollment-group", "update", "--eid", "line", "--ps", "disabled", "--cp", "line.pem"]),
    ("enrollment-group delete", &["enrollment-group", "delete", "--eid", "line"]),
    ("registration list", &["registration", "list", "--eid", "line"]),
    ("registration show", &["registration", "show", "--rid", "there"]),
    ("registration delete", &["registration", "delete", "--rid", "there"]),
    ("attestation show", &["attestation", "show", "--eid", "there"]),
];

#[test]
fn a_role_for_a_command_is_enough_for_it_and_lacking_one_permission_is_not() {
    let plain = Bench::plain();
    for (name, arguments) in COMMANDS {
        let role = plain.run(&["permissions", name, "--role-definition", "-"]);
        assert_eq!(role.code, Some(0), "{}", role.stderr);
        let role: Value = serde_json::from_str(&role.stdout).unwrap();
        let all: Vec<_> =
            role["DataActions"].as_array().unwrap().iter().map(|action| action.as_str().unwrap().to_owned()).collect();
        for lacking in std::iter::once(None).chain(all.iter().map(Some)) {
            let actions: Vec<_> =
                all.iter().filter(|action| Some(*action) != lacking).map(|action| format!("\"{action}\"")).collect();
            let bench = bench_with_role(&actions.join(", "));
            let ran = bench.run_as("44444444-4444-4444-4444-444444444444", arguments);
            match lacking {
                // Nobody has registered there; that is an answer, too.
                None if name == "registration show" || name == "registration delete" => {
                    assert_eq!(ran.code, Some(69), "{name}: {}", ran.stderr);
                }
                None => assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{name}"),
                Some(lacking) => {
                    assert_eq!(ran.code, Some(77), "{name} without {lacking}: {}{}", ran.stdout, ran.stderr);
                    assert!(ran.stderr.contains(&format!("missing permission: {lacking}\n")), "{name}: {}", ran.stderr);
                }
            }
        }
    }
}

fn bench_with_role(actions: &str) -> Bench {
    let more = format!(
        "[[service_api.role]]\nname = \"made\"\ndata_actions = [{actions}]\n\
         [[entra.client]]\nclient_id = \"44444444-4444-4444-4444-444444444444\"\nsecret = \"{SECRET}\"\nroles = [{{ role = \"made\" }}]\n"
    );
    let bench = Bench::new("server_key = \"ecdsa\"", "", &more);
    bench.put("a.jsonl", &tpm("gw-1", 1));
    bench.put("there.jsonl", &tpm("there", 2));
    bench.put("line.pem", &crate::bench::certificate("line"));
    assert_eq!(bench.run_as(OWNER, &["enroll", "there.jsonl"]).code, Some(0));
    assert_eq!(bench.run_as(OWNER, &["enrollment-group", "create", "--eid", "line", "--cp", "line.pem"]).code, Some(0));
    bench
}

#[test]
fn permissions_are_printed_for_commands() {
    let bench = Bench::plain();
    let ran = bench.run(&["permissions", "enroll", "--output", "csv"]);
    assert_eq!(
        ran.stdout,
        "command,permission,when,builtInRole,policyRight,likeAKey\n\
         enroll,Microsoft.Devices/provisioningServices/enrollments/read,always,Device Provisioning Service Data Reader,EnrollmentRead,false\n\
         enroll,Microsoft.Devices/provisioningServices/enrollments/write,always,Device Provisioning Service Data Contributor,EnrollmentWrite,true\n\
         enroll,Microsoft.Devices/provisioningServices/attestationmechanism/details/action,with --check-keys,\
         Device Provisioning Service Data Contributor,ServiceConfig and EnrollmentWrite,true\n\
         enroll,Microsoft.Devices/provisioningServices/attestationmechanism/details/action,with --service-keys --update,\
         Device Provisioning Service Data Contributor,ServiceConfig and EnrollmentWrite,true\n"
    );
    let role = bench.run(&["permissions", "enroll", "--role-definition", "role.json", "--assignable-scope", "/subscriptions/s"]);
    assert_eq!((role.code, role.stdout.as_str()), (Some(0), ""));
    let role: Value = serde_json::from_str(&bench.read("role.json")).unwrap();
    assert_eq!(role["AssignableScopes"][0], "/subscriptions/s");
    assert_eq!(
        role["DataActions"],
        serde_json::json!([
            "Microsoft.Devices/provisioningServices/enrollments/read",
            "Microsoft.Devices/provisioningServices/enrollments/write"
        ])
    );
}
