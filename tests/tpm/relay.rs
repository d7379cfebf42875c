//! A machine in the middle between a client and its TPM: counts, records, delays, cuts, alters, loses and repeats what passes.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::cutter::Cutter;
use crate::swtpm::{Swtpm, tcti};
use crate::wire::{self, Code};

/// What real TPMs say besides doing what they are asked.
pub mod rc {
    pub const OBJECT_MEMORY: u32 = 0x902;
    pub const SESSION_MEMORY: u32 = 0x903;
    pub const YIELDED: u32 = 0x908;
    pub const TESTING: u32 = 0x90A;
    pub const LOCKOUT: u32 = 0x921;
    pub const RETRY: u32 = 0x922;
}

/// Stands in front of a TPM until the test ends. Like the TPM, it serves one connection at a time; others wait.
pub struct TpmRelay {
    port: u16,
    shared: Arc<Shared>,
}

/// A command and what the client got for it: none if the relay hung up instead, or the client was killed.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub code: Code,
    pub command: Vec<u8>,
    pub response: Option<Vec<u8>>,
}

/// Which commands are tampered with; numbers count from 1, since the rules were laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    Number(usize),
    Each(Code),
    NumberOf(Code, usize),
}

/// How they are tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The command reaches the TPM this much later.
    Delay(Duration),
    /// One bit of the command is turned on its way.
    FlipCommand(Bit),
    /// One bit of the response is turned on its way.
    FlipResponse(Bit),
    /// The TPM never gets the command; the connection ends.
    LoseCommand,
    /// The TPM has done it; the connection ends instead of the response.
    LoseResponse,
    /// The last response to the same command instead of a new one; the TPM is not asked. Nothing if there was none.
    Replay,
    /// This response code instead; the TPM is not asked.
    Answer(u32),
}

/// A bit of a frame: the byte, from the end of the frame if negative, and its bit. Bytes 2 to 5 are the frame's size: with
/// another there, both sides wait for each other. A place outside the frame is no place, and the rule does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bit(pub isize, pub u8);

struct Shared {
    upstream: u16,
    cutter: Cutter,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<(When, Act)>,
    applied: usize,
    exchanges: Vec<Exchange>,
    /// The last response of the TPM to each command; the rules do not reach it.
    last: HashMap<Code, Vec<u8>>,
}

impl TpmRelay {
    /// Each command is an event of the cutter, called `TPM` and its name.
    pub fn start(tpm: &Swtpm, cutter: &Cutter) -> Self {
        let (data, control, port) = listeners();
        let shared = Arc::new(Shared { upstream: tpm.port(), cutter: cutter.clone(), state: Mutex::default() });
        let own = shared.clone();
        thread::spawn(move || {
            data.incoming().flatten().for_each(|client| {
                // A client or a TPM that hangs up ends the connection, not the relay.
                let _hung_up = own.serve(client);
            });
        });
        let upstream = tpm.port() + 1;
        thread::spawn(move || control.incoming().flatten().for_each(|client| copy_both_ways(client, upstream)));
        Self { port, shared }
    }

    /// How a client of libtss2 finds it.
    pub fn tcti(&self) -> String {
        tcti(self.port)
    }

    /// From now on these rules, all that fit, in this order; counts from the beginning and forgets what was recorded.
    pub fn rules(&self, rules: &[(When, Act)]) {
        let mut state = self.shared.state();
        *state = State { rules: rules.to_vec(), last: std::mem::take(&mut state.last), ..State::default() };
    }

    /// How often a rule was applied.
    pub fn applied(&self) -> usize {
        self.shared.state().applied
    }

