//! What was heard of whom, and which addresses the registry is told of for it.
//!
//! Pure. A service has one address at a time that is asked: its first, or the one that was
//! asked so far while that is still among them. Everything is bounded, for names cost nothing
//! to whoever invents them: when there are too many, the oldest goes whose address is no
//! server's. What is new is told at a bounded rate, since it has somebody asked each time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use crate::server::Endpoint;

/// Services that are kept. A large office has dozens.
const MOST_SERVICES: usize = 256;

/// Of these at one machine: a server may be announced under each of the types.
const MOST_PER_MACHINE: usize = 24;

/// New addresses that are told of at once, and how soon there is room for one more. A network
/// that is joined has all of its servers announced within a second.
const AT_ONCE: u32 = 32;
const ONE_MORE: Duration = Duration::from_millis(100);

/// The network is asked at most so often whether a service is still there.
const DOUBT_EVERY: Duration = Duration::from_secs(10);

/// All services that were heard of.
#[derive(Debug)]
pub(super) struct Heard {
    services: BTreeMap<String, Service>,
    /// Services that are new, or have something new, and of which that was not told yet.
    news: VecDeque<String>,
    room: u32,
    room_since: Instant,
    count: u64,
}

#[derive(Debug)]
struct Service {
    endpoints: Vec<Endpoint>,
    /// Which of them is asked.
    at: usize,
    /// The registry has been told.
    told: bool,
    order: u64,
    /// Heard of since listening began anew.
    fresh: bool,
    /// When the network was asked whether it is still there.
    doubted_at: Option<Instant>,
}

impl Service {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoints[self.at]
    }
}

impl Heard {
    pub(super) fn new(now: Instant) -> Self {
        Self { services: BTreeMap::new(), news: VecDeque::new(), room: AT_ONCE, room_since: now, count: 0 }
    }

    /// A service was heard of, at these addresses. Returns the addresses that nobody tells of
    /// any more. `is_server` says whether a server was recognised somewhere.
    pub(super) fn on_service(
        &mut self,
        name: &str,
        endpoints: Vec<Endpoint>,
        is_server: &dyn Fn(&Endpoint) -> bool,
    ) -> Vec<Endpoint> {
        let Some(first) = endpoints.first() else { return self.on_gone(name) };
        let mut gone = Vec::new();
        if let Some(service) = self.services.get_mut(name) {
            let before = service.endpoint().clone();
            service.at = endpoints.iter().position(|it| *it == before).unwrap_or(0);
            service.endpoints = endpoints;
            service.fresh = true;
            if *service.endpoint() != before {
                service.told = false;
                gone.extend(self.untold(before));
            }
        } else {
            let Some(forgotten) = self.make_room(first, is_server) else { return Vec::new() };
            gone.extend(forgotten);
            self.count += 1;
            let order = self.count;
            let service = Service { endpoints, at: 0, told: false, order, fresh: true, doubted_at: None };
            self.services.insert(name.to_owned(), service);
        }
        // Said again it may be a server that is back, which is worth a look.
        if !self.news.iter().any(|it| it == name) {
            self.news.push_back(name.to_owned());
        }
        gone
    }

    /// A service is gone. Returns the address that nobody tells of any more.
    pub(super) fn on_gone(&mut self, name: &str) -> Vec<Endpoint> {
        self.news.retain(|it| it != name);
        let gone = self.services.remove(name);
        gone.filter(|it| it.told).and_then(|it| self.untold(it.endpoint().clone())).into_iter().collect()
    }

    /// What answered there does so no more. Services that have another address are looked for
    /// there. Returns the addresses that nobody tells of any more, and the names of services
    /// there that the network is to be asked about.
    pub(super) fn on_missed(&mut self, endpoint: &Endpoint, now: Instant) -> (Vec<Endpoint>, Vec<String>) {
        let (mut names, mut left) = (Vec::new(), false);
        for (name, service) in self.services.iter_mut().filter(|(_, it)| it.endpoint() == endpoint) {
            if service.doubted_at.is_none_or(|at| at + DOUBT_EVERY <= now) {
                service.doubted_at = Some(now);
                names.push(name.clone());
            }
            if service.endpoints.len() > 1 {
                service.at = (service.at + 1) % service.endpoints.len();
                service.told = false;
                left = true;
                if !self.news.contains(name) {
                    self.news.push_back(name.clone());
                }
            }
        }
        let gone = if left { self.untold(endpoint.clone()) } else { None };
        (gone.into_iter().collect(), names)
    }

    /// Listening begins anew, with nothing remembered.
    pub(super) fn begin_anew(&mut self) {
        self.services.values_mut().for_each(|it| it.fresh = false);
    }

    /// Forgets what was not heard of since then. Returns the addresses that nobody tells of any
    /// more.
    pub(super) fn forget_stale(&mut self) -> Vec<Endpoint> {
        let stale = self.services.iter().filter(|(_, it)| !it.fresh);
        let stale: Vec<String> = stale.map(|(name, _)| name.clone()).collect();
        stale.iter().flat_map(|name| self.on_gone(name)).collect()
    }

