//! How many requests each server works on for us, and who waits for a place.
//!
//! A server with a limit never gets more than that. Its places are guards: the one that is
//! dropped goes to whoever is next in the queue, before anybody who comes later can take it,
//! and a caller that leaves is out of the queue at once.
//!
//! Where a server goes on with what nobody waits for any more, a ghost keeps the place for as
//! long: what is sent there would only wait behind it. And a server that turns requests away
//! has told how many it takes, whatever else is known.

mod guard;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};

pub use self::guard::{InFlight, Ticket};
use crate::{
    queue::{Learned, Number, Priority, Queue},
    server::{ModelName, ServerId},
};

/// Requests at servers, and those that wait.
pub struct Traffic(Arc<Desk>);

/// A server, and how many requests it may have at once.
pub type Limited = (ServerId, u32);

struct Desk(Mutex<Books>);

struct Books {
    counts: BTreeMap<ServerId, Count>,
    /// How many requests each server has for each of its models.
    uses: BTreeMap<(ServerId, ModelName), u32>,
    /// How many requests were sent in all, and which of them was begun to be answered that
    /// was sent last.
    sent: u64,
    spoken: BTreeMap<(ServerId, ModelName), u64>,
    /// When the ghosts at servers are gone.
    ghosts: BTreeMap<ServerId, Vec<Instant>>,
    /// What servers took that turned requests away.
    learned: BTreeMap<ServerId, Learned>,
    /// The limits of servers that somebody waits for, as they were told last.
    limits: BTreeMap<ServerId, u32>,
    queue: Queue,
    callers: BTreeMap<Number, oneshot::Sender<InFlight>>,
}

/// The requests at one server.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    held: u32,
    /// Those that are being answered.
    speaking: u32,
}

/// Places that are to be given to who waits for them, once the books are closed.
type Calls = Vec<(oneshot::Sender<InFlight>, InFlight)>;

impl Traffic {
    /// Nobody is on the way, and so many may wait.
    pub fn new(queue: usize) -> Self {
        Self(Arc::new(Desk(Mutex::new(Books {
            counts: BTreeMap::new(),
            uses: BTreeMap::new(),
            sent: 0,
            spoken: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            learned: BTreeMap::new(),
            limits: BTreeMap::new(),
            queue: Queue::new(queue),
            callers: BTreeMap::new(),
        }))))
    }

    /// So many may wait from now on.
    pub fn resize(&self, queue: usize) {
        self.0.books().queue.resize(queue);
    }

    /// Takes a place at a server until the guard is dropped, if there is one and nobody
    /// waits for it.
    pub fn enter(&self, server: &ServerId, limit: Option<u32>) -> Option<InFlight> {
        let mut books = self.0.books();
        let has_place = books
            .limit(server, limit)
            .is_none_or(|it| books.count(server) < it && books.queue.waiting_for(server) == 0);
        has_place.then(|| books.enter(server, &self.0))
    }

    /// Waits for a place at one of these servers.
    pub fn wait(&self, priority: Priority, servers: Vec<Limited>) -> Result<Ticket, QueueFull> {
        let mut books = self.0.books();
        let ids = servers.iter().map(|(id, _)| id.clone()).collect();
        let number = books.queue.join(priority, ids).ok_or(QueueFull)?;
        let (caller, calling) = oneshot::channel();
        books.callers.insert(number, caller);
        let ticket = Ticket { number, desk: self.0.clone(), calling };
        // A place may have become free since it was looked for.
        let calls = books.serve_all(servers, &self.0);
        drop(books);
        call(calls);
        Ok(ticket)
    }

    /// Looks at everything at once.
    pub fn look(&self) -> Look {
        let mut books = self.0.books();
        let now = Instant::now();
        books.ghosts.retain(|_, all| {
            all.retain(|it| *it > now);
            !all.is_empty()
        });
        Look {
            counts: books.counts.iter().map(|(id, it)| (id.clone(), it.held)).collect(),
            ghosts: books.ghosts.iter().map(|(id, all)| (id.clone(), all.len() as u32)).collect(),
            uses: books.uses.clone(),
            limits: books.learned.iter().map(|(id, it)| (id.clone(), it.limit())).collect(),
            wanted: books.queue.wanted().cloned().collect(),
        }
    }

