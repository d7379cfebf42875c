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

#[test]
fn each_verb_sends_the_fewest_commands_that_do_it() {
    const READ_PUBLIC: u32 = 0x173;
    const LOAD: u32 = 0x157;
    const HMAC: u32 = 0x155;
    const FLUSH: u32 = 0x165;
    const IMPORT: u32 = 0x156;
    const ACTIVATE: [u32; 5] = [READ_PUBLIC, READ_PUBLIC, 0x176, 0x151, 0x147];

    let simulator = Simulator::start();
    let tpm = simulator.tpm();
    let counted = |verb: &mut dyn FnMut()| simulator.commands(verb).1;
    let mut keys = None;
    let first = counted(&mut || keys = Some(run(tpm.attend(None)).unwrap()));
    let keys = keys.unwrap();
    // Whether the manufacturer has left a template is asked once, when the endorsement key has to be made.
    // Where nobody manages the TPM, the first verb lists what a killed process has left.
    assert_eq!(first[..2], [0x17a, 0x17a]);
    assert_eq!(first[2..], [READ_PUBLIC, 0x17a, 0x131, 0x120, FLUSH, READ_PUBLIC, 0x131, 0x120, FLUSH]);
    assert_eq!(counted(&mut || drop(run(tpm.attend(None)).unwrap())), [READ_PUBLIC; 4]);
    let blob = Blob::new(&keys, [7; 32]).wrap();
    let answer = [&ACTIVATE[..], &[IMPORT, LOAD, HMAC, FLUSH]].concat();
    assert_eq!(counted(&mut || drop(run(tpm.answer(&keys, &blob, "text".to_owned())))), answer);
    let mut hub_key = None;
    let import = [&ACTIVATE[..], &[IMPORT, LOAD, FLUSH]].concat();
    assert_eq!(counted(&mut || hub_key = Some(run(tpm.import(&keys, &blob)).unwrap())), import);
    let memory = Memory { keys: keys.clone(), hub_key: hub_key.unwrap() };
    assert_eq!(counted(&mut || drop(run(tpm.attend(Some(&memory))))), [READ_PUBLIC; 2]);
    let mut sign = || drop(run(tpm.sign(&keys.storage_key, &memory.hub_key, "text".to_owned())));
    assert_eq!(counted(&mut sign), [READ_PUBLIC, LOAD, HMAC, FLUSH]);
}
