//! TPMs that do not let everybody in: passwords of the owner and of the endorsement hierarchy, and a TPM that is locked.

use crate::hostile_gateway::{Gateway, ID, Ran, code, each};
use crate::relay::{Act, rc};

const OWNERS: &str = "the-password-of-the-owner";
const PRIVACY: &str = "the-password-of-the-privacy-administrator";
/// How a wrong one begins.
const WRONG: &str = "not-";

/// Neither on the way to the TPM nor in anything that the agent says.
fn stays_secret(gateway: &Gateway, ran: &[&Ran], secret: &str) {
    assert!(!gateway.relay.crossed(secret.as_bytes()), "{secret} has crossed");
    for Ran { stdout, stderr, .. } in ran {
        assert!(!stdout.contains(secret) && !stderr.contains(secret), "{stdout}{stderr}");
    }
}

/// How many wrong passwords the TPM has counted.
fn counted(gateway: &Gateway) -> String {
    let all = gateway.tpm.tool("tpm2_getcap properties-variable").success();
    all.lines().find_map(|line| line.strip_prefix("TPM2_PT_LOCKOUT_COUNTER: ")).unwrap().to_owned()
}

#[test]
fn the_owners_password_opens_what_is_needed_and_never_crosses() {
    let mut gateway = Gateway::new();
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    gateway.tpm.tool(&format!("tpm2_changeauth -c owner {OWNERS}")).success();
    gateway.set_secret("owner_auth_file", OWNERS);
    gateway.relay.rules(&[]);
    let runs = [gateway.provision(), gateway.run(&["provision", "--force"]).well(), gateway.run(&["token"]).well()];
    stays_secret(&gateway, &runs.each_ref(), OWNERS);
    assert!(runs.iter().all(|ran| ran.stderr.is_empty()), "{runs:?}");
    assert_eq!(gateway.tpm.tool("tpm2_getcap handles-persistent").success(), "- 0x81000001\n- 0x81000100\n- 0x81010001\n");
    assert!(gateway.works());
    assert_eq!(counted(&gateway), "0x0");
}

#[test]
fn without_the_owners_password_only_what_is_kept_already_is_used() {
    let mut gateway = Gateway::new();
    gateway.tpm.tool(&format!("tpm2_changeauth -c owner {OWNERS}")).success();
    let missing = "the TPM's owner hierarchy has a password; write it into the file that owner_auth_file names";
    assert_eq!(gateway.fails(&["provision"]), (77, missing.to_owned()));
    assert_eq!(gateway.asked(), [""; 0], "DPS is not asked in vain");
    gateway.set_secret("owner_auth_file", &format!("{WRONG}{OWNERS}"));
    gateway.relay.rules(&[]);
    let ran = gateway.run(&["provision", "--json"]);
    let wrong = "the TPM's owner hierarchy has another password than owner_auth_file, or none; correct the file";
    assert_eq!(ran.failure(), Some((77, wrong.to_owned())));
    stays_secret(&gateway, &[&ran], WRONG);
    assert_eq!(gateway.tpm.tool("tpm2_getcap handles-persistent").success(), "");
    gateway.set_secret("owner_auth_file", OWNERS);
    gateway.provision();
    for written in [None, Some(format!("{WRONG}{OWNERS}"))] {
        gateway.unset("owner_auth_file");
        if let Some(written) = written {
            gateway.set_secret("owner_auth_file", &written);
        }
        assert_eq!(gateway.run(&["provision", "--force"]).well().stderr, "");
        assert!(gateway.works());
    }
    assert_eq!(counted(&gateway), "0x0");
}

#[test]
fn a_password_that_is_none_is_wrong_too() {
    let mut gateway = Gateway::new();
    gateway.set_secret("owner_auth_file", OWNERS);
    let wrong = "the TPM's owner hierarchy has another password than owner_auth_file, or none; correct the file";
    assert_eq!(gateway.fails(&["provision"]), (77, wrong.to_owned()));
    gateway.set_secret("owner_auth_file", &"x".repeat(65));
    let long = "the TPM cannot have a password of 65 bytes, 64 are the most; correct owner_auth_file";
    assert_eq!(gateway.fails(&["provision"]), (77, long.to_owned()));
}

