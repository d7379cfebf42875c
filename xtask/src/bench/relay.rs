//! A relay that holds everything back for a while in both directions, and counts how often its client waits for the service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Done;

/// One way through the relay. Whoever sends twice without waiting for an answer is done with both long before an answer is let
/// through, so that what was sent together counts once, however it was cut into packets.
const DELAY: Duration = Duration::from_millis(50);

/// Tells whether the service has given its last answer.
pub type Finished = Arc<dyn Fn() -> bool + Send + Sync>;

/// Listens on one port and relays to another, until dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    stopped: Arc<AtomicBool>,
    trips: Arc<AtomicUsize>,
    listener: Option<JoinHandle<()>>,
}

/// What the four threads of one connection share.
#[derive(Clone)]
struct Count {
    trips: Arc<AtomicUsize>,
    /// Whether the client has sent something since it was last answered.
    waiting: Arc<AtomicBool>,
    finished: Finished,
    over: Arc<AtomicBool>,
}

impl Relay {
    /// Relays from `port` to `upstream`, both on localhost. Once `finished` says so, nothing counts any more: the end of a
    /// connection is not part of a registration.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn start(port: u16, upstream: u16, finished: Finished) -> Done<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let (stopped, trips, over) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (stop, counted) = (stopped.clone(), trips.clone());
        let accept = move || {
            for client in listener.incoming().take_while(|_| !stop.load(Ordering::SeqCst)).flatten() {
                let waiting = Arc::default();
                let count = Count { trips: counted.clone(), waiting, finished: finished.clone(), over: over.clone() };
                if !count.over.load(Ordering::SeqCst) {
                    // The client's SYN and our answer to it.
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                let _refused_upstream = connection(client, upstream, count);
            }
        };
        Ok(Self { port, stopped, trips, listener: Some(std::thread::spawn(accept)) })
    }

    /// How often the client has waited so far, the TCP handshakes included.
    pub fn trips(&self) -> usize {
        self.trips.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _wakes_it = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ended = self.listener.take().map(JoinHandle::join);
    }
}

fn connection(client: TcpStream, upstream: u16, count: Count) -> Done {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let answers = count.clone();
    one_way(client.try_clone()?, server.try_clone()?, move || count.waiting.store(true, Ordering::SeqCst), || {});
    one_way(server, client, || {}, move || answers.answered());
    Ok(())
}

/// Carries bytes from one stream to the other, `DELAY` later each; calls `arrived` before the wait and `released` after it.
fn one_way(from: TcpStream, to: TcpStream, arrived: impl Fn() + Send + 'static, released: impl Fn() + Send + 'static) {
    let (hold, held) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let (mut from, mut buffer) = (from, vec![0; 64 * 1024]);
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            arrived();
            let due = Instant::now() + DELAY;
            if hold.send((due, buffer.iter().take(length).copied().collect())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let mut to = to;
        for (due, bytes) in held {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            released();
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _already_gone = to.shutdown(Shutdown::Write);
    });
}

impl Count {
    fn answered(&self) {
        let over = self.over.load(Ordering::SeqCst);
        if !over && self.waiting.swap(false, Ordering::SeqCst) {
            self.trips.fetch_add(1, Ordering::SeqCst);
        }
        if !over && (self.finished)() {
            self.over.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that answers each byte with one byte.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
        });
        port
    }

    fn relay_to(upstream: u16, finished: Finished) -> (Relay, TcpStream) {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let relay = Relay::start(free, upstream, finished).unwrap();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, free)).unwrap();
        (relay, client)
    }

    fn ask(client: &mut TcpStream, questions: usize) {
        for _ in 0..questions {
            client.write_all(b"?").unwrap();
        }
        client.read_exact(&mut vec![0; questions]).unwrap();
    }

    #[test]
    fn what_is_sent_without_waiting_counts_once_and_the_handshake_counts() {
        let (relay, mut client) = relay_to(echo(), Arc::new(|| false));
        ask(&mut client, 3);
        assert_eq!(relay.trips(), 2);
        ask(&mut client, 1);
        assert_eq!(relay.trips(), 3);
    }

    #[test]
    fn nothing_counts_after_the_last_answer() {
        let (relay, mut client) = relay_to(echo(), Arc::new(|| true));
        ask(&mut client, 1);
        ask(&mut client, 1);
        assert_eq!(relay.trips(), 2);
    }
}
