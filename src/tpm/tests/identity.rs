//! The identity handle, and what an operator is told of a TPM.

use super::*;

fn signer(simulator: &Simulator, secret: [u8; 32]) -> (Keys, HubKey, Blob) {
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    let blob = Blob::new(&keys, secret);
    let hub_key = run(tpm.import(&keys, &blob.wrap())).unwrap();
    (keys, hub_key, blob)
}

#[test]
fn a_hub_key_is_placed_replaced_and_used_at_its_handle() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    assert_eq!(run(tpm.found()), Err(TpmError::NothingFound(IDENTITY)));
    let (keys, first, blob) = signer(&simulator, [1; 32]);
    assert_eq!(run(tpm.place(&keys.storage_key, &first, &[])), Ok(Placed::Written));
    assert_eq!(run(tpm.place(&keys.storage_key, &first, &[])), Ok(Placed::Already));
    let kept = run(tpm.found()).unwrap();
    assert_eq!(kept.name(), first.name());
    assert!(matches!(kept, HubKey::Kept { handle: IDENTITY, .. }));
    let ((), commands) = simulator.commands(|| {
        assert_eq!(run(tpm.sign(&keys.storage_key, &kept, "text".to_owned())), Ok(blob.signature("text")));
    });
    assert_eq!(commands, [0x173, 0x155]);

    let moved = Tpm::new(TpmSettings { identity_handle: Some(0x8100_0101), ..simulator.settings() }, Auths::default());
    assert_eq!(run(moved.place(&keys.storage_key, &kept, &[first.name()])), Ok(Placed::Already), "it stays where it is");

    let (_, second, blob) = signer(&simulator, [2; 32]);
    assert_eq!(run(tpm.place(&keys.storage_key, &second, &[])), Ok(Placed::Foreign), "nobody says that the first is ours");
    assert_eq!(run(tpm.found()).unwrap().name(), first.name());
    let (placed, commands) = simulator.commands(|| run(tpm.place(&keys.storage_key, &second, &[first.name()])));
    assert_eq!(placed, Ok(Placed::Written));
    assert_eq!(commands, [0x173, 0x173, 0x157, 0x120, 0x120, 0x165], "the new one is loaded before the old one goes");
    let lost = run(tpm.sign(&keys.storage_key, &kept, "text".to_owned())).unwrap_err();
    assert_eq!(lost, TpmError::Lost("it is no longer at handle 0x81000100".to_owned()));
    let kept = run(tpm.found()).unwrap();
    assert_eq!(run(tpm.sign(&keys.storage_key, &kept, "text".to_owned())), Ok(blob.signature("text")));
}

#[test]
fn a_foreign_object_at_the_identity_handle_is_left_alone() {
    let simulator = Simulator::start();
    simulator.tool("tpm2_createprimary -Q -C o -G ecc -c ecc.ctx");
    simulator.tool("tpm2_evictcontrol -Q -C o -c ecc.ctx 0x81000100");
    let tpm = simulator.tpm();
    let (keys, hub_key, _) = signer(&simulator, [1; 32]);
    assert_eq!(run(tpm.place(&keys.storage_key, &hub_key, &[hub_key.name()])), Ok(Placed::Foreign));
    assert_eq!(run(tpm.found()), Err(TpmError::Unsuitable { handle: IDENTITY, kind: "an ECC key" }));
    assert!(simulator.tool("tpm2_readpublic -c 0x81000100").contains("value: ecc"));
}

#[test]
fn without_a_handle_nothing_is_placed_or_found() {
    let simulator = Simulator::start();
    let (keys, hub_key, _) = signer(&simulator, [1; 32]);
    let tpm = Tpm::new(TpmSettings { identity_handle: None, ..simulator.settings() }, Auths::default());
    assert_eq!(run(tpm.place(&keys.storage_key, &hub_key, &[])), Ok(Placed::Nowhere));
    assert_eq!(run(tpm.found()), Err(TpmError::NoHandle));
}

/// Writes `content` into NV as a manufacturer would, readable by whoever the attributes say.
fn manufacture(simulator: &Simulator, index: u32, content: &[u8], attributes: &str) {
    std::fs::write(simulator.directory().join("content"), content).unwrap();
    let length = content.len();
    simulator.tool(&format!("tpm2_nvdefine -Q {index:#x} -C o -s {length} -a ownerwrite|{attributes}"));
    simulator.tool(&format!("tpm2_nvwrite -Q {index:#x} -C o -i content"));
}

