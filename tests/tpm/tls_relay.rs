//! A relay for TLS connections, which sees the records and not what is in them: it counts requests and answers, and is where the
//! power is cut between them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::cutter::Cutter;

/// Type, version (2 bytes) and length (2) of a TLS record.
const HEADER: usize = 5;
const APPLICATION_DATA: u8 = 23;
/// In TLS 1.3 an alert looks like data of this length: two bytes, their type and a tag.
const ENCRYPTED_ALERT: usize = 19;

/// Stands between a client and a service until the test ends.
pub struct TlsRelay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    /// What the client says after the answer waits for no other, and is no event: it would come at any time.
    one_exchange: bool,
    upstream: u16,
    cutter: Cutter,
    down: AtomicBool,
    open: Mutex<usize>,
    closed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Server,
}

/// What the two ways of a connection know of each other.
#[derive(Default)]
struct Talk {
    /// The server sent data before it was asked for any: in TLS 1.3 that is its handshake.
    tls13: bool,
    client_finished: bool,
    last: Option<From>,
}

impl TlsRelay {
    /// Relays to this port of localhost. What the client sends up to an answer is one event of the cutter, `NAME request`; what
    /// comes back up to the next request is another, `NAME answer`. Handshakes and goodbyes are none.
    pub fn start(name: &'static str, upstream: u16, cutter: &Cutter) -> Self {
        Self::with(name, upstream, cutter, false)
    }

    /// The same where a connection has one request and one answer, as the proof at a hub: what the client says after that is a
    /// goodbye that nobody answers.
    pub fn to_one_exchange(name: &'static str, upstream: u16, cutter: &Cutter) -> Self {
        Self::with(name, upstream, cutter, true)
    }

    fn with(name: &'static str, upstream: u16, cutter: &Cutter, one_exchange: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (down, open, closed) = Default::default();
        let shared = Arc::new(Shared { name, one_exchange, upstream, cutter: cutter.clone(), down, open, closed });
        let own = shared.clone();
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|client| {
                if !own.down.load(Ordering::SeqCst) {
                    // A service that is not there hangs up on the client.
                    let _refused = own.serve(client);
                }
            });
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether new connections are hung up on, as by a network that is down.
    pub fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Waits until every connection is at its end, on the service's side too: what it had received, it has dealt with.
    pub fn settle(&self) {
        let open = self.shared.open.lock().unwrap();
        drop(self.shared.closed.wait_while(open, |open| *open > 0).unwrap());
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream))?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let talk = Arc::default();
        let ways = [(From::Client, client.try_clone()?, server.try_clone()?), (From::Server, server, client)];
        *self.open.lock().unwrap() += ways.len();
        for (from, source, sink) in ways {
            let (own, talk) = (self.clone(), Arc::clone(&talk));
            thread::spawn(move || {
                let _hung_up = own.one_way(from, source, &sink, &talk);
                // The end of a killed client is an error here, and an end all the same there.
                let _hung_up = sink.shutdown(Shutdown::Write);
                *own.open.lock().unwrap() -= 1;
                own.closed.notify_all();
            });
        }
        Ok(())
    }

    /// Carries what comes together to the other side.
    fn one_way(&self, from: From, source: TcpStream, mut sink: &TcpStream, talk: &Mutex<Talk>) -> io::Result<()> {
        let mut source = BufReader::with_capacity(64 * 1024, source);
        while let Some(batch) = batch(&mut source)? {
            let begins = talk.lock().unwrap().begins_a_message(from, &batch, self.one_exchange);
            let mut write = || sink.write_all(&batch.concat());
            let passed = if begins { self.cutter.around(&self.event(from), write) } else { Some(write()) };
            // A client that is dead hears no more; the service is heard out, so that it finishes what it was asked for.
            if passed.is_none() && from == From::Server {
                io::copy(&mut source, &mut io::sink())?;
            }
            if passed.is_none_or(|written| written.is_err()) {
                break;
            }
        }
        Ok(())
    }

    fn event(&self, from: From) -> String {
        let what = if from == From::Client { "request" } else { "answer" };
        format!("{} {what}", self.name)
    }
}

impl Talk {
    /// Whether one of these records is the first of a request or of an answer.
    fn begins_a_message(&mut self, from: From, records: &[Vec<u8>], one_exchange: bool) -> bool {
        let mut begins = false;
        for record in records {
            let over = one_exchange && self.last == Some(From::Server);
            if self.is_message(from, record) && self.last != Some(from) && !over {
                // What a server says unasked is no answer: session tickets.
                if from == From::Client || self.last == Some(From::Client) {
                    self.last = Some(from);
                    begins = true;
                }
            }
        }
        begins
    }

    fn is_message(&mut self, from: From, record: &[u8]) -> bool {
        if record[0] != APPLICATION_DATA {
            return false;
        }
        if from == From::Server && self.last.is_none() && !self.client_finished {
            self.tls13 = true;
            return false;
        }
        if from == From::Client && self.tls13 && !self.client_finished {
            self.client_finished = true;
            return false;
        }
        !(self.tls13 && record.len() == HEADER + ENCRYPTED_ALERT)
    }
}

