//! A look at a TPM finds what is where, and leaves everything as it was.

use super::*;
use crate::tpm::{Examination, Occupant};

fn examine(simulator: &Simulator) -> Examination {
    run(simulator.tpm().examine()).unwrap()
}

fn kept(simulator: &Simulator) -> String {
    simulator.tool("tpm2_getcap handles-persistent")
}

#[test]
fn an_empty_tpm_stays_empty() {
    let simulator = Simulator::start();
    let found = examine(&simulator);
    assert!(found.vendor.starts_with("IBM"), "{found:?}");
    let nothing = Occupant::Nothing;
    let expected = Examination {
        vendor: found.vendor.clone(),
        locked: None,
        endorsement_key: nothing,
        storage_key: nothing,
        identity: Some(nothing),
    };
    assert_eq!(found, expected);
    assert_eq!(kept(&simulator), "");
}

#[test]
fn keys_that_fit_are_told_from_foreign_ones() {
    let simulator = Simulator::start();
    run(simulator.tpm().attend(None)).unwrap();
    let found = examine(&simulator);
    assert_eq!((found.endorsement_key, found.storage_key), (Occupant::Fitting, Occupant::Fitting));

    let simulator = Simulator::start();
    simulator.tool("tpm2_createprimary -Q -C o -G ecc -c ecc.ctx");
    simulator.tool("tpm2_evictcontrol -Q -C o -c ecc.ctx 0x81000001");
    simulator.tool("tpm2_flushcontext -Q -t");
    simulator.tool("tpm2_createprimary -Q -C o -G rsa -c rsa.ctx");
    simulator.tool("tpm2_evictcontrol -Q -C o -c rsa.ctx 0x81000100");
    let before = kept(&simulator);
    let found = examine(&simulator);
    assert_eq!(found.endorsement_key, Occupant::Nothing);
    assert_eq!(found.storage_key, Occupant::Foreign("an ECC key"));
    assert_eq!(found.identity, Some(Occupant::Foreign("an RSA key")));
    assert_eq!(kept(&simulator), before);
}

#[test]
fn a_locked_tpm_says_for_how_long() {
    let simulator = Simulator::start();
    run(simulator.tpm().attend(None)).unwrap();
    simulator.tool("tpm2_dictionarylockout -s -n 1 -t 100 -l 100");
    simulator.tool("tpm2_create -Q -C 0x81000001 -G hmac -c key.ctx -p right -a userwithauth|sign|sensitivedataorigin");
    std::fs::write(simulator.directory().join("text"), "text").unwrap();
    let mut guess = std::process::Command::new("tpm2_hmac");
    guess.args(["-c", "key.ctx", "-p", "wrong", "text"]).env("TPM2TOOLS_TCTI", simulator.tcti());
    assert!(!guess.current_dir(simulator.directory()).output().unwrap().status.success());
    assert_eq!(examine(&simulator).locked, Some(Some(std::time::Duration::from_secs(100))));
}