#[test]
fn the_endorsement_hierarchys_password_opens_what_is_needed_and_never_crosses() {
    let mut gateway = Gateway::new();
    gateway.tpm.tool(&format!("tpm2_changeauth -c endorsement {PRIVACY}")).success();
    let missing = "the TPM's endorsement hierarchy has a password; write it into the file that endorsement_auth_file names";
    assert_eq!(gateway.fails(&["provision"]), (77, missing.to_owned()));
    gateway.set_secret("endorsement_auth_file", &format!("{WRONG}{PRIVACY}"));
    gateway.relay.rules(&[]);
    let ran = gateway.run(&["provision", "--json"]);
    let wrong = "the TPM's endorsement hierarchy has another password than endorsement_auth_file, or none; correct the file";
    assert_eq!(ran.failure(), Some((77, wrong.to_owned())));
    stays_secret(&gateway, &[&ran], WRONG);
    gateway.set_secret("endorsement_auth_file", PRIVACY);
    gateway.relay.rules(&[]);
    let runs = [gateway.provision(), gateway.run(&["provision", "--force"]).well(), gateway.run(&["token"]).well()];
    stays_secret(&gateway, &runs.each_ref(), PRIVACY);
    assert!(gateway.works());
    gateway.unset("endorsement_auth_file");
    assert!(gateway.works(), "nothing to sign a token needs it");
    assert_eq!(gateway.fails(&["provision", "--force"]), (77, missing.to_owned()));
    assert!(gateway.works());
    assert_eq!(counted(&gateway), "0x0");
}

#[test]
fn both_passwords_together_are_good_for_a_registration() {
    let mut gateway = Gateway::new();
    for (hierarchy, password) in [("owner", OWNERS), ("endorsement", PRIVACY)] {
        gateway.tpm.tool(&format!("tpm2_changeauth -c {hierarchy} {password}")).success();
        gateway.set_secret(&format!("{hierarchy}_auth_file"), password);
    }
    gateway.relay.rules(&[]);
    let ran = gateway.provision();
    for password in [OWNERS, PRIVACY] {
        stays_secret(&gateway, &[&ran], password);
    }
    assert!(gateway.works());
}

/// Locks the TPM for an hour, by one wrong password for an object that minds.
fn lock(gateway: &Gateway) {
    gateway.tpm.tool("tpm2_dictionarylockout -s -n 1 -t 3600 -l 3600").success();
    gateway.tpm.tool("tpm2_createprimary -Q -C n -G ecc -p right -c minds.ctx").success();
    assert_ne!(gateway.tpm.tool("tpm2_create -Q -C minds.ctx -P wrong -G ecc -u a.pub -r a.priv").code, Some(0));
    gateway.tpm.tool("tpm2_flushcontext -t").success();
    let all = gateway.tpm.tool("tpm2_getcap properties-variable").success();
    assert!(all.contains("inLockout:                 1"), "{all}");
}

#[test]
fn a_locked_tpm_is_shown_no_password_and_the_time_is_told() {
    let mut gateway = Gateway::new();
    gateway.tpm.tool(&format!("tpm2_changeauth -c owner {OWNERS}")).success();
    gateway.set_secret("owner_auth_file", OWNERS);
    lock(&gateway);
    gateway.relay.rules(&[]);
    let (exit_code, message) = gateway.fails(&["provision"]);
    assert_eq!(
        message,
        "the TPM is locked after too many wrong passwords for at most 3600 s more; wait, or reset it with \
         tpm2_dictionarylockout --clear-lockout"
    );
    assert_eq!(exit_code, 71);
    let opened = gateway.relay.exchanges().into_iter().filter(|exchange| exchange.code == code("StartAuthSession"));
    assert_eq!(opened.count(), 0, "no session in which a password could be used");
    stays_secret(&gateway, &[], OWNERS);
    gateway.tpm.tool("tpm2_dictionarylockout -c").success();
    gateway.provision();
    assert!(gateway.works());
}

#[test]
fn a_locked_tpm_does_all_for_which_no_password_is_needed() {
    let gateway = Gateway::new();
    lock(&gateway);
    gateway.provision();
    assert!(gateway.works());
    gateway.run(&["provision", "--force"]).well();
    assert!(gateway.works());
}

#[test]
fn a_tpm_that_says_that_it_is_locked_is_believed() {
    let gateway = Gateway::new();
    gateway.provision();
    gateway.relay.rules(&[each("HMAC", Act::Answer(rc::LOCKOUT))]);
    let locked =
        "the TPM is locked after too many wrong passwords; wait, or reset it with tpm2_dictionarylockout --clear-lockout";
    assert_eq!(gateway.token(), Err((71, locked.to_owned())));
    let (key, generation) = (gateway.hub_key(), gateway.emulator.hub_key_generation(ID));
    assert_eq!(gateway.fails(&["provision", "--force"]), (71, locked.to_owned()));
    assert_eq!((gateway.hub_key(), gateway.emulator.hub_key_generation(ID)), (key, generation));
    gateway.relay.rules(&[]);
    assert!(gateway.works());
}
