//! Who waits for a place at a server, and whose turn it is.
//!
//! A request waits for any of several servers at once. When one of them has a free place,
//! `next` names who gets it: what goes on elsewhere, because its server failed, before anybody
//! else, interactive work before batch work, and who came first before who came later. Nobody
//! starves: whoever was passed over `OVERTAKEN` times by requests that came later is next. So
//! one that waits is called after those before it and that many more, at the latest.
//!
//! The queue has a size. Its last quarter is kept for interactive work, so that a flood of
//! batch work makes no person wait outside. What a place is and who has one is not known here;
//! how many there are is learned in `limit`, where a server does not say.

mod limit;

use std::{cmp::Reverse, collections::BTreeMap};

pub use self::limit::Learned;
use crate::server::ServerId;

/// How often one that waits may be passed over by others that came later.
const OVERTAKEN: u32 = 8;

/// How urgent a request is; most urgent first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A server had it and failed, or its answer has begun: somebody has waited already.
    Begun,
    /// Somebody waits for it.
    #[default]
    Interactive,
    /// Nobody minds when it is done.
    Batch,
}

/// One that waits; smaller came earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u64);

/// All who wait, each for any of its servers.
#[derive(Clone, Debug)]
pub struct Queue {
    size: usize,
    came: u64,
    waiting: BTreeMap<Number, Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    priority: Priority,
    servers: Vec<ServerId>,
    overtaken: u32,
}

impl Waiting {
    fn rank(&self) -> Priority {
        if self.overtaken >= OVERTAKEN { Priority::Begun } else { self.priority }
    }
}

impl Queue {
    /// An empty one, in which so many may wait.
    pub fn new(size: usize) -> Self {
        Self { size, came: 0, waiting: BTreeMap::new() }
    }

    /// So many may wait from now on. Who waits already goes on waiting.
    pub fn resize(&mut self, size: usize) {
        self.size = size;
    }

    /// One more waits. `None` if there is no room for it.
    pub fn join(&mut self, priority: Priority, servers: Vec<ServerId>) -> Option<Number> {
        let room = match priority {
            // There are never more of them than servers had at once.
            Priority::Begun => usize::MAX,
            Priority::Interactive => self.size,
            Priority::Batch => self.size - self.size / 4,
        };
        if self.waiting.len() >= room {
            return None;
        }
        self.came += 1;
        let number = Number(self.came);
        self.waiting.insert(number, Waiting { priority, servers, overtaken: 0 });
        Some(number)
    }

