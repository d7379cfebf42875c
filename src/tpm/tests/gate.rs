//! One verb at a time, each to its end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// A TPM that takes a connection and says nothing until it is told to.
struct Mute {
    settings: TpmSettings,
    release: mpsc::Sender<()>,
}

impl Mute {
    fn start(answer: &'static [u8]) -> Self {
        let port = simulator::free_ports();
        let [listener, control] = [port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let tcti = format!("swtpm:host=127.0.0.1,port={port}");
        let (release, released) = mpsc::channel();
        std::thread::spawn(move || obey(&control));
        std::thread::spawn(move || {
            let mut command = [0; 1024];
            // libtss2 looks whether somebody is there before it comes to stay.
            let mut stream = loop {
                let (mut stream, _) = listener.accept().unwrap();
                if stream.read(&mut command).unwrap() > 0 {
                    break stream;
                }
            };
            released.recv().unwrap();
            stream.write_all(answer).unwrap();
        });
        Self { settings: TpmSettings { tcti, ..Simulator::nowhere() }, release }
    }

    fn tpm(&self, patience: Duration) -> Tpm {
        let shared = Arc::new(Shared::new(self.settings.clone(), Auths::default()));
        Tpm { has_identity_handle: false, shared, gate: Gate::with_patience(patience) }
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

#[test]
fn a_tpm_that_does_not_answer_is_given_up() {
    let mute = Mute::start(b"");
    let tpm = mute.tpm(SHORT);
    run(async {
        assert_eq!(tpm.attend(None).await, Err(TpmError::Silent(SHORT)));
        assert_eq!(tpm.attend(None).await, Err(TpmError::Silent(SHORT)), "the first is still at work");
        quiesce();
        mute.release.send(()).unwrap();
    });
}

#[test]
fn a_connection_that_ends_is_said_to_be_broken() {
    let mute = Mute::start(b"");
    mute.release.send(()).unwrap();
    assert!(matches!(run(mute.tpm(LONG).attend(None)), Err(TpmError::Broken(_))));
}

#[test]
fn an_answer_that_makes_no_sense_is_said_to_be_garbled() {
    // A size that is too small for its own head; a list of handles that is longer than its answer.
    for answer in [&b"\x80\x01\0\0\0\x04\0\0\0\0"[..], b"\x80\x01\0\0\0\x13\0\0\0\0\0\0\0\0\x01\0\0\0\x09"] {
        let mute = Mute::start(answer);
        mute.release.send(()).unwrap();
        let error = run(mute.tpm(LONG).attend(None)).unwrap_err();
        assert!(matches!(error, TpmError::Garbled(_) | TpmError::Broken(_)), "{error:?}");
    }
}

#[test]
fn a_verb_that_nobody_waits_for_ends_before_the_next() {
    let mute = Mute::start(b"\x80\x01\0\0\0\x0a\0\0\x01\x01");
    let tpm = mute.tpm(LONG);
    run(async {
        {
            let verb = tpm.attend(None);
            tokio::select! { biased; _ = verb => panic!("it cannot be done yet"), () = tokio::task::yield_now() => {} }
        }
        let release = mute.release.clone();
        std::thread::spawn(move || release.send(()).unwrap());
        quiesce();
    });
}

#[test]
fn a_tpm_in_failure_mode_is_named() {
    let mute = Mute::start(b"\x80\x01\0\0\0\x0a\0\0\x01\x01");
    mute.release.send(()).unwrap();
    assert_eq!(run(mute.tpm(LONG).attend(None)), Err(TpmError::Failed));
}
