//! A device that another program provisioned is taken over with the key that it left in the TPM, or nothing changes at all.

use std::fs;

use crate::hostile_gateway::{Gateway, ID};

/// A gateway whose hub key is at 0x81000100, and of which nobody remembers anything else.
fn left_by_another() -> Gateway {
    let mut gateway = Gateway::new();
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    gateway.provision();
    forget(&gateway);
    gateway
}

fn forget(gateway: &Gateway) {
    for directory in ["state", "run"] {
        fs::remove_dir_all(gateway.path(directory)).unwrap();
    }
}

const GIVEN: [&str; 5] = ["adopt", "--hub", "localhost", "--device-id", "gw-tpm"];

/// What the service was asked since then.
fn asked_since(gateway: &Gateway, before: usize) -> Vec<String> {
    gateway.asked().split_off(before)
}

#[test]
fn a_key_that_the_hub_accepts_becomes_the_identity_without_a_registration() {
    let lookups = ["> connect https", "> lookup", "> connect https", "> lookup"];
    let with_dps = [&lookups[..], &["> hub connect mqtt localhost gw-tpm", "> disconnect"]].concat();
    for (arguments, asked) in [(&GIVEN[..], &with_dps[4..]), (&GIVEN[..3], &with_dps[4..]), (&GIVEN[..1], &with_dps[..])] {
        let gateway = left_by_another();
        let (kept, before) = (gateway.at("0x81000100").unwrap(), gateway.asked().len());
        gateway.run(arguments).well();
        assert_eq!(asked_since(&gateway, before), asked, "{arguments:?}");
        assert_eq!(gateway.emulator.hub_key_generation(ID), 1, "there was no registration");
        assert_eq!((gateway.hub_key(), gateway.at("0x81000100")), (kept.clone(), Some(kept)));
        assert_eq!(gateway.record()["tpm"]["hubKey"]["kept"]["handle"], "0x81000100");
        assert!(gateway.path("run/assignment.json").exists());
        assert!(gateway.works());
        let before = gateway.asked().len();
        gateway.provision();
        assert_eq!(asked_since(&gateway, before), [""; 0], "it is provisioned");
        gateway.run(&["provision", "--force"]).well();
        assert!(gateway.works());
        assert_eq!(gateway.at("0x81000100"), Some(gateway.hub_key()), "what was adopted may give way");
    }
}

/// Neither a record nor a hand-off, and the same key at the handle.
fn nothing_changed(gateway: &Gateway, kept: Option<&String>) {
    assert_eq!(gateway.at("0x81000100").as_ref(), kept);
    assert!(!gateway.path("state/record").exists() && !gateway.path("run/assignment.json").exists());
    assert_eq!(gateway.token().unwrap_err().0, 75);
}

#[test]
fn a_key_that_the_hub_refuses_changes_nothing() {
    let mut gateway = left_by_another();
    let kept = gateway.at("0x81000100").unwrap();
    gateway.set("attestation.identity_handle = \"none\"");
    gateway.provision();
    forget(&gateway);
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    let (exit_code, message) = gateway.fails(&GIVEN);
    assert_eq!(exit_code, 69, "{message}");
    assert!(message.starts_with("the hub localhost does not accept the key in the TPM as gw-tpm ("), "{message}");
    assert!(message.ends_with("; nothing was changed; `dps-agent provision` registers the device"), "{message}");
    nothing_changed(&gateway, Some(&kept));
    gateway.provision();
    assert!(gateway.works());
    assert_eq!(gateway.at("0x81000100"), Some(kept), "what nobody has adopted is another's");
}

#[test]
fn an_imported_key_of_anybody_changes_nothing() {
    let gateway = left_by_another();
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000100").success();
    fs::write(gateway.tpm.path("key"), [7; 32]).unwrap();
    gateway.tpm.tool("tpm2_import -Q -C 0x81000001 -G hmac -i key -u key.pub -r key.priv").success();
    gateway.tpm.tool("tpm2_load -Q -C 0x81000001 -u key.pub -r key.priv -c key.ctx").success();
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c key.ctx 0x81000100").success();
    gateway.tpm.tool("tpm2_flushcontext -t").success();
    let kept = gateway.at("0x81000100").unwrap();
    let (exit_code, message) = gateway.fails(&GIVEN);
    assert_eq!(exit_code, 69);
    assert!(message.starts_with("the hub localhost does not accept the key in the TPM as gw-tpm ("), "{message}");
    nothing_changed(&gateway, Some(&kept));
}

#[test]
fn a_hub_that_cannot_be_asked_changes_nothing() {
    let mut gateway = left_by_another();
    let kept = gateway.at("0x81000100").unwrap();
    let port = gateway.emulator.mqtt_port();
    gateway.set("hub.mqtt_port = 1");
    gateway.set("hub.transport = \"mqtt\"");
    let unasked =
        "the hub localhost could not be asked, and a key is taken over only when the hub has accepted it; nothing was changed";
    assert_eq!(gateway.fails(&GIVEN), (75, unasked.to_owned()));
    nothing_changed(&gateway, Some(&kept));
    gateway.set(&format!("hub.mqtt_port = {port}"));
    gateway.run(&GIVEN).well();
    assert!(gateway.works());
}

#[test]
fn a_refused_key_does_not_harm_what_is_recorded() {
    let mut gateway = left_by_another();
    gateway.set("attestation.identity_handle = \"none\"");
    gateway.provision();
    gateway.set("attestation.identity_handle = \"0x81000100\"");
    let files = || ["state/record", "run/assignment.json"].map(|name| fs::read(gateway.path(name)).unwrap());
    let before = files();
    assert_eq!(gateway.fails(&GIVEN).0, 69);
    assert_eq!(files(), before);
    assert!(gateway.works());
}

#[test]
fn without_a_key_there_is_nothing_to_take_over() {
    let mut gateway = left_by_another();
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000100").success();
    let nothing = "nothing is kept at identity_handle 0x81000100; provision this device instead of adopting a key";
    assert_eq!(gateway.fails(&GIVEN), (71, nothing.to_owned()));
    nothing_changed(&gateway, None);
    gateway.tpm.tool("tpm2_createprimary -Q -C o -G ecc -c foreign.ctx").success();
    gateway.tpm.tool("tpm2_evictcontrol -Q -C o -c foreign.ctx 0x81000100").success();
    gateway.tpm.tool("tpm2_flushcontext -t").success();
    let foreign = gateway.at("0x81000100").unwrap();
    let unsuitable =
        "an ECC key is kept at identity_handle 0x81000100, not a key that signs with HMAC-SHA256; set another identity_handle";
    assert_eq!(gateway.fails(&GIVEN), (71, unsuitable.to_owned()));
    nothing_changed(&gateway, Some(&foreign));
    gateway.set("attestation.identity_handle = \"none\"");
    let none = "identity_handle is \"none\"; set it, 0x81000100 being where Microsoft's C client keeps its key";
    assert_eq!(gateway.fails(&GIVEN), (78, none.to_owned()));
}
