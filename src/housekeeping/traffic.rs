//! How many requests each server works on for us, and who waits for a place.
//!
//! A server with a limit never gets more than that. Its places are guards: the one that is
//! dropped goes to whoever is next in the queue, before anybody who comes later can take it,
//! and a caller that leaves is out of the queue at once.
//!
//! Where a server goes on with what nobody waits for any more, a ghost keeps the place for as
//! long: what is sent there would only wait behind it. And a server that turns requests away
//! has told how many it takes, whatever else is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

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

/// One request at one server; dropping it gives its place to the next.
#[must_use = "the request counts for as long as this lives"]
pub struct InFlight {
    server: ServerId,
    desk: Arc<Desk>,
    model: Option<ModelName>,
    number: u64,
    speaks: bool,
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
    number: Number,
    desk: Arc<Desk>,
    calling: oneshot::Receiver<InFlight>,
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    const A: &str = "a";

    fn wait(traffic: &Traffic, priority: Priority, limit: u32) -> Ticket {
        traffic.wait(priority, vec![(A.into(), limit)]).unwrap()
    }

    fn called(ticket: &mut Ticket) -> Option<InFlight> {
        ticket.called().now_or_never()
    }

    #[test]
    fn a_request_counts_until_its_guard_is_dropped() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let first = traffic.enter(&id, None).unwrap();
        let second = traffic.enter(&id, None).unwrap();
        assert_eq!(traffic.look().of(&id), 2);
        drop(first);
        assert_eq!(traffic.look().of(&id), 1);
        drop(second);
        assert_eq!(traffic.look().of(&id), 0);
    }

    #[test]
    fn a_place_goes_to_who_waits_and_not_to_who_comes() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let held = traffic.enter(&id, Some(1)).unwrap();
        assert!(traffic.enter(&id, Some(1)).is_none());
        let mut batch = wait(&traffic, Priority::Batch, 1);
        let mut person = wait(&traffic, Priority::Interactive, 1);
        assert_eq!((traffic.queued(), traffic.queued_for(&id)), (2, 2));
        drop(held);
        assert!(traffic.enter(&id, Some(1)).is_none(), "the place is given already");
        assert!(called(&mut batch).is_none());
        let place = called(&mut person).unwrap();
        assert_eq!(place.server(), A);
        assert_eq!(traffic.look().of(&id), 1);
        drop((person, place));
        assert!(called(&mut batch).is_some());
        assert_eq!(traffic.look().of(&id), 0, "dropped with what it was given to");
        assert!(!traffic.look().is_full(&id, Some(1)));
    }

    #[test]
    fn who_leaves_hands_on_what_it_was_given_and_did_not_take() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let held = traffic.enter(&id, Some(1)).unwrap();
        let first = wait(&traffic, Priority::Interactive, 1);
        let gone = wait(&traffic, Priority::Interactive, 1);
        let mut third = wait(&traffic, Priority::Interactive, 1);
        drop(gone);
        drop(held);
        assert!(called(&mut third).is_none());
        drop(first);
        assert!(called(&mut third).is_some());
        drop(third);
        assert_eq!((traffic.queued(), traffic.look().of(&id)), (0, 0));
    }

    #[test]
    fn a_place_that_became_free_before_it_was_waited_for_is_given_at_once() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let held = traffic.enter(&id, Some(1)).unwrap();
        drop(held);
        assert!(called(&mut wait(&traffic, Priority::Interactive, 1)).is_some());
        // Nor is one missed that comes with a higher limit.
        let held = traffic.enter(&id, Some(1)).unwrap();
        let mut ticket = wait(&traffic, Priority::Interactive, 1);
        ticket.aim(vec![(id, 2)]);
        assert!(called(&mut ticket).is_some());
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ghost_keeps_its_place_until_it_is_gone() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        traffic.enter(&id, Some(1)).unwrap().leaves_a_ghost(Duration::from_secs(3));
        let look = traffic.look();
        assert_eq!((look.of(&id), look.taken(&id), look.is_full(&id, Some(1))), (0, 1, true));
        assert!(traffic.enter(&id, Some(1)).is_none() && traffic.is_occupied(&id));
        assert!(traffic.enter(&id, Some(2)).is_some(), "another place is free");
        let mut waiting = wait(&traffic, Priority::Interactive, 1);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(called(&mut waiting).is_none());
        // Who waits looks around from time to time.
        waiting.aim(vec![(id.clone(), 1)]);
        assert!(called(&mut waiting).is_some());
        assert!(!traffic.is_occupied(&id) && traffic.look().taken(&id) == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_turned_one_away_gets_fewer_whatever_it_says() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let mut held: Vec<_> = (0..3).map(|_| traffic.enter(&id, None).unwrap()).collect();
        held.pop().unwrap().turned_away();
        assert!(traffic.enter(&id, None).is_none() && traffic.look().is_full(&id, None));
        assert_eq!((traffic.limit(&id, None), traffic.limit(&id, Some(1))), (Some(2), Some(1)));
        let mut waiting = wait(&traffic, Priority::Interactive, u32::MAX);
        assert!(called(&mut waiting).is_none());
        tokio::time::advance(Duration::from_secs(10)).await;
        held[0].answered();
        assert_eq!(traffic.limit(&id, None), Some(3));
        drop(held);
        assert!(called(&mut waiting).is_some());
    }

    #[test]
    fn one_that_was_sent_earlier_is_overtaken_by_one_that_is_answered() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let mut all = [(); 3].map(|()| traffic.enter(&id, None).unwrap());
        for (place, model) in all.iter_mut().zip(["m", "m", "n"]) {
            place.uses(&model.into());
        }
        assert!(traffic.look().uses_others(&id, &"m".into()));
        all[2].speaks();
        assert!(!all[0].is_overtaken(), "another model has slots of its own");
        all[0].speaks();
        assert!(!all[1].is_overtaken(), "its turn comes after");
        all[1].speaks();
        assert!(all[0].is_overtaken());
        drop(all);
        assert!(!traffic.look().uses_others(&id, &"m".into()));
    }

    #[test]
    fn a_server_is_occupied_while_it_answers_somebody() {
        let traffic = Traffic::new(4);
        let id = ServerId::from(A);
        let (mut one, _other) = (traffic.enter(&id, None).unwrap(), traffic.enter(&id, None).unwrap());
        assert!(!traffic.is_occupied(&id), "two that are silent do not explain each other");
        one.speaks();
        one.speaks();
        assert!(traffic.is_occupied(&id));
        drop(one);
        assert!(!traffic.is_occupied(&id));
    }

    #[test]
    fn a_full_queue_takes_nobody() {
        let traffic = Traffic::new(1);
        let _held = traffic.enter(&A.into(), Some(1)).unwrap();
        let first = wait(&traffic, Priority::Interactive, 1);
        let second = || traffic.wait(Priority::Interactive, vec![(A.into(), 1)]);
        assert!(second().is_err());
        drop(first);
        assert!(second().is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whoever comes, waits, is called and leaves: no server has more than its limit, no
        /// place stays free while somebody waits for it, and in the end all is given back.
        #[test]
        fn never_above_the_limit_and_nothing_is_lost(
            story in prop::collection::vec((0..4_u8, 0..2_usize, any::<prop::sample::Index>()), 0..200),
        ) {
            let traffic = Traffic::new(16);
            let servers: [Limited; 2] = [("a".into(), 1), ("b".into(), 3)];
            let (mut places, mut tickets) = (Vec::new(), Vec::new());
            for (what, at, which) in story {
                let (id, limit) = &servers[at];
                match what {
                    0 => places.extend(traffic.enter(id, Some(*limit))),
                    1 => {
                        let wanted = if at == 0 { servers.to_vec() } else { vec![servers[1].clone()] };
                        let priority = if limit % 2 == 0 { Priority::Batch } else { Priority::Interactive };
                        tickets.extend(traffic.wait(priority, wanted).ok());
                    }
                    2 if !places.is_empty() => drop(places.swap_remove(which.index(places.len()))),
                    3 if !tickets.is_empty() => drop(tickets.swap_remove(which.index(tickets.len()))),
                    _ => {}
                }
                let mut still = Vec::new();
                for mut ticket in tickets {
                    match called(&mut ticket) {
                        Some(place) => places.push(place),
                        None => still.push(ticket),
                    }
                }
                tickets = still;
                for (id, limit) in &servers {
                    let count = traffic.look().of(id);
                    prop_assert_eq!(count as usize, places.iter().filter(|it| it.server() == id).count());
                    prop_assert!(count <= *limit);
                    prop_assert!(count == *limit || traffic.queued_for(id) == 0, "a place stays free");
                }
            }
            drop((places, tickets));
            prop_assert_eq!((traffic.queued(), traffic.look().of(&"a".into()), traffic.look().of(&"b".into())), (0, 0, 0));
        }
    }
}
