//! A place at a server, and a turn in the queue: both are given back by being dropped.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Calls, Desk, Limited, call};
use crate::{
    queue::{Learned, Number},
    server::{ModelName, ServerId},
};

/// One request at one server; dropping it gives its place to the next.
#[must_use = "the request counts for as long as this lives"]
pub struct InFlight {
    pub(super) server: ServerId,
    pub(super) desk: Arc<Desk>,
    pub(super) model: Option<ModelName>,
    pub(super) number: u64,
    pub(super) speaks: bool,
}

impl InFlight {
    /// Where the place is.
    pub fn server(&self) -> &ServerId {
        &self.server
    }

    /// The server is asked for this model.
    pub fn uses(&mut self, model: &ModelName) {
        if self.model.as_ref() != Some(model) {
            let mut books = self.desk.books();
            books.put_down(&self.server, self.model.take());
            *books.uses.entry((self.server.clone(), model.clone())).or_default() += 1;
            books.sent += 1;
            self.number = books.sent;
            drop(books);
            self.model = Some(model.clone());
        }
    }

    /// Whether the server has begun to answer one that was sent later, so that those before
    /// this one do not explain its silence.
    pub fn is_overtaken(&self) -> bool {
        let Some(model) = &self.model else { return false };
        let key = (self.server.clone(), model.clone());
        self.desk.books().spoken.get(&key).is_some_and(|it| *it > self.number)
    }

    /// The server has begun to answer.
    pub fn speaks(&mut self) {
        if !std::mem::replace(&mut self.speaks, true) {
            let mut books = self.desk.books();
            if let Some(count) = books.counts.get_mut(&self.server) {
                count.speaking += 1;
            }
            if let Some(model) = &self.model {
                let latest = books.spoken.entry((self.server.clone(), model.clone())).or_default();
                *latest = self.number.max(*latest);
            }
        }
    }

    /// The server has answered it.
    pub fn answered(&self) {
        let mut books = self.desk.books();
        let (held, now) = (books.held(&self.server), Instant::now().into_std());
        if let Some(learned) = books.learned.get_mut(&self.server) {
            learned.on_answered(held, now);
        }
    }

    /// The server turned it away because it has too many.
    pub fn turned_away(&self) {
        let mut books = self.desk.books();
        let (held, now) = (books.held(&self.server), Instant::now().into_std());
        match books.learned.get_mut(&self.server) {
            Some(learned) => learned.on_busy(held, now),
            None => drop(books.learned.insert(self.server.clone(), Learned::from_busy(held, now))),
        }
    }

    /// The server goes on with it for so long although nobody waits for it any more.
    pub fn leaves_a_ghost(self, time: Duration) {
        let mut books = self.desk.books();
        let until = Instant::now() + time;
        books.ghosts.entry(self.server.clone()).or_default().push(until);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut books = self.desk.books();
        if let Some(count) = books.counts.get_mut(&self.server) {
            count.held = count.held.saturating_sub(1);
            count.speaking = count.speaking.saturating_sub(u32::from(self.speaks));
        }
        books.put_down(&self.server, self.model.take());
        let mut calls = Calls::new();
        books.serve(&self.server, &self.desk, &mut calls);
        drop(books);
        call(calls);
    }
}

/// One that waits; dropping it leaves the queue.
#[must_use = "who drops it waits no longer"]
pub struct Ticket {
    pub(super) number: Number,
    pub(super) desk: Arc<Desk>,
    pub(super) calling: oneshot::Receiver<InFlight>,
}

impl Ticket {
    /// Waits for a place. Safe to drop while waiting; to be called until it gives one.
    pub async fn called(&mut self) -> InFlight {
        match (&mut self.calling).await {
            Ok(place) => place,
            // It was given already.
            Err(_) => std::future::pending().await,
        }
    }

    /// Keeps the place in the queue and waits for these servers from now on.
    pub fn aim(&self, servers: Vec<Limited>) {
        let mut books = self.desk.books();
        books.queue.aim(self.number, servers.iter().map(|(id, _)| id.clone()).collect());
        let calls = books.serve_all(servers, &self.desk);
        drop(books);
        call(calls);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut books = self.desk.books();
        books.queue.leave(self.number);
        books.callers.remove(&self.number);
    }
}