    /// The next address to tell of, and the name of the service there.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Endpoint, String)> {
        let gained = now.saturating_duration_since(self.room_since).as_millis() / ONE_MORE.as_millis();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.room_since += ONE_MORE * gained.min(AT_ONCE);
        if gained >= AT_ONCE {
            self.room_since = now;
        }
        self.room = self.room.saturating_add(gained).min(AT_ONCE);
        if self.room == 0 {
            return None;
        }
        let name = self.news.pop_front()?;
        let service = self.services.get_mut(&name)?;
        self.room -= 1;
        service.told = true;
        Some((service.endpoint().clone(), name))
    }

    /// When `next` is to be asked again, if there is anything left to tell.
    pub(super) fn next_at(&self) -> Option<Instant> {
        (!self.news.is_empty()).then(|| self.room_since + ONE_MORE)
    }

    /// All addresses that the registry was told of.
    pub(super) fn told(&self) -> BTreeSet<Endpoint> {
        self.services.values().filter(|it| it.told).map(|it| it.endpoint().clone()).collect()
    }

    /// Names of all services.
    #[cfg(test)]
    fn names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// This address, unless some service still tells of it.
    fn untold(&self, endpoint: Endpoint) -> Option<Endpoint> {
        let still = self.services.values().any(|it| it.told && *it.endpoint() == endpoint);
        (!still).then_some(endpoint)
    }

    /// Makes room for a service at this address; `None` where there is none to be had.
    fn make_room(
        &mut self,
        endpoint: &Endpoint,
        is_server: &dyn Fn(&Endpoint) -> bool,
    ) -> Option<Option<Endpoint>> {
        let machine = endpoint.ip();
        let oldest = |of: &mut dyn Iterator<Item = (&String, &Service)>| {
            let strangers = of.filter(|(_, it)| !is_server(it.endpoint()));
            strangers.min_by_key(|(_, it)| it.order).map(|(name, _)| name.clone())
        };
        let there = |it: &Service| it.endpoint().ip() == machine;
        let name = if self.services.values().filter(|it| there(it)).count() >= MOST_PER_MACHINE {
            oldest(&mut self.services.iter().filter(|(_, it)| there(it)))?
        } else if self.services.len() >= MOST_SERVICES {
            oldest(&mut self.services.iter())?
        } else {
            return Some(None);
        };
        Some(self.on_gone(&name).pop())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Vec<Endpoint> {
        text.split(' ').filter(|it| !it.is_empty()).map(|it| Endpoint::parse(it).unwrap()).collect()
    }

    fn drain(heard: &mut Heard, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| heard.next(now)).map(|(it, name)| format!("{name} {it}")).collect()
    }

    #[test]
    fn a_service_is_told_of_and_withdrawn() {
        let now = Instant::now();
        let mut heard = Heard::new(now);
        assert_eq!(heard.on_service("a", at("10.0.0.7:1"), &|_| false), []);
        assert_eq!(heard.on_service("b", at("10.0.0.7:1"), &|_| false), []);
        assert_eq!(drain(&mut heard, now), ["a http://10.0.0.7:1", "b http://10.0.0.7:1"]);
        // The same server under two types is gone with the second.
        assert_eq!(heard.on_gone("a"), []);
        assert_eq!(heard.on_gone("b"), at("10.0.0.7:1"));
        assert_eq!(heard.on_gone("b"), []);
    }

    #[test]
    fn a_service_that_moves_leaves_its_old_address() {
        let now = Instant::now();
        let mut heard = Heard::new(now);
        heard.on_service("a", at("10.0.0.7:1 10.0.0.8:1"), &|_| false);
        drain(&mut heard, now);
        // While its address is still there it stays.
        assert_eq!(heard.on_service("a", at("10.0.0.6:1 10.0.0.7:1"), &|_| false), []);
        assert_eq!(drain(&mut heard, now), ["a http://10.0.0.7:1"]);
        assert_eq!(heard.on_service("a", at("10.0.0.9:1"), &|_| false), at("10.0.0.7:1"));
        assert_eq!(drain(&mut heard, now), ["a http://10.0.0.9:1"]);
        assert_eq!(heard.on_service("a", at(""), &|_| false), at("10.0.0.9:1"));
    }

    #[test]
    fn a_service_that_does_not_answer_is_looked_for_at_its_other_address() {
        let now = Instant::now();
        let mut heard = Heard::new(now);
        heard.on_service("a", at("10.0.0.7:1 10.1.0.7:1"), &|_| false);
        heard.on_service("b", at("10.0.0.9:1"), &|_| false);
        drain(&mut heard, now);
        assert_eq!(heard.on_missed(&at("10.0.0.7:1")[0], now), (at("10.0.0.7:1"), vec!["a".to_owned()]));
        assert_eq!(drain(&mut heard, now), ["a http://10.1.0.7:1"]);
        // Where there is no other it stays, and only its name is asked about.
        let missed = &at("10.0.0.9:1")[0];
        assert_eq!(heard.on_missed(missed, now), (Vec::new(), vec!["b".to_owned()]));
        assert_eq!(heard.on_missed(missed, now + Duration::from_secs(9)), (Vec::new(), Vec::new()));
        assert_eq!(heard.on_missed(missed, now + DOUBT_EVERY), (Vec::new(), vec!["b".to_owned()]));
    }

    #[test]
    fn what_is_not_heard_again_is_forgotten() {
        let now = Instant::now();
        let mut heard = Heard::new(now);
        heard.on_service("a", at("10.0.0.7:1"), &|_| false);
        heard.on_service("b", at("10.0.0.8:1"), &|_| false);
        drain(&mut heard, now);
        heard.begin_anew();
        heard.on_service("b", at("10.0.0.8:1"), &|_| false);
        assert_eq!(heard.forget_stale(), at("10.0.0.7:1"));
        assert_eq!(heard.forget_stale(), []);
    }

    #[test]
    fn many_names_are_told_of_slowly_and_a_server_is_not_pushed_out() {
        let mut now = Instant::now();
        let mut heard = Heard::new(now);
        let server = at("10.0.0.7:1");
        heard.on_service("server", server.clone(), &|_| false);
        for number in 0..5000u32 {
            let endpoint = at(&format!("10.1.{}.{}:1", number / 250, number % 250 + 1));
            heard.on_service(&format!("forged {number}"), endpoint, &|it| *it == server[0]);
        }
        assert_eq!(heard.names().count(), MOST_SERVICES);
        assert!(heard.names().any(|it| it == "server"));
        assert_eq!(drain(&mut heard, now).len(), AT_ONCE as usize);
        now += Duration::from_secs(1);
        assert_eq!(drain(&mut heard, now).len(), 10);
        assert_eq!(heard.next_at(), Some(now + ONE_MORE));
        now += Duration::from_secs(3600);
        assert_eq!(drain(&mut heard, now).len(), AT_ONCE as usize);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Service(u8, Vec<u8>),
        Gone(u8),
        Missed(u8),
        Tell(u16),
        Anew,
        Stale,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u8..200, prop::collection::vec(0u8..60, 0..3)).prop_map(|(a, b)| Event::Service(a, b)),
            (0u8..200).prop_map(Event::Gone),
            (0u8..60).prop_map(Event::Missed),
            (0u16..500).prop_map(Event::Tell),
            Just(Event::Anew),
            Just(Event::Stale),
        ]
    }

    proptest! {
        #[test]
        fn what_is_told_and_withdrawn_is_what_there_is(
            events in prop::collection::vec(any_event(), 0..400),
            servers in prop::collection::btree_set(0u8..60, 0..4),
        ) {
            // Few machines, so that their bound is met.
            let endpoint = |it: u8| Endpoint::tcp([10, 0, 0, it % 3 + 1].into(), u16::from(it) + 1);
            let servers: BTreeSet<Endpoint> = servers.into_iter().map(endpoint).collect();
            let mut now = Instant::now();
            let mut heard = Heard::new(now);
            let mut told: BTreeMap<Endpoint, u32> = BTreeMap::new();
            let mut rate = 0u32;
            let begun = now;
            for event in events {
                let gone = match event {
                    Event::Service(name, at) => {
                        let at: Vec<_> = at.into_iter().map(endpoint).collect();
                        heard.on_service(&name.to_string(), at, &|it| servers.contains(it))
                    }
                    Event::Gone(name) => heard.on_gone(&name.to_string()),
                    Event::Anew => {
                        heard.begin_anew();
                        Vec::new()
                    }
                    Event::Stale => heard.forget_stale(),
                    Event::Missed(at) => heard.on_missed(&endpoint(at), now).0,
                    Event::Tell(ms) => {
                        now += Duration::from_millis(ms.into());
                        while let Some((at, _)) = heard.next(now) {
                            told.insert(at, 1);
                            rate += 1;
                        }
                        Vec::new()
                    }
                };
                for at in gone {
                    told.remove(&at);
                }
                prop_assert!(heard.services.len() <= MOST_SERVICES && heard.news.len() <= MOST_SERVICES);
                prop_assert!(heard.told().iter().all(|it| told.contains_key(it)));
            }
            let passed = now.duration_since(begun).as_millis() / ONE_MORE.as_millis();
            prop_assert!(u128::from(rate) <= u128::from(AT_ONCE) + passed);
            // Told of, and not withdrawn: some service is still there.
            for at in told.keys() {
                prop_assert!(heard.told().contains(at), "{} is told of for nobody", at);
            }
        }
    }
}
