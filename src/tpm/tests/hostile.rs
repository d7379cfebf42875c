//! TPMs that others use too, that were cleared, or that are full.

use super::simulator::command;
use super::*;
use crate::config::EkUnique;

const CREATE_PRIMARY: u32 = 0x131;
/// A handle that nothing is at.
const FREE: u32 = 0x8100_0002;

fn reads(simulator: &Simulator, handle: u32) -> String {
    simulator.tool(&format!("tpm2_readpublic -c {handle:#x}"))
}

#[test]
fn keys_stay_the_same_through_a_restart() {
    let mut simulator = Simulator::start();
    let keys = run(simulator.tpm().attend(None)).unwrap();
    simulator.power_off();
    simulator.power_on();
    assert_eq!(run(simulator.tpm().attend(None)).unwrap(), keys);
}

#[test]
fn an_ecc_key_at_the_storage_keys_handle_is_left_alone() {
    let mut simulator = Simulator::start();
    simulator.tool("tpm2_createprimary -Q -C o -G ecc -c ecc.ctx");
    simulator.tool("tpm2_evictcontrol -Q -C o -c ecc.ctx 0x81000001");
    let before = reads(&simulator, SRK);
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    assert_eq!(keys.storage_key.handle, None);
    assert!(keys.storage_key.public.is_storage_key());

    let blob = Blob::new(&keys, [1; 32]);
    let (hub_key, commands) = simulator.commands(|| {
        assert_eq!(run(tpm.answer(&keys, &blob.wrap(), "text".to_owned())), Ok(blob.signature("text")));
        let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
        assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
        assert_eq!(run(tpm.attend(Some(&Memory { keys: keys.clone(), hub_key: hub_key.clone() }))).unwrap(), keys);
        hub_key
    });
    assert!(!commands.contains(&CREATE_PRIMARY), "ours is made once in a process: {commands:x?}");
    // A process later, and after a restart, it is made again.
    assert_eq!(run(simulator.tpm().sign(&keys.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
    simulator.power_off();
    simulator.power_on();
    assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
    assert_eq!(reads(&simulator, SRK), before);

    // The cure that the warning names: the key stays the same, and is kept.
    let elsewhere = Tpm::new(TpmSettings { srk_handle: FREE, ..simulator.settings() }, Auths::default());
    let moved = run(elsewhere.attend(Some(&Memory { keys: keys.clone(), hub_key: hub_key.clone() }))).unwrap();
    assert_eq!(moved.storage_key, StorageKey { handle: Some(FREE), ..keys.storage_key });
    assert_eq!(run(elsewhere.sign(&moved.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
}

#[test]
fn an_ecc_key_at_the_endorsement_keys_handle_is_left_alone() {
    let simulator = Simulator::start();
    simulator.tool("tpm2_createek -Q -G ecc -c 0x81010001");
    let before = reads(&simulator, EK);
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]);
    assert_eq!(run(tpm.answer(&keys, &blob.wrap(), "text".to_owned())), Ok(blob.signature("text")));
    assert_eq!(reads(&simulator, EK), before);
    let other = Simulator::start();
    assert_ne!(run(other.tpm().attend(None)).unwrap().endorsement_key, keys.endorsement_key);
}

#[test]
fn keys_that_tpm2_tools_have_left_are_used() {
    let simulator = Simulator::start();
    simulator.tool("tpm2_createek -Q -G rsa -c 0x81010001");
    simulator.tool(
        "tpm2_createprimary -Q -C o -c srk.ctx -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt",
    );
    simulator.tool("tpm2_evictcontrol -Q -C o -c srk.ctx 0x81000001");
    let tpm = simulator.tpm();
    let (keys, commands) = simulator.commands(|| run(tpm.attend(None)).unwrap());
    assert!(!commands.contains(&CREATE_PRIMARY), "nothing is made: {commands:x?}");
    let blob = Blob::new(&keys, [1; 32]);
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();

    // Evicted by somebody, the same key is made again, by its own template.
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81000001");
    assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
    assert_eq!(run(tpm.attend(Some(&Memory { keys: keys.clone(), hub_key }))).unwrap(), keys);
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    assert_eq!(run(tpm.attend(None)).unwrap().endorsement_key, keys.endorsement_key);
}

#[test]
fn a_cleared_tpm_has_the_same_endorsement_key_and_says_that_the_hub_key_is_lost() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let hub_key = run(tpm.import(&keys, &Blob::new(&keys, [1; 32]).wrap())).unwrap();
    simulator.tool("tpm2_clear -c p");
    let lost = run(tpm.sign(&keys.storage_key, &hub_key, "text".to_owned())).unwrap_err();
    assert_eq!(
        lost.to_string(),
        "the TPM does not load the hub key any more: the TPM was cleared, or it is another one: its storage key has changed; `dps-agent provision --force` registers the device again"
    );
    let after = run(tpm.attend(Some(&Memory { keys: keys.clone(), hub_key: hub_key.clone() }))).unwrap();
    assert_eq!(after.endorsement_key, keys.endorsement_key);
    assert_ne!(after.storage_key.public, keys.storage_key.public);
    // Under the new storage key it is lost as well.
    assert!(matches!(run(tpm.sign(&after.storage_key, &hub_key, "text".to_owned())), Err(TpmError::Lost(_))));
}

#[test]
fn another_endorsement_key_is_returned_and_not_answered_with() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]).wrap();
    let hub_key = run(tpm.import(&keys, &blob)).unwrap();
    simulator.tool("tpm2_changeeps");
    assert_eq!(run(tpm.answer(&keys, &blob, "text".to_owned())), Err(TpmError::Changed));
    let after = run(tpm.attend(Some(&Memory { keys: keys.clone(), hub_key }))).unwrap();
    assert_ne!(after.endorsement_key, keys.endorsement_key);
    assert_eq!(after.storage_key, keys.storage_key);
    assert_eq!(run(tpm.answer(&keys, &blob, "text".to_owned())), Err(TpmError::Changed));
}