    /// What passed since the last `rules`.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.state().exchanges.clone()
    }

    /// The commands that passed since the last `rules`, in order.
    pub fn codes(&self) -> Vec<Code> {
        self.shared.state().exchanges.iter().map(|exchange| exchange.code).collect()
    }

    /// Whether these bytes crossed, either way, since the last `rules`.
    pub fn crossed(&self, secret: &[u8]) -> bool {
        let holds = |frame: &[u8]| frame.windows(secret.len()).any(|window| window == secret);
        let exchanges = self.exchanges();
        exchanges.iter().any(|exchange| holds(&exchange.command) || exchange.response.as_deref().is_some_and(holds))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream))?;
        for stream in [&client, &tpm] {
            stream.set_nodelay(true)?;
        }
        while let Some(command) = wire::read(&mut client)? {
            let response = self.exchange(&command, &mut tpm);
            let exchange = Exchange { code: Code::of(&command), command, response: response.clone() };
            self.state().exchanges.push(exchange);
            let Some(response) = response else { return Ok(()) };
            client.write_all(&response)?;
        }
        Ok(())
    }

    /// What the client is to get; none if the connection is to end.
    fn exchange(&self, command: &[u8], tpm: &mut TcpStream) -> Option<Vec<u8>> {
        let code = Code::of(command);
        let acts = self.state().acts(code);
        let event = format!("TPM {code}");
        self.cutter.around(&event, || self.tampered(&acts, command, tpm)).flatten()
    }

    fn tampered(&self, acts: &[Act], command: &[u8], tpm: &mut TcpStream) -> Option<Vec<u8>> {
        let code = Code::of(command);
        let mut command = command.to_vec();
        for act in acts {
            match *act {
                Act::Delay(time) => delay(time),
                Act::FlipCommand(bit) => self.applied(bit.flip(&mut command)),
                Act::LoseCommand => return None,
                Act::Answer(code) => return Some(wire::bare_response(code)),
                Act::Replay => match self.state().replay(code) {
                    Some(response) => return Some(response),
                    None => continue,
                },
                Act::FlipResponse(_) | Act::LoseResponse => {}
            }
        }
        tpm.write_all(&command).ok()?;
        let mut response = wire::read(tpm).ok()??;
        self.state().last.insert(code, response.clone());
        for act in acts {
            if let Act::FlipResponse(bit) = act {
                self.applied(bit.flip(&mut response));
            }
        }
        (!acts.contains(&Act::LoseResponse)).then_some(response)
    }

    fn applied(&self, is: bool) {
        self.state().applied += usize::from(is);
    }
}

impl State {
    /// What is to be done to the command that comes now. Whether a flip or a replay applies is seen later.
    fn acts(&mut self, code: Code) -> Vec<Act> {
        let number = self.exchanges.len() + 1;
        let of_its_kind = self.exchanges.iter().filter(|exchange| exchange.code == code).count() + 1;
        let applies = |when: &When| match *when {
            When::Always => true,
            When::Number(wanted) => wanted == number,
            When::Each(wanted) => wanted == code,
            When::NumberOf(wanted, of_that_kind) => wanted == code && of_that_kind == of_its_kind,
        };
        let acts: Vec<_> = self.rules.iter().filter(|(when, _)| applies(when)).map(|&(_, act)| act).collect();
        let sure = |act: &&Act| !matches!(act, Act::FlipCommand(_) | Act::FlipResponse(_) | Act::Replay);
        self.applied += acts.iter().filter(sure).count();
        acts
    }

    fn replay(&mut self, code: Code) -> Option<Vec<u8>> {
        let response = self.last.get(&code).cloned();
        self.applied += usize::from(response.is_some());
        response
    }
}

impl Bit {
    /// Whether there is such a byte.
    fn flip(self, frame: &mut [u8]) -> bool {
        let Self(place, bit) = self;
        let place = if place < 0 { frame.len().checked_add_signed(place) } else { usize::try_from(place).ok() };
        let byte = place.and_then(|place| frame.get_mut(place));
        let there = byte.is_some();
        if let Some(byte) = byte {
            *byte ^= 1 << bit;
        }
        there
    }
}

#[expect(clippy::disallowed_methods, reason = "a slow TPM is what the test asks for")]
fn delay(time: Duration) {
    thread::sleep(time);
}

