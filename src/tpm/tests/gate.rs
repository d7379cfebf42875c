//! One verb at a time, each to its end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A TPM that answers nothing until it is told to, and then from a script, the last answer again and again.
struct Actor {
    settings: TpmSettings,
    release: mpsc::Sender<()>,
    answered: Arc<AtomicUsize>,
}

impl Actor {
    fn start(script: &'static [&'static [u8]]) -> Self {
        let port = simulator::free_ports();
        let [listener, control] = [port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let tcti = format!("swtpm:host=127.0.0.1,port={port}");
        let (release, released) = mpsc::channel();
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        std::thread::spawn(move || obey(&control));
        std::thread::spawn(move || {
            let mut script = script.iter().chain(script.last().into_iter().cycle());
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // libtss2 looks whether somebody is there before it comes with a command, and comes anew with each.
                if stream.read(&mut [0; 1024]).unwrap() == 0 {
                    continue;
                }
                if count.load(Ordering::SeqCst) == 0 {
                    released.recv().unwrap();
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.write_all(script.next().unwrap()).unwrap();
            }
        });
        Self { settings: TpmSettings { tcti, ..Simulator::nowhere() }, release, answered }
    }

    /// The same, told already.
    fn at_once(script: &'static [&'static [u8]]) -> Self {
        let actor = Self::start(script);
        actor.release.send(()).unwrap();
        actor
    }

    fn tpm(&self, patience: Duration) -> Tpm {
        let shared = Arc::new(Shared::new(self.settings.clone(), Auths::default()));
        Tpm { has_identity_handle: true, shared, gate: Gate::with_patience(patience) }
    }
}

/// A simulator's control port: whatever it is told, it is done.
fn obey(control: &TcpListener) {
    for stream in control.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) && stream.write_all(&[0; 4]).is_ok() {}
        });
    }
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// TPM2_GetCapability: nothing is loaded.
const NOTHING_LOADED: &[u8] = b"\x80\x01\0\0\0\x13\0\0\0\0\0\0\0\0\x01\0\0\0\0";
const RETRY: &[u8] = b"\x80\x01\0\0\0\x0a\0\0\x09\x22";
const FAILURE: &[u8] = b"\x80\x01\0\0\0\x0a\0\0\x01\x01";

#[test]
fn a_tpm_that_does_not_answer_is_given_up() {
    let actor = Actor::start(&[b""]);
    let tpm = actor.tpm(SHORT);
    run(async {
        assert_eq!(tpm.attend(None).await, Err(TpmError::Silent(SHORT)));
        assert_eq!(tpm.attend(None).await, Err(TpmError::Silent(SHORT)), "the first is still at work");
        actor.release.send(()).unwrap();
    });
}

#[test]
fn a_connection_that_ends_is_said_to_be_broken() {
    let actor = Actor::at_once(&[NOTHING_LOADED, b""]);
    let error = run(actor.tpm(LONG).attend(None)).unwrap_err();
    assert_eq!(error, TpmError::Broken("it was asked to list its handles (code 0xa000a of tpm2-tss)".to_owned()));
}

#[test]
fn an_answer_that_makes_no_sense_is_said_to_be_garbled() {
    // Nine handles in an answer that has room for none; a capability that nobody asked for.
    let answers: [&'static [&'static [u8]]; 2] =
        [&[b"\x80\x01\0\0\0\x13\0\0\0\0\0\0\0\0\x01\0\0\0\x09"], &[b"\x80\x01\0\0\0\x13\0\0\0\0\0\0\0\0\x06\0\0\0\0"]];
    for script in answers {
        let error = run(Actor::at_once(script).tpm(LONG).attend(None)).unwrap_err();
        assert!(matches!(error, TpmError::Garbled(_)), "{error:?}");
    }
}

#[test]
fn a_verb_goes_on_to_its_end_where_nobody_waits_for_it() {
    let actor = Actor::start(&[NOTHING_LOADED, NOTHING_LOADED, FAILURE]);
    let tpm = actor.tpm(LONG);
    run(async {
        {
            let verb = tpm.attend(None);
            tokio::select! { biased; _ = verb => panic!("it cannot be done yet"), () = began(&tpm) => {} }
        }
        assert_eq!(actor.answered.load(Ordering::SeqCst), 0);
        actor.release.send(()).unwrap();
        quiesce();
        assert_eq!(actor.answered.load(Ordering::SeqCst), 3);
    });
}

async fn began(tpm: &Tpm) {
    while !tpm.gate.is_taken() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_busy_tpm_is_asked_again() {
    // libtss2 asks five times by itself.
    let script = &[RETRY, RETRY, RETRY, RETRY, RETRY, RETRY, NOTHING_LOADED, NOTHING_LOADED, FAILURE];
    assert_eq!(run(Actor::at_once(script).tpm(LONG).attend(None)), Err(TpmError::Failed));
}

#[test]
fn a_tpm_that_stays_busy_is_given_up() {
    let actor = Actor::at_once(&[RETRY]);
    assert_eq!(run(actor.tpm(LONG).attend(None)), Err(TpmError::Busy(0x922)));
    assert_eq!(actor.answered.load(Ordering::SeqCst), 6 * 5);
}