    /// Whether a server has something before what it is silent to: others that it answers, or
    /// a prompt whose caller left.
    pub fn is_occupied(&self, server: &ServerId) -> bool {
        let books = self.0.books();
        books.counts.get(server).is_some_and(|it| it.speaking > 0) || books.ghosts(server) > 0
    }

    /// How many requests a server may have at once, given what it says and what the person
    /// says.
    pub fn limit(&self, server: &ServerId, told: Option<u32>) -> Option<u32> {
        self.0.books().limit(server, told)
    }

    /// How many wait for a server.
    pub fn queued(&self) -> usize {
        self.0.books().queue.len()
    }

    /// How many wait for this server, be it among others.
    pub fn queued_for(&self, server: &ServerId) -> usize {
        self.0.books().queue.waiting_for(server)
    }
}

/// Nobody else may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn held(&self, server: &ServerId) -> u32 {
        self.counts.get(server).map_or(0, |it| it.held)
    }

    fn ghosts(&self, server: &ServerId) -> u32 {
        let now = Instant::now();
        self.ghosts.get(server).map_or(0, |all| all.iter().filter(|it| **it > now).count() as u32)
    }

    /// A model is used by one fewer.
    fn put_down(&mut self, server: &ServerId, model: Option<ModelName>) {
        let Some(model) = model else { return };
        let key = (server.clone(), model);
        match self.uses.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.uses.remove(&key)),
        }
    }

    /// How many places are taken.
    fn count(&self, server: &ServerId) -> u32 {
        self.held(server) + self.ghosts(server)
    }

    fn limit(&self, server: &ServerId, told: Option<u32>) -> Option<u32> {
        let learned = self.learned.get(server).map(Learned::limit);
        [told, learned].into_iter().flatten().min()
    }

    fn enter(&mut self, server: &ServerId, desk: &Arc<Desk>) -> InFlight {
        match self.counts.get_mut(server) {
            Some(count) => count.held += 1,
            None => drop(self.counts.insert(server.clone(), Count { held: 1, speaking: 0 })),
        }
        InFlight { server: server.clone(), desk: desk.clone(), model: None, number: 0, speaks: false }
    }

    /// Gives the free places of a server to who is next.
    fn serve(&mut self, server: &ServerId, desk: &Arc<Desk>, calls: &mut Calls) {
        let Some(limit) = self.limits.get(server).copied() else { return };
        let limit = self.limit(server, Some(limit)).unwrap_or(limit);
        while self.count(server) < limit
            && let Some(next) = self.queue.next(server)
        {
            let place = self.enter(server, desk);
            if let Some(caller) = self.callers.remove(&next) {
                calls.push((caller, place));
            }
        }
        if self.queue.waiting_for(server) == 0 {
            self.limits.remove(server);
        }
    }

    fn serve_all(&mut self, servers: Vec<Limited>, desk: &Arc<Desk>) -> Calls {
        let mut calls = Calls::new();
        self.limits.extend(servers.iter().cloned());
        for (server, _) in &servers {
            self.serve(server, desk, &mut calls);
        }
        calls
    }
}

/// Hands places over. Must not be done while the books are open: one that is not taken any
/// more is given back by being dropped.
fn call(calls: Calls) {
    for (caller, place) in calls {
        drop(caller.send(place));
    }
}

/// Requests at servers, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    counts: BTreeMap<ServerId, u32>,
    uses: BTreeMap<(ServerId, ModelName), u32>,
    ghosts: BTreeMap<ServerId, u32>,
    limits: BTreeMap<ServerId, u32>,
    wanted: BTreeSet<ServerId>,
}

impl Look {
    /// How many requests of ours a server has.
    pub fn of(&self, server: &ServerId) -> u32 {
        self.counts.get(server).copied().unwrap_or(0)
    }

    /// How many places are taken at it, by ghosts too.
    pub fn taken(&self, server: &ServerId) -> u32 {
        self.of(server) + self.ghosts.get(server).copied().unwrap_or(0)
    }

    /// Whether a server answers requests for other models than this one.
    pub fn uses_others(&self, server: &ServerId, model: &ModelName) -> bool {
        self.uses.keys().any(|(at, it)| at == server && it != model)
    }

    /// Whether one more has to wait for it.
    pub fn is_full(&self, server: &ServerId, limit: Option<u32>) -> bool {
        let limit = [limit, self.limits.get(server).copied()].into_iter().flatten().min();
        limit.is_some_and(|it| self.taken(server) >= it || self.wanted.contains(server))
    }
}
