//! Speaks the protocol of Microsoft's TPM simulator to clients and plain frames to a TPM behind it, and keeps the command codes.
//!
//! Numbers are 32 bits, big-endian. The port for commands takes: hello (15) and the client's version, answered by ours, by what
//! we are, and 0; a command (8), a byte of locality and the frame behind its length, answered by the frame behind its length and 0;
//! goodbye (20). The port for the platform, the next one, takes signals (power on, NV on), each answered by 0.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::wire::{self, Code};
use crate::Done;

const SEND_COMMAND: u32 = 8;
const HELLO: u32 = 15;
const GOODBYE: u32 = 20;
const VERSION: u32 = 1;
/// A TPM with a platform, which takes the signals.
const PLATFORM_AVAILABLE: u32 = 1;
/// The largest frame, in bytes.
const LARGEST: u32 = 16 * 1024;

/// Listens until the program ends.
#[derive(Debug)]
pub struct Simulator {
    port: u16,
    codes: Arc<Mutex<Vec<Code>>>,
}

impl Simulator {
    /// In front of a TPM that listens, or will, on this Unix socket.
    ///
    /// # Errors
    /// If the system has no two ports in a row left.
    pub fn start(tpm: PathBuf) -> Done<Self> {
        let (commands, platform, port) = listeners()?;
        let codes = Arc::<Mutex<Vec<Code>>>::default();
        let kept = codes.clone();
        std::thread::spawn(move || {
            for client in commands.incoming().flatten() {
                // Who hangs up is done; the next is served.
                let _hung_up = serve(client, &tpm, &kept);
            }
        });
        std::thread::spawn(move || {
            for client in platform.incoming().flatten() {
                std::thread::spawn(move || signals(client));
            }
        });
        Ok(Self { port, codes })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The commands since the last time.
    pub fn take(&self) -> Vec<Code> {
        self.codes.lock().map(|mut codes| std::mem::take(&mut *codes)).unwrap_or_default()
    }
}

fn listeners() -> io::Result<(TcpListener, TcpListener, u16)> {
    for _ in 0..99 {
        let commands = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = commands.local_addr()?.port();
        if let Some(Ok(platform)) = port.checked_add(1).map(|next| TcpListener::bind((Ipv4Addr::LOCALHOST, next))) {
            return Ok((commands, platform, port));
        }
    }
    Err(io::Error::other("no two free ports in a row"))
}

fn serve(mut client: TcpStream, tpm: &PathBuf, codes: &Mutex<Vec<Code>>) -> io::Result<()> {
    let mut tpm = UnixStream::connect(tpm)?;
    client.set_nodelay(true)?;
    loop {
        match number(&mut client)? {
            HELLO => {
                let _version = number(&mut client)?;
                client.write_all(&[VERSION, PLATFORM_AVAILABLE, 0].map(u32::to_be_bytes).concat())?;
            }
            SEND_COMMAND => {
                let command = command(&mut client)?;
                if let Ok(mut codes) = codes.lock() {
                    codes.push(Code::of(&command));
                }
                tpm.write_all(&command)?;
                let response = wire::read(&mut tpm)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let length = u32::try_from(response.len()).unwrap_or_default();
                client.write_all(&[&length.to_be_bytes()[..], &response, &[0; 4]].concat())?;
            }
            GOODBYE => return Ok(()),
            other => return Err(io::Error::other(format!("the simulator knows no {other}"))),
        }
    }
}

fn command(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut locality = [0];
    client.read_exact(&mut locality)?;
    let length = number(client)?;
    if length > LARGEST {
        return Err(io::Error::other(format!("a command of {length} bytes")));
    }
    let mut command = vec![0; length as usize];
    client.read_exact(&mut command)?;
    Ok(command)
}

fn signals(mut client: TcpStream) -> io::Result<()> {
    while number(&mut client)? != GOODBYE {
        client.write_all(&[0; 4])?;
    }
    Ok(())
}

fn number(stream: &mut TcpStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}