    /// One that waits keeps its place and waits for these servers from now on.
    pub fn aim(&mut self, number: Number, servers: Vec<ServerId>) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.servers = servers;
        }
    }

    /// One waits no longer.
    pub fn leave(&mut self, number: Number) {
        self.waiting.remove(&number);
    }

    /// Who gets the place that is free at this server. It waits no longer.
    pub fn next(&mut self, server: &ServerId) -> Option<Number> {
        let for_it = self.waiting.iter().filter(|(_, it)| it.servers.contains(server));
        let (_, Reverse(next)) = for_it.map(|(no, it)| (Reverse(it.rank()), Reverse(*no))).max()?;
        self.waiting.remove(&next);
        let passed = self.waiting.range_mut(..next).map(|(_, it)| it);
        for waiting in passed.filter(|it| it.servers.contains(server)) {
            waiting.overtaken += 1;
        }
        Some(next)
    }

    /// How many wait for this server, be it among others.
    pub fn waiting_for(&self, server: &ServerId) -> usize {
        self.waiting.values().filter(|it| it.servers.contains(server)).count()
    }

    /// The servers that somebody waits for.
    pub fn wanted(&self) -> impl Iterator<Item = &ServerId> {
        self.waiting.values().flat_map(|it| &it.servers)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets these come: `i`, `b` or `g` (begun), then digits for servers. Then places become
    /// free at the servers of `free`, and those who get them are told by when they came.
    #[track_caller]
    fn check(come: &str, free: &str, expected: &str) {
        let mut queue = Queue::new(100);
        for word in come.split_whitespace() {
            let priority = match &word[..1] {
                "g" => Priority::Begun,
                "i" => Priority::Interactive,
                _ => Priority::Batch,
            };
            let servers = word[1..].chars().map(|it| it.to_string().into()).collect();
            queue.join(priority, servers).unwrap();
        }
        let called = free.chars().map(|it| queue.next(&it.to_string().into()));
        let called: Vec<String> = called.map(|it| it.map_or("-".to_owned(), |it| it.0.to_string())).collect();
        assert_eq!(called.join(" "), expected);
    }

    #[test]
    fn who_came_first_is_called_first_for_what_it_waits_for() {
        check("i1 i1 i1", "1111", "1 2 3 -");
        check("i1 i2 i12", "221", "2 3 1");
        check("i1", "2", "-");
    }

    #[test]
    fn what_has_begun_goes_before_people_and_people_before_batch_work() {
        check("b1 i1 g1 i1", "1111", "3 2 4 1");
    }

    #[test]
    fn batch_work_is_passed_over_so_often_and_not_more() {
        check(&format!("b1 {}", "i1 ".repeat(10)), &"1".repeat(11), "2 3 4 5 6 7 8 9 1 10 11");
    }

    #[test]
    fn the_last_quarter_is_for_people() {
        let mut queue = Queue::new(4);
        let mut join = |priority| queue.join(priority, vec!["a".into()]).is_some();
        assert!((0..3).all(|_| join(Priority::Batch)));
        assert!(!join(Priority::Batch) && join(Priority::Interactive) && !join(Priority::Interactive));
        assert!(join(Priority::Begun), "an answer that has begun is not turned away");
        let mut none = Queue::new(0);
        assert_eq!(none.join(Priority::Interactive, vec!["a".into()]), None);
    }

    #[test]
    fn who_leaves_is_not_called() {
        let mut queue = Queue::new(4);
        let first = queue.join(Priority::Interactive, vec!["a".into()]).unwrap();
        let second = queue.join(Priority::Interactive, vec!["b".into()]).unwrap();
        queue.leave(first);
        assert_eq!((queue.len(), queue.waiting_for(&"a".into())), (1, 0));
        queue.aim(second, vec!["a".into()]);
        assert_eq!(queue.next(&"a".into()), Some(second));
        assert!(queue.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Happens {
        Comes(Priority, Vec<u8>),
        Frees(u8),
    }

    fn happens() -> impl Strategy<Value = Vec<Happens>> {
        let priority = prop::sample::select(vec![Priority::Begun, Priority::Interactive, Priority::Batch]);
        let servers = prop::collection::vec(0..3_u8, 1..3);
        let one = prop_oneof![
            (priority, servers).prop_map(|(priority, servers)| Happens::Comes(priority, servers)),
            (0..3_u8).prop_map(Happens::Frees),
        ];
        prop::collection::vec(one, 0..200)
    }

    fn id(server: u8) -> ServerId {
        server.to_string().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Nobody is passed over more often than by those before it and the few that may.
        #[test]
        fn nobody_starves(story in happens()) {
            let mut queue = Queue::new(1000);
            // Who waits, for what, and how many were called to one of its servers before it.
            let mut waiting: BTreeMap<Number, (Vec<u8>, usize, u32)> = BTreeMap::new();
            for event in story {
                match event {
                    Happens::Comes(priority, servers) => {
                        let before = waiting.len();
                        let ids = servers.iter().copied().map(id).collect();
                        waiting.insert(queue.join(priority, ids).unwrap(), (servers, before, 0));
                    }
                    Happens::Frees(server) => {
                        let called = queue.next(&id(server));
                        prop_assert_eq!(called.is_some(), waiting.values().any(|it| it.0.contains(&server)));
                        let Some(called) = called else { continue };
                        let (servers, ..) = waiting.remove(&called).unwrap();
                        prop_assert!(servers.contains(&server), "called to where it did not wait");
                        for (servers, before, passed) in waiting.values_mut() {
                            if servers.contains(&server) {
                                *passed += 1;
                                prop_assert!(*passed as usize <= *before + OVERTAKEN as usize);
                            }
                        }
                    }
                }
            }
        }

        /// Of two that wait for the same, of the same urgency, the earlier is called first.
        #[test]
        fn equals_keep_their_order(story in happens()) {
            let mut queue = Queue::new(1000);
            let mut waiting: BTreeMap<Number, (Priority, Vec<u8>)> = BTreeMap::new();
            for event in story {
                match event {
                    Happens::Comes(priority, mut servers) => {
                        servers.sort_unstable();
                        let ids = servers.iter().copied().map(id).collect();
                        waiting.insert(queue.join(priority, ids).unwrap(), (priority, servers));
                    }
                    Happens::Frees(server) => {
                        let Some(called) = queue.next(&id(server)) else { continue };
                        let it = waiting.remove(&called).unwrap();
                        prop_assert!(!waiting.range(..called).any(|(_, other)| *other == it));
                    }
                }
            }
        }
    }
}
