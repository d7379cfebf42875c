//! Hierarchies with passwords: right, wrong, missing, and a TPM that is locked.

use std::time::Duration;

use super::*;

const SECRET: &str = "correct horse";

/// Each byte as swtpm's log writes it.
fn logged(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_owners_password_is_used_and_never_sent() {
    let simulator = Simulator::start();
    simulator.tool(&format!("tpm2_changeauth -c owner {}", hex(SECRET)));
    let before = simulator.log().len();
    let tpm = simulator.tpm_with(SECRET, "");
    let keys = run(tpm.attend(None)).unwrap();
    assert_eq!(keys.storage_key.handle, Some(SRK));
    let blob = Blob::new(&keys, [1; 32]);
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
    assert_eq!(run(tpm.place(&keys.storage_key, &hub_key, &[])), Ok(Placed::Written));
    let log = simulator.log()[before..].split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(log.contains("00 00 01 31") && !log.contains(&logged(SECRET)));
    for kind in ["handles-loaded-session", "handles-transient"] {
        assert_eq!(simulator.tool(&format!("tpm2_getcap {kind}")), "", "{kind}");
    }
}

#[test]
fn an_owners_password_that_is_missing_or_wrong_is_said() {
    let simulator = Simulator::start();
    simulator.tool(&format!("tpm2_changeauth -c owner {}", hex(SECRET)));
    assert_eq!(run(simulator.tpm().attend(None)), Err(TpmError::AuthMissing { hierarchy: "owner" }));
    let (wrong, commands) = simulator.commands(|| run(simulator.tpm_with("wrong", "").attend(None)));
    assert_eq!(wrong, Err(TpmError::AuthWrong { hierarchy: "owner" }));
    assert_eq!(commands.iter().filter(|command| [0x120, 0x131].contains(*command)).count(), 3, "one try: {commands:x?}");
    let long = run(simulator.tpm_with(&"x".repeat(65), "").attend(None));
    assert_eq!(long, Err(TpmError::AuthTooLong(65, "owner")));
}

#[test]
fn without_the_owners_password_what_is_there_serves() {
    let simulator = Simulator::start();
    let before = run(simulator.tpm().attend(None)).unwrap();
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    simulator.tool(&format!("tpm2_changeauth -c owner {}", hex(SECRET)));
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    assert_eq!(keys, before);
    assert_eq!(simulator.tool("tpm2_getcap handles-persistent"), "- 0x81000001\n", "the endorsement key stays transient");
    let blob = Blob::new(&keys, [1; 32]);
    assert_eq!(run(tpm.answer(&keys, &blob.wrap(), "text".to_owned())), Ok(blob.signature("text")));
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
    assert_eq!(run(tpm.place(&keys.storage_key, &hub_key, &[])), Err(TpmError::AuthMissing { hierarchy: "owner" }));
}

#[test]
fn the_endorsement_hierarchys_password_is_used_and_never_sent() {
    let simulator = Simulator::start();
    simulator.tool(&format!("tpm2_changeauth -c endorsement {}", hex(SECRET)));
    let before = simulator.log().len();
    let tpm = simulator.tpm_with("", SECRET);
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]);
    assert_eq!(run(tpm.answer(&keys, &blob.wrap(), "text".to_owned())), Ok(blob.signature("text")));
    let log = simulator.log()[before..].split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!log.contains(&logged(SECRET)));

    let missing = TpmError::AuthMissing { hierarchy: "endorsement" };
    assert_eq!(run(simulator.tpm().answer(&keys, &blob.wrap(), "text".to_owned())), Err(missing));
    let wrong = TpmError::AuthWrong { hierarchy: "endorsement" };
    assert_eq!(run(simulator.tpm_with("", "wrong").answer(&keys, &blob.wrap(), "text".to_owned())), Err(wrong));
}

