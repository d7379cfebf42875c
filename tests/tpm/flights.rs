//! Counts what a client and a server on the network send to each other, without a look into it: connections and round trips.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Stands in front of a server until the test ends.
pub struct Flights {
    port: u16,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Default)]
struct Counts {
    connections: usize,
    round_trips: usize,
    client_speaks: bool,
}

impl Flights {
    /// In front of this port of localhost.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::<Mutex<Counts>>::default();
        let own = counts.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|client| carry(client, upstream, &own)));
        Self { port, counts }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// TCP connections, and how often the client had to wait for the server: TCP's own handshakes, and each time that the server
    /// has spoken after the client.
    pub fn counts(&self) -> (usize, usize) {
        let counts = self.counts.lock().unwrap();
        (counts.connections, counts.round_trips)
    }
}

fn carry(client: TcpStream, upstream: u16, counts: &Arc<Mutex<Counts>>) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)) else { return };
    {
        let mut counts = counts.lock().unwrap();
        counts.connections += 1;
        counts.round_trips += 1;
        counts.client_speaks = false;
    }
    let ways = [(true, client.try_clone(), server.try_clone()), (false, Ok(server), Ok(client))];
    for (is_client, from, to) in ways {
        let counts = counts.clone();
        let (Ok(from), Ok(to)) = (from, to) else { return };
        thread::spawn(move || one_way(is_client, from, to, &counts));
    }
}

fn one_way(is_client: bool, mut from: TcpStream, mut to: TcpStream, counts: &Mutex<Counts>) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let length = from.read(&mut bytes)?;
        if length == 0 {
            return to.shutdown(Shutdown::Write);
        }
        counts.lock().unwrap().heard(is_client);
        to.write_all(&bytes[..length])?;
    }
}

impl Counts {
    fn heard(&mut self, is_client: bool) {
        self.round_trips += usize::from(self.client_speaks && !is_client);
        self.client_speaks = is_client;
    }
}
