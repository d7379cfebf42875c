//! A registration's way through the verbs, and what each of them costs.

use super::*;

#[test]
fn a_new_tpm_answers_a_challenge_and_signs_with_a_hub_key() {
    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let keys = run(tpm.attend(None)).unwrap();
    assert!(keys.endorsement_key.is_endorsement_key());
    assert_eq!(keys.endorsement_key.sized().len(), 316);
    assert_eq!((keys.storage_key.handle, keys.storage_key.public.sized().len()), (Some(SRK), 284));

    let challenge = Blob::new(&keys, [7; 32]);
    let text = "0ne00000000%2fregistrations%2fdev\n1700000000";
    let signature = run(tpm.answer(&keys, &challenge.wrap(), text.to_owned())).unwrap();
    assert_eq!(signature, challenge.signature(text));

    let hub = Blob::new(&keys, [9; 32]);
    let key = run(tpm.import(&keys, &hub.wrap())).unwrap();
    let text = "hub.azure-devices.net%2fdevices%2fdev\n1700000000";
    let signature = run(tpm.sign(&keys.storage_key, &key, text.to_owned())).unwrap();
    assert_eq!(signature, hub.signature(text));
}