/// Whole records: the next one, and those that came with it. None at the end.
fn batch(source: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let mut records = Vec::new();
    if source.fill_buf()?.is_empty() {
        return Ok(None);
    }
    while !source.buffer().is_empty() {
        let mut record = vec![0; HEADER];
        source.read_exact(&mut record)?;
        record.resize(HEADER + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        source.read_exact(&mut record[HEADER..])?;
        records.push(record);
    }
    Ok(Some(records))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cutter::Cut;
    use dps_emulator::{Config, Emulator};
    use std::process::{Command, Stdio};

    const KEY: &str = "YSBrZXkgb2YgdGhlIHRlc3RzLCB0aGlydHktdHdvIGI=";

    /// The emulator behind a relay, and the agent's configuration file for it.
    struct Setting {
        emulator: Emulator,
        relay: TlsRelay,
        cutter: Cutter,
        directory: std::path::PathBuf,
    }

    impl Setting {
        fn new(tls: &str, enrollment: &str) -> Self {
            let text = format!(
                "[service]\nid_scope = \"0ne00000000\"\ntls = [\"{tls}\"]\n\
                 [[enrollment]]\nregistration_id = \"gw-0001\"\nprimary_key = \"{KEY}\"\n{enrollment}\n"
            );
            let emulator = Emulator::start(Config::from_toml(&text).unwrap()).unwrap();
            let cutter = Cutter::default();
            let relay = TlsRelay::start("DPS", emulator.https_port(), &cutter);
            let directory = crate::swtpm::scratch("tls-relay");
            std::fs::write(directory.join("ca.pem"), emulator.ca_pem()).unwrap();
            crate::swtpm::secret(&directory.join("device.key"), KEY);
            let (place, port) = (directory.display(), relay.port());
            let config = format!(
                "[dps]\nhost = \"localhost\"\nid_scope = \"0ne00000000\"\ntransport = \"https\"\nhttps_port = {port}\n\
                 ca_file = \"{place}/ca.pem\"\nca_only = true\n\
                 [attestation]\nmethod = \"symmetric-key\"\nregistration_id = \"gw-0001\"\nkey_file = \"{place}/device.key\"\n\
                 [hub]\nverify = \"never\"\n[state]\ndirectory = \"{place}/state\"\n[runtime]\ndirectory = \"{place}/run\"\n"
            );
            std::fs::write(directory.join("config.toml"), config).unwrap();
            Self { emulator, relay, cutter, directory }
        }

        /// A registration; its exit code.
        fn register(&self, cut: Option<Cut>) -> Option<i32> {
            let mut agent = Command::new(env!("CARGO_BIN_EXE_dps-agent"));
            agent.args(["provision", "--force", "--timeout", "20s", "--config"]).arg(self.directory.join("config.toml"));
            agent.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let code = self.cutter.spawn(&mut agent, cut).wait().unwrap().code();
            self.relay.settle();
            code
        }

        /// How many requests the emulator has had.
        fn heard(&self) -> usize {
            let is_request = |line: &&String| line.starts_with("> register") || line.starts_with("> query");
            self.emulator.transcript("gw-0001").iter().filter(is_request).count()
        }
    }

    impl Drop for Setting {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }

    const AT_ONCE: &str = "answer = \"at-once\"";

    #[test]
    fn a_registration_is_two_requests_and_two_answers_with_each_version_of_tls() {
        for tls in ["1.2", "1.3"] {
            let setting = Setting::new(tls, "");
            assert_eq!(setting.register(None), Some(0), "TLS {tls}");
            assert_eq!(setting.cutter.events(), ["DPS request", "DPS answer", "DPS request", "DPS answer"], "TLS {tls}");
        }
    }

    #[test]
    fn the_service_hears_of_a_request_after_it_and_not_before_it() {
        for tls in ["1.2", "1.3"] {
            let setting = Setting::new(tls, AT_ONCE);
            let cuts = [Cut::Before(1), Cut::After(1), Cut::Before(2), Cut::After(2)];
            for (cut, (requests, events)) in cuts.into_iter().zip([(0, 1), (1, 1), (1, 2), (1, 2)]) {
                let before = setting.heard();
                assert_eq!(setting.register(Some(cut)), None, "TLS {tls}, {cut:?}");
                assert_eq!(setting.heard() - before, requests, "TLS {tls}, {cut:?}");
                assert_eq!(setting.cutter.events(), ["DPS request", "DPS answer"][..events], "TLS {tls}, {cut:?}");
            }
        }
    }

    #[test]
    fn a_network_that_is_down_lets_nothing_through() {
        let setting = Setting::new("1.3", AT_ONCE);
        setting.relay.down(true);
        let mut agent = TcpStream::connect((Ipv4Addr::LOCALHOST, setting.relay.port())).unwrap();
        assert_eq!(agent.read(&mut [0]).unwrap(), 0);
        setting.relay.down(false);
        assert_eq!(setting.register(None), Some(0));
    }
}