#[test]
fn the_empty_template_gives_another_endorsement_key() {
    let simulator = Simulator::start();
    let settings = TpmSettings { ek_unique: EkUnique::Empty, ..simulator.settings() };
    let keys = run(Tpm::new(settings.clone(), Auths::default()).attend(None)).unwrap();
    // What is kept is used, whatever it was made from.
    assert_eq!(run(simulator.tpm().attend(None)).unwrap(), keys);
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    let tcg = run(simulator.tpm().attend(None)).unwrap();
    assert!(tcg.endorsement_key.is_endorsement_key() && keys.endorsement_key.is_endorsement_key());
    assert_ne!(tcg.endorsement_key, keys.endorsement_key);
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    let kept_elsewhere = Tpm::new(TpmSettings { ek_handle: 0x8101_0005, ..settings }, Auths::default());
    assert_eq!(run(kept_elsewhere.attend(None)).unwrap(), keys);
}

/// TPM2_StartAuthSession, an HMAC session.
fn session() -> Vec<u8> {
    let null = 0x4000_0007u32.to_be_bytes();
    let rest = [&null[..], &null, &[0, 16], &[1; 16], &[0, 0], &[0], &[0, 0x10], &[0, 0x0b]].concat();
    command(0x8001, 0x176, &rest)
}

/// TPM2_CreatePrimary of a small key.
fn object() -> Vec<u8> {
    let owner = 0x4000_0001u32.to_be_bytes();
    let password = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    let rest = [&owner[..], &password, &[0, 4, 0, 0, 0, 0], &template::salt().sized(), &[0; 2], &[0; 4]].concat();
    command(0x8002, 0x131, &rest)
}

fn code(answer: &[u8]) -> u32 {
    u32::from_be_bytes(answer[6..10].try_into().unwrap())
}

#[test]
fn what_a_killed_process_has_left_does_not_pile_up() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let left = simulator.raw(&[session(), session(), session(), session(), object(), object(), object(), object()]);
    let codes: Vec<_> = left.iter().map(|answer| code(answer)).collect();
    assert_eq!(codes, [0, 0, 0, 0x903, 0, 0, 0, 0x902], "the TPM is full");
    let blob = Blob::new(&keys, [1; 32]);
    assert_eq!(run(simulator.tpm().answer(&keys, &blob.wrap(), "text".to_owned())), Ok(blob.signature("text")));
    for kind in ["handles-loaded-session", "handles-transient"] {
        assert_eq!(simulator.tool(&format!("tpm2_getcap {kind}")), "", "{kind}");
    }
}

#[test]
fn every_way_out_leaves_nothing_loaded() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let mut blob = Blob::new(&keys, [1; 32]).wrap();
    run(tpm.import(&keys, &blob)).unwrap();
    blob.duplicate[40] ^= 1;
    run(tpm.answer(&keys, &blob, "text".to_owned())).unwrap_err();
    blob.credential[40] ^= 1;
    run(tpm.answer(&keys, &blob, "text".to_owned())).unwrap_err();
    // Asked through a connection of its own: the verbs themselves would tidy up.
    for first in [0x0200_0000u32, 0x8000_0000] {
        let rest = [[0, 0, 0, 1], first.to_be_bytes(), [0, 0, 0, 64]].concat();
        let answers = simulator.raw(&[command(0x8001, 0x17a, &rest)]);
        assert_eq!(answers[0][10..], [0, 0, 0, 0, 1, 0, 0, 0, 0], "more: no; handles: none");
    }
}