#[test]
fn both_passwords_go_through_one_session() {
    let simulator = Simulator::start();
    simulator.tool(&format!("tpm2_changeauth -c owner {}", hex("first")));
    simulator.tool(&format!("tpm2_changeauth -c endorsement {}", hex("second")));
    // Zeros at the end count for nothing.
    let tpm = simulator.tpm_with("first\0\0", "second");
    let (keys, commands) = simulator.commands(|| run(tpm.attend(None)).unwrap());
    assert_eq!(commands.iter().filter(|command| **command == 0x176).count(), 1, "{commands:x?}");
    assert_eq!(keys.storage_key.handle, Some(SRK));
}

#[test]
fn a_locked_tpm_is_sent_no_password_and_says_for_how_long_it_is_locked() {
    let simulator = Simulator::start();
    let keys = run(simulator.tpm().attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]);
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    simulator.tool("tpm2_dictionarylockout -s -n 1 -t 100 -l 100");
    let attributes = "userwithauth|sign|fixedtpm|fixedparent|sensitivedataorigin";
    simulator.tool(&format!("tpm2_create -Q -C {SRK:#x} -G hmac -c key.ctx -p right -a {attributes}"));
    std::fs::write(simulator.directory().join("text"), "text").unwrap();
    assert!(!simulator.tries("tpm2_hmac -c key.ctx -p wrong text"));
    // A key without protection against guesses, and a hierarchy without a password, work all the same.
    let signed = run(simulator.tpm().answer(&keys, &blob.wrap(), "text".to_owned()));
    assert_eq!(signed, Ok(blob.signature("text")));

    simulator.tool(&format!("tpm2_changeauth -c endorsement {}", hex(SECRET)));
    let left = Duration::from_secs(100);
    let (locked, commands) = simulator.commands(|| run(simulator.tpm_with("", SECRET).attend(None)));
    assert_eq!(locked, Err(TpmError::LockedOut(Some(left))));
    assert!(!commands.contains(&0x131), "{commands:x?}");

    // A key that is protected is refused by the TPM itself; what it says lacks the time.
    let protected = Blob { attributes: 0x0004_0040, ..Blob::new(&keys, [1; 32]) };
    simulator.tool(&format!("tpm2_changeauth -c endorsement -p {}", hex(SECRET)));
    let refused = run(simulator.tpm().answer(&keys, &protected.wrap(), "text".to_owned()));
    assert_eq!(refused, Err(TpmError::LockedOut(Some(left))));
}

#[test]
fn a_storage_key_with_a_password_of_its_own_is_named_with_its_cure() {
    let simulator = Simulator::start();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    simulator.tool(&format!("tpm2_createprimary -Q -C o -p secret -c srk.ctx -a {attributes}"));
    simulator.tool("tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001");
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]).wrap();
    assert_eq!(run(tpm.import(&keys, &blob)), Err(TpmError::StorageAuth(SRK)));
    let elsewhere = Tpm::new(TpmSettings { srk_handle: 0x8100_0002, ..simulator.settings() }, Auths::default());
    let keys = run(elsewhere.attend(None)).unwrap();
    run(elsewhere.import(&keys, &Blob::new(&keys, [1; 32]).wrap())).unwrap();
}

#[test]
fn a_kept_key_with_a_password_of_its_own_is_lost_for_us() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let attributes = "userwithauth|noda|sign|fixedtpm|fixedparent|sensitivedataorigin";
    simulator.tool(&format!("tpm2_create -Q -C {SRK:#x} -G hmac:sha256 -c key.ctx -p secret -a {attributes}"));
    simulator.tool("tpm2_evictcontrol -Q -C o -c key.ctx 0x81000100");
    let kept = run(tpm.found()).unwrap();
    let lost = run(tpm.sign(&keys.storage_key, &kept, "text".to_owned()));
    assert_eq!(lost, Err(TpmError::Lost("it has a password of its own".to_owned())));
}

#[test]
fn a_hierarchy_that_is_switched_off_is_named() {
    for (hierarchy, switch) in [("owner", "shEnable"), ("endorsement", "ehEnable")] {
        let simulator = Simulator::start();
        simulator.tool(&format!("tpm2_hierarchycontrol -C p {switch} clear"));
        assert_eq!(run(simulator.tpm().attend(None)), Err(TpmError::Disabled { hierarchy }));
    }
}

fn hex(text: &str) -> String {
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("hex:{digits}")
}