/// Something as long as a certificate, with a key in it, and padding behind it.
fn certificate(key: &PublicArea) -> Vec<u8> {
    let content = [blobs::spki(key.modulus().unwrap()), vec![0x5c; 900]].concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82][..], &length, &content].concat()
}

#[test]
fn a_bare_tpm_is_identified() {
    let simulator = Simulator::start();
    let found = run(simulator.tpm().identify()).unwrap();
    assert_eq!(found.keys, run(simulator.tpm().attend(None)).unwrap());
    assert_eq!((found.certificate.is_some(), found.is_certified(), found.template_from_nv), (false, false, false));
    assert!(found.vendor.starts_with("IBM SW   TPM 8217."), "{}", found.vendor);
}

#[test]
fn the_certificate_is_read_whoever_may_read_it() {
    for attributes in ["authread|no_da", "ownerread", "ownerread|authread"] {
        let simulator = Simulator::start();
        let keys = run(simulator.tpm().attend(None)).unwrap();
        let certificate = certificate(&keys.endorsement_key);
        let padded = [&certificate[..], &[0xff; 333]].concat();
        manufacture(&simulator, 0x01c0_0002, &padded, attributes);
        let found = run(simulator.tpm().identify()).unwrap();
        assert_eq!(found.certificate, Some(certificate), "{attributes}");
        assert_eq!((found.is_certified(), found.certified_key), (true, None));
    }
}

#[test]
fn a_certificate_that_nobody_may_read_does_no_harm() {
    let simulator = Simulator::start();
    manufacture(&simulator, 0x01c0_0002, &[1; 300], "policyread");
    assert_eq!(run(simulator.tpm().identify()).unwrap().certificate, None);
}

#[test]
fn the_manufacturers_nonce_decides_how_the_endorsement_key_is_made() {
    let simulator = Simulator::start();
    let plain = run(simulator.tpm().attend(None)).unwrap().endorsement_key;
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    manufacture(&simulator, 0x01c0_0003, &[7; 20], "authread|no_da");
    let with_nonce = run(simulator.tpm().attend(None)).unwrap().endorsement_key;
    assert_ne!(with_nonce, plain);
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    let mut unique = [0; 256];
    unique[..20].copy_from_slice(&[7; 20]);
    std::fs::write(simulator.directory().join("unique"), [&[0, 1][..], &unique].concat()).unwrap();

    // The same by the manufacturer's template, as it is.
    simulator.tool("tpm2_nvundefine -Q 0x1c00003 -C o");
    manufacture(&simulator, 0x01c0_0004, template::endorsement(&[7; 20]).bytes(), "authread|no_da");
    assert_eq!(run(simulator.tpm().attend(None)).unwrap().endorsement_key, with_nonce);
}

#[test]
fn a_certificate_for_the_manufacturers_key_names_that_key() {
    let simulator = Simulator::start();
    manufacture(&simulator, 0x01c0_0003, &[7; 20], "authread|no_da");
    let manufactured = run(simulator.tpm().attend(None)).unwrap().endorsement_key;
    simulator.tool("tpm2_evictcontrol -Q -C o -c 0x81010001");
    simulator.tool("tpm2_nvundefine -Q 0x1c00003 -C o");
    let kept = run(simulator.tpm().attend(None)).unwrap().endorsement_key;
    manufacture(&simulator, 0x01c0_0003, &[7; 20], "authread|no_da");
    manufacture(&simulator, 0x01c0_0002, &certificate(&manufactured), "authread|no_da");
    let found = run(simulator.tpm().identify()).unwrap();
    assert_eq!((&found.keys.endorsement_key, found.is_certified(), found.template_from_nv), (&kept, false, true));
    assert_eq!(found.certified_key, Some(manufactured));
}

#[test]
fn a_template_that_dps_cannot_use_is_not_used() {
    let simulator = Simulator::start();
    manufacture(&simulator, 0x01c0_0004, template::salt().bytes(), "authread|no_da");
    let keys = run(simulator.tpm().attend(None)).unwrap();
    assert!(keys.endorsement_key.is_endorsement_key());
}