#[test]
fn a_tpm_without_room_for_sessions_is_named_with_its_cure() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    for _ in 0..64 {
        let handle = &simulator.raw(&[session()])[0][10..14].to_vec();
        assert_eq!(code(&simulator.raw(&[command(0x8001, 0x162, handle)])[0]), 0, "saved, so that nobody tidies it up");
    }
    let blob = Blob::new(&keys, [1; 32]).wrap();
    assert_eq!(run(tpm.answer(&keys, &blob, "text".to_owned())), Err(TpmError::OutOfMemory("sessions")));
}

#[test]
fn keys_for_others_are_told_apart() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let other = run(Simulator::start().tpm().attend(None)).unwrap();
    let rejected = |blob: &AuthenticationKey| {
        let error = run(tpm.import(&keys, blob)).unwrap_err();
        let TpmError::Rejected(cause) = error else { panic!("{error:?}") };
        cause
    };
    let good = || Blob::new(&keys, [1; 32]);
    let for_other_ek = Blob { endorsement_key: other.endorsement_key, ..good() };
    assert_eq!(
        rejected(&for_other_ek.wrap()),
        "its credential was made for another endorsement key; enroll this TPM's (dps-agent identity)"
    );
    let for_other_srk = Blob { named_parent: other.storage_key.public.clone(), ..good() };
    assert_eq!(rejected(&for_other_srk.wrap()), "its credential was made for another storage key, or is damaged");
    let wrapped_for_other_srk = Blob { parent: other.storage_key.public, ..good() };
    assert_eq!(rejected(&wrapped_for_other_srk.wrap()), "it was wrapped for another storage key");
    let with_other_public_area = Blob { public_secret: [2; 32], ..good() };
    assert_eq!(rejected(&with_other_public_area.wrap()), "its public area does not fit the key");
    type Spoil = fn(&mut AuthenticationKey);
    let spoils: [(Spoil, &str); 7] = [
        (|blob| blob.credential[10] ^= 1, "its credential was made for another storage key, or is damaged"),
        (|blob| blob.credential.truncate(20), "its credential was made for another storage key, or is damaged"),
        (|blob| blob.credential.resize(5000, 0), "its credential is longer than any"),
        (|blob| blob.duplicate[10] ^= 1, "its wrapping is damaged, or was made for another storage key"),
        (|blob| blob.duplicate.truncate(10), "its wrapping is damaged, or was made for another storage key"),
        (|blob| blob.public[20] ^= 1, "its wrapping is damaged, or was made for another storage key"),
        (|blob| blob.public.truncate(9), "it is of a kind that no TPM key has"),
    ];
    for (spoil, cause) in spoils {
        let mut blob = good().wrap();
        spoil(&mut blob);
        assert_eq!(rejected(&blob), cause);
    }
}

#[test]
fn a_text_that_is_too_long_is_not_sent() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, [1; 32]);
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
    let longest = "a".repeat(1024);
    assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, longest.clone())), Ok(blob.signature(&longest)));
    assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, longest + "a")), Err(TpmError::TooLong(1025)));
}

#[test]
fn a_tpm_without_room_to_keep_keys_serves_with_transient_ones() {
    let simulator = Simulator::start();
    simulator.tool("tpm2_createprimary -Q -C o -G ecc -c ecc.ctx");
    // It always has room for seven.
    for handle in 0x8100_0010..0x8100_0017_u32 {
        simulator.tool(&format!("tpm2_evictcontrol -Q -C o -c ecc.ctx {handle:#x}"));
        simulator.tool("tpm2_flushcontext -t");
    }
    let mut index = 0x0180_0000..;
    for size in [2048, 256, 16] {
        while simulator.tries(&format!("tpm2_nvdefine {:#x} -C o -s {size}", index.next().unwrap())) {}
    }
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    assert_eq!(keys.storage_key.handle, None);
    let blob = Blob::new(&keys, [1; 32]);
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
    assert_eq!(run(tpm.sign(&keys.storage_key, &hub_key, "text".to_owned())), Ok(blob.signature("text")));
    assert_eq!(run(tpm.place(&keys.storage_key, &hub_key, &[])), Err(TpmError::StorageFull));
}