/// For commands, and on the next port for control.
fn listeners() -> (TcpListener, TcpListener, u16) {
    loop {
        let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = data.local_addr().unwrap().port();
        let next = port.checked_add(1).and_then(|next| TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok());
        if let Some(control) = next {
            return (data, control, port);
        }
    }
}

/// Each way in a thread of its own, until both are at their end.
fn copy_both_ways(client: TcpStream, upstream: u16) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
    for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
        thread::spawn(move || {
            let _hung_up = io::copy(&mut from, &mut to);
            let _hung_up = to.shutdown(Shutdown::Write);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cutter::Cut;
    use std::process::{Command, Stdio};

    const RANDOM: &str = "tpm2_getrandom --hex 8";

    fn code(name: &str) -> Code {
        Code::named(name).unwrap()
    }

    fn setting() -> (Swtpm, TpmRelay) {
        let tpm = Swtpm::start();
        let relay = TpmRelay::start(&tpm, &Cutter::default());
        (tpm, relay)
    }

    /// What a tool of tpm2-tools prints through the relay with one rule.
    fn with(setting: &(Swtpm, TpmRelay), when: When, act: Act, line: &str) -> Result<String, String> {
        setting.1.rules(&[(when, act)]);
        let tool = setting.0.tool_over(&setting.1.tcti(), line);
        if tool.code == Some(0) { Ok(tool.stdout) } else { Err(tool.stderr) }
    }

    #[test]
    fn it_counts_and_records_what_passes_both_ways() {
        let (tpm, relay) = setting();
        relay.rules(&[]);
        tpm.tool_over(&relay.tcti(), "tpm2_createprimary -Q -C o -G ecc -p a-secret -c key.ctx").success();
        let codes = relay.codes();
        assert!(codes.contains(&code("CreatePrimary")) && codes.contains(&code("ContextSave")), "{codes:?}");
        let creation = relay.exchanges().into_iter().find(|exchange| exchange.code == code("CreatePrimary")).unwrap();
        assert_eq!(wire::response_code(&creation.response.unwrap()), 0);
        assert!(relay.crossed(b"a-secret") && !relay.crossed(b"b-secret"));
        relay.rules(&[]);
        assert_eq!((relay.codes().len(), relay.applied()), (0, 0));
    }

    #[test]
    fn a_response_code_takes_the_place_of_a_response() {
        let setting = setting();
        for wrong in [rc::LOCKOUT, rc::OBJECT_MEMORY, rc::SESSION_MEMORY] {
            let said = with(&setting, When::Each(code("GetRandom")), Act::Answer(wrong), RANDOM).unwrap_err();
            assert!(said.contains(&format!("{wrong:#X}").replace("0X", "0x")), "{said}");
        }
        for again in [rc::RETRY, rc::YIELDED, rc::TESTING] {
            with(&setting, When::NumberOf(code("GetRandom"), 1), Act::Answer(again), RANDOM).unwrap();
            let asked = setting.1.codes().into_iter().filter(|&asked| asked == code("GetRandom")).count();
            assert_eq!((asked, setting.1.applied()), (2, 1), "libtss2 asks again by itself");
        }
    }

    #[test]
    fn a_replay_is_the_last_response_to_the_same_command() {
        let setting = setting();
        let random = When::Each(code("GetRandom"));
        let first = with(&setting, random, Act::Delay(Duration::ZERO), RANDOM).unwrap();
        assert_eq!(with(&setting, random, Act::Replay, RANDOM).unwrap(), first);
        assert_eq!(setting.1.applied(), 1);
        assert_ne!(with(&setting, When::Number(99), Act::Replay, RANDOM).unwrap(), first);
        assert_eq!(setting.1.applied(), 0);
    }

    #[test]
    fn one_bit_changes_in_a_command_or_in_a_response() {
        let setting = setting();
        let random = When::Each(code("GetRandom"));
        let first = with(&setting, random, Act::FlipResponse(Bit(999, 0)), RANDOM).unwrap();
        assert_eq!(setting.1.applied(), 0, "there is no such place");
        setting.1.rules(&[(random, Act::Replay), (random, Act::FlipResponse(Bit(-1, 0)))]);
        assert_eq!(setting.0.tool_over(&setting.1.tcti(), RANDOM).success(), first, "the TPM was not asked");
        with(&setting, random, Act::FlipResponse(Bit(-1, 3)), RANDOM).unwrap();
        let last = |exchange: &Exchange| exchange.response.as_ref().unwrap().last().copied().unwrap();
        let given = setting.1.exchanges().iter().find(|exchange| exchange.code == code("GetRandom")).map(last).unwrap();
        let replayed = with(&setting, random, Act::Replay, RANDOM).unwrap();
        assert_eq!(u8::from_str_radix(&replayed[14..], 16).unwrap(), given ^ 8, "what the TPM said differs in that bit");
        // 0x17B becomes 0x1FB, and that is no command.
        let said = with(&setting, random, Act::FlipCommand(Bit(9, 7)), RANDOM).unwrap_err();
        assert!(said.contains("0x143"), "{said}");
        assert_eq!(setting.1.applied(), 1);
    }

    #[test]
    fn a_lost_command_is_not_done_and_a_lost_response_is() {
        let setting = setting();
        let tpm = &setting.0;
        tpm.tool("tpm2_createprimary -Q -C o -G ecc -c key.ctx").success();
        let evict = When::Each(code("EvictControl"));
        let persist = "tpm2_evictcontrol -Q -C o -c key.ctx 0x81000001";
        with(&setting, evict, Act::LoseCommand, persist).unwrap_err();
        tpm.tool("tpm2_flushcontext -t").success();
        assert_eq!(tpm.tool("tpm2_getcap handles-persistent").success(), "");
        with(&setting, evict, Act::LoseResponse, persist).unwrap_err();
        assert_eq!(tpm.tool("tpm2_getcap handles-persistent").success(), "- 0x81000001\n");
    }

    #[test]
    fn a_client_is_killed_right_before_or_right_after_a_command() {
        let tpm = Swtpm::start();
        let cutter = Cutter::default();
        let relay = TpmRelay::start(&tpm, &cutter);
        tpm.tool("tpm2_createprimary -Q -C o -G ecc -c key.ctx").success();
        let mut persist = Command::new("tpm2_evictcontrol");
        persist.args(["-Q", "-C", "o", "-c", "key.ctx", "-T", &relay.tcti(), "0x81000001"]).current_dir(tpm.path(""));
        persist.stdin(Stdio::null()).stdout(Stdio::null());
        assert!(cutter.spawn(&mut persist, None).wait().unwrap().success());
        let events = cutter.events();
        let number = events.iter().position(|event| event == "TPM EvictControl").unwrap() + 1;
        tpm.tool("tpm2_evictcontrol -Q -C o -c 0x81000001").success();
        tpm.tool("tpm2_flushcontext -t").success();
        for (cut, left) in [(Cut::Before(number), ""), (Cut::After(number), "- 0x81000001\n")] {
            let ended = cutter.spawn(&mut persist, Some(cut)).wait().unwrap();
            assert_eq!((ended.code(), cutter.has_cut(), cutter.events().len()), (None, true, number));
            assert_eq!(tpm.tool("tpm2_getcap handles-persistent").success(), left, "{cut:?}");
            tpm.tool("tpm2_flushcontext -t").success();
        }
    }

    #[test]
    fn a_slow_tpm_takes_its_time() {
        let setting = setting();
        let began = began();
        with(&setting, When::Always, Act::Delay(Duration::from_millis(100)), RANDOM).unwrap();
        let commands = setting.1.applied();
        assert_eq!(commands, setting.1.codes().len());
        assert!(began.elapsed() >= Duration::from_millis(100) * u32::try_from(commands).unwrap());
    }

    #[expect(clippy::disallowed_methods, reason = "the test is about time that passes")]
    fn began() -> std::time::Instant {
        std::time::Instant::now()
    }
}
