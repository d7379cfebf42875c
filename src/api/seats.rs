//! Who is connected, and who has to go: a client that asks nothing does not keep another one out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// On one socket.
    pub connections: usize,
    /// Of one user on one socket.
    pub per_user: usize,
}

/// The connections of one socket.
#[derive(Debug)]
pub(super) struct Seats {
    room: Room,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    is_closed: bool,
    next: u64,
    taken: HashMap<u64, Sitter>,
    evicted: u64,
}

#[derive(Debug)]
struct Sitter {
    user: u32,
    /// Since when it has no request that is being answered; `None` while it has one.
    idle: Option<Instant>,
    leave: Arc<Notify>,
}

/// A connection's right to be there. It ends with it.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    leave: Arc<Notify>,
    table: Arc<Mutex<Table>>,
}

impl Seats {
    pub(super) fn new(room: Room) -> Self {
        Self { room, table: Arc::default() }
    }

    /// A seat for this user. Where there is none left, who has asked nothing for the longest time gives up his: of the same user, if
    /// that one has too many, or else of anybody. `None` if each of them is waiting for an answer.
    pub(super) fn take(&self, user: u32, now: Instant) -> Option<Seat> {
        let mut table = lock(&self.table);
        if table.is_closed {
            return None;
        }
        let own = table.taken.values().filter(|sitter| sitter.user == user).count();
        if own >= self.room.per_user {
            table.evict(Some(user))?;
        } else if table.taken.len() >= self.room.connections {
            table.evict(None)?;
        }
        let (number, leave) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.taken.insert(number, Sitter { user, idle: Some(now), leave: Arc::clone(&leave) });
        Some(Seat { number, leave, table: Arc::clone(&self.table) })
    }

    /// Nobody comes in any more, and everybody has to go: at once who is idle, the others when they are answered.
    pub(super) fn close(&self) {
        let mut table = lock(&self.table);
        table.is_closed = true;
        while table.evict(None).is_some() {}
    }

    /// How many are there now, and how many have had to go so far.
    pub(super) fn counts(&self) -> (usize, u64) {
        let table = lock(&self.table);
        (table.taken.len(), table.evicted)
    }
}

impl Table {
    fn evict(&mut self, user: Option<u32>) -> Option<()> {
        let may_go = self.taken.iter().filter(|(_, sitter)| user.is_none_or(|user| sitter.user == user));
        let (_, number) = may_go.filter_map(|(number, sitter)| Some((sitter.idle?, *number))).min()?;
        let sitter = self.taken.remove(&number)?;
        // Kept for who does not listen yet.
        sitter.leave.notify_one();
        self.evicted += u64::from(!self.is_closed);
        Some(())
    }
}

impl Seat {
    /// A request is being answered from now on. `false` if the seat is lost already.
    pub(super) fn is_busy(&self) -> bool {
        self.set(None)
    }

    /// The answer has been given. `false` if no other one will be.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.set(Some(now)) && !lock(&self.table).is_closed
    }

    /// Ends when another one needs the seat.
    pub(super) async fn lost(&self) {
        self.leave.notified().await;
    }

    fn set(&self, idle: Option<Instant>) -> bool {
        lock(&self.table).taken.get_mut(&self.number).map(|sitter| sitter.idle = idle).is_some()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.table).taken.remove(&self.number);
    }
}

/// The table is whole whenever it can be locked: nobody panics in between.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
