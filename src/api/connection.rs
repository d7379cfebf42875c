//! One client's connection: request, answer, request, and an end that the client can understand.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::message::{Answer, LARGEST_HEAD, Parsed, Request, parse};
use super::seats::Seat;
use crate::clock::Clock;

/// A request that has begun must be all there after this time, and an answer be taken.
const SLOWEST: Duration = Duration::from_secs(10);
/// What a client still sends after its last answer is read and thrown away for so long: else it would lose the answer.
const GOODBYE: Duration = Duration::from_secs(2);
/// And no more of it than this, in bytes.
const LONGEST_GOODBYE: usize = 4 * 1024 * 1024;
/// How often a client that has said all is looked at while it waits.
const LOOK: Duration = Duration::from_secs(5);
/// What is read at once, in bytes.
const READ: usize = 2 * 1024;

/// Answers what the client asks, until one of both has had enough.
pub(super) async fn converse<A, F>(stream: UnixStream, seat: &Seat, clock: Clock, answer: A)
where
    A: Fn(Request) -> F,
    F: Future<Output = Answer>,
{
    let mut wire = Wire { stream, buffer: Vec::new() };
    loop {
        let asked = tokio::select! {
            biased;
            asked = wire.request() => asked,
            () = seat.lost() => wire.evicted(),
        };
        let request = match asked {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return wire.dismiss(&refusal).await,
        };
        let has_seat = seat.is_busy();
        let (head_only, is_last) = (request.method == "HEAD", request.is_last || !has_seat);
        let answered = tokio::select! {
            answered = answer(request) => answered,
            () = wire.hung_up() => return,
        };
        if wire.send(&answered, head_only, is_last).await.is_err() {
            return;
        }
        if !seat.is_idle(clock.instant()) || is_last {
            return wire.part().await;
        }
    }
}

/// Takes one request from somebody for whom there is no room, and says so.
pub(super) async fn turn_away(stream: UnixStream, refusal: &Answer) {
    let mut wire = Wire { stream, buffer: Vec::new() };
    // An answer is understood by who has asked.
    let _ = timeout(GOODBYE, wire.request()).await;
    wire.dismiss(refusal).await;
}

struct Wire {
    stream: UnixStream,
    /// What was read and is not answered yet.
    buffer: Vec<u8>,
}

impl Wire {
    /// The next request; `None` if the client has gone. It may be long in coming; once it has begun it must be quick.
    async fn request(&mut self) -> Result<Option<Request>, Answer> {
        if self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = Vec::new();
            if self.stream.readable().await.is_err() {
                return Ok(None);
            }
        }
        let late = |_| Answer::refused(408, format!("the request was not all there after {} s", SLOWEST.as_secs()));
        timeout(SLOWEST, self.rest()).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    async fn rest(&mut self) -> Result<Option<Request>, Answer> {
        let mut encouraged = false;
        loop {
            match parse(&self.buffer)? {
                Parsed::Whole(request, used) => {
                    self.buffer.drain(..used);
                    return Ok(Some(request));
                }
                Parsed::More { awaits_continue } if awaits_continue && !encouraged => {
                    encouraged = true;
                    let _ = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                }
                Parsed::More { .. } => {}
            }
            self.buffer.reserve(READ);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if !self.buffer.is_empty() => return Err(Answer::refused(400, "the request ends in the middle")),
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// The seat is another's now. Who has begun to ask is told.
    fn evicted(&mut self) -> Result<Option<Request>, Answer> {
        let _ = self.stream.try_read_buf(&mut self.buffer);
        let full = "there are too many clients, and this one had not finished asking";
        if self.buffer.is_empty() { Ok(None) } else { Err(Answer::refused(503, full).retry_after(1)) }
    }

    /// Ends when the client has gone, which is more than that it has nothing more to say.
    async fn hung_up(&mut self) {
        while self.stream.readable().await.is_ok() {
            if self.buffer.len() <= LARGEST_HEAD {
                self.buffer.reserve(READ);
                match self.stream.try_read_buf(&mut self.buffer) {
                    Ok(0) => {}
                    Ok(_) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => return,
                }
            }
            // It says nothing more, or more than we take now. That it goes away then, nobody tells us.
            if self.is_write_closed().await {
                return;
            }
            sleep(LOOK).await;
        }
    }

    async fn is_write_closed(&self) -> bool {
        self.stream.ready(Interest::WRITABLE).await.is_ok_and(|ready| ready.is_write_closed())
    }

    async fn send(&mut self, answer: &Answer, head_only: bool, is_last: bool) -> io::Result<()> {
        let bytes = answer.render(head_only, is_last);
        match timeout(SLOWEST, self.stream.write_all(bytes.expose())).await {
            Ok(sent) => sent,
            // Nothing more can be said to a client that does not listen.
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn dismiss(mut self, refusal: &Answer) {
        if self.send(refusal, false, true).await.is_ok() {
            self.part().await;
        }
    }

    /// Ends the connection so that the client gets to read the last answer.
    async fn part(mut self) {
        let drained = async {
            self.stream.shutdown().await?;
            let mut left = LONGEST_GOODBYE;
            while left > 0 {
                self.buffer.clear();
                self.buffer.reserve(READ);
                match self.stream.read_buf(&mut self.buffer).await? {
                    0 => break,
                    length => left = left.saturating_sub(length),
                }
            }
            io::Result::Ok(())
        };
        let _ = timeout(GOODBYE, drained).await;
    }
}
