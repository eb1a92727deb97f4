//! What holds after any events in any order.

use std::collections::HashMap;

use proptest::{
    collection::{btree_map, btree_set},
    prelude::*,
    sample::select,
};

use super::*;

const PLACES: [&str; 8] = [
    "127.0.0.1:11434",
    "[::1]:11434",
    "localhost:11434",
    "127.0.0.1:8000",
    "192.168.1.2:8000",
    "192.168.1.3:8000",
    "unix:/run/a.sock",
    "unix:/home/a.sock",
];
const LAN: [&str; 2] = ["192.168.1.2:8000", "192.168.1.3:8000"];
const KINDS: [&str; 4] = ["ollama", "vllm", "llamacpp", "lovable"];

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Hint(&'static str, Source, bool, Option<&'static str>),
    Announced(&'static str, &'static str),
    Listed(Vec<&'static str>),
    Beat(&'static str, Option<Fault>),
    Said(Vec<(&'static str, bool)>, Vec<&'static str>),
    Gone(&'static str, Source),
    Due,
    Seen(&'static str, Sighting),
    Silent(&'static str, Fault),
    Foreign(&'static str),
    Success(usize),
    Fault(usize, Fault),
    TakeBack,
    Drain(usize),
    Resume(usize),
    Forget(usize),
    Trust(usize, bool),
    Distrust(usize),
    Listener(&'static str, u32),
    Probe(usize),
    ProbeAll,
    Tidy,
}

fn source() -> impl Strategy<Value = Source> {
    select(vec![
        Source::Port,
        Source::SocketTable,
        Source::SocketTable,
        Source::Config,
        Source::Environment,
        Source::Added,
    ])
}

fn fault() -> impl Strategy<Value = Fault> {
    let busy = Fault { stage: Stage::Head, cause: Cause::Busy { retry_after: None }, status: Some(429) };
    let key = Fault { stage: Stage::Head, cause: Cause::NeedsKey, status: Some(401) };
    let pin = Fault::new(Stage::Connect, Cause::WrongPin);
    select(vec![REFUSED, SILENT, BROKEN, BROKEN, LOADING, busy, key, pin])
}

fn any_sighting() -> impl Strategy<Value = Sighting> {
    let models = select(vec![vec![], vec!["a"], vec!["a"], vec!["a", "b"]]);
    let ports = select(vec![vec![], vec![], vec![], vec![8000], vec![11434]]);
    let blob = select(vec![None, None, None, Some("/blobs/sha256-1".to_owned())]);
    let problem = select(vec![None, None, Some(Problem::Loading), Some(Problem::NeedsKey)]);
    (select(KINDS.to_vec()), models, ports, blob, problem).prop_map(|(kind, models, ports, blob, problem)| {
        Sighting { engine_ports: ports, engine_of: blob, problem, ..sighting(kind, &models) }
    })
}

fn event() -> impl Strategy<Value = Event> {
    let place = || select(PLACES.to_vec());
    let lan = || select(LAN.to_vec());
    let name = select(vec![None, None, Some("box"), Some("vllm-8000")]);
    prop_oneof![
        3 => select(vec![10u64, 500, 1_000, 5_000, 70_000, 40 * 24 * 3_600_000]).prop_map(Event::Wait),
        5 => (place(), source(), any::<bool>(), name).prop_map(|(a, b, c, d)| Event::Hint(a, b, c, d)),
        2 => (place(), source()).prop_map(|(a, b)| Event::Gone(a, b)),
        2 => (lan(), select(vec!["desk", "attic"])).prop_map(|(a, b)| Event::Announced(a, b)),
        2 => lan().prop_map(|it| Event::Gone(it, Source::Mdns)),
        2 => btree_set(lan(), 0..3).prop_map(|it| Event::Listed(it.into_iter().collect())),
        2 => (lan(), prop::option::of(fault())).prop_map(|(a, b)| Event::Beat(a, b)),
        2 => (btree_map(place(), any::<bool>(), 0..3), btree_set(place(), 0..2)).prop_map(|(named, ruled)| {
            Event::Said(named.into_iter().collect(), ruled.into_iter().collect())
        }),
        4 => Just(Event::Due),
        8 => (place(), any_sighting()).prop_map(|(a, b)| Event::Seen(a, b)),
        2 => (place(), fault()).prop_map(|(a, b)| Event::Silent(a, b)),
        1 => place().prop_map(Event::Foreign),
        1 => (0..4usize).prop_map(Event::Success),
        3 => (0..4usize, fault()).prop_map(|(a, b)| Event::Fault(a, b)),
        1 => Just(Event::TakeBack),
        1 => (0..4usize).prop_map(Event::Drain),
        1 => (0..4usize).prop_map(Event::Resume),
        1 => (0..4usize).prop_map(Event::Forget),
        2 => (0..4usize, any::<bool>()).prop_map(|(a, b)| Event::Trust(a, b)),
        1 => (0..4usize).prop_map(Event::Distrust),
        1 => (place(), 1000..1003_u32).prop_map(|(a, b)| Event::Listener(a, b)),
        1 => (0..4usize).prop_map(Event::Probe),
        1 => Just(Event::ProbeAll),
        1 => Just(Event::Tidy),
    ]
}

/// What an id stands for: views of one loopback port are one thing.
fn thing(server: &Server) -> (KindId, String) {
    let local_port = server.endpoint.port().filter(|_| server.endpoint.is_local());
    let place = local_port.map_or_else(|| server.endpoint.to_string(), |it| it.to_string());
    (server.kind.clone(), place)
}

#[derive(Default)]
struct Seen {
    asked: BTreeSet<Endpoint>,
    things: HashMap<ServerId, (KindId, String)>,
    vouched: BTreeSet<Endpoint>,
    /// Whom the person trusts now in writing.
    written: BTreeSet<Endpoint>,
    /// Who else vouches for an address outside this machine now.
    far: BTreeSet<(Endpoint, Source)>,
    /// Addresses that a person trusts, with the kind that was there.
    trusted: HashMap<Endpoint, KindId>,
    refused: BTreeSet<Endpoint>,
}

impl Seen {
    fn addresses(world: &World, id: &ServerId) -> Vec<Endpoint> {
        let server = world.registry.server(id.as_str());
        server
            .map(|it| std::iter::once(&it.endpoint).chain(&it.also_at).cloned().collect())
            .unwrap_or_default()
    }
}

fn play(world: &mut World, event: Event, seen: &mut Seen) {
    let now = world.now();
    let ids: Vec<ServerId> = world.registry.snapshot().servers.iter().map(|it| it.id.clone()).collect();
    let pick = |at: usize| ids.get(at).cloned().unwrap_or_else(|| "nobody".into());
    let before = ids.len();
    let may_find = matches!(event, Event::Seen(..));
    let picked = match &event {
        Event::Trust(at, _) | Event::Distrust(at) | Event::Forget(at) => Seen::addresses(world, &pick(*at)),
        _ => Vec::new(),
    };
    let kind = picked.first().and_then(|it| {
        ids.iter().find_map(|id| {
            let server = world.registry.server(id.as_str())?;
            (server.endpoint == *it).then(|| server.kind.clone())
        })
    });
    let registry = &mut world.registry;
    let changes = match event {
        Event::Wait(ms) => {
            world.ms += ms;
            Vec::new()
        }
        Event::Hint(place, source, trusted, name) => {
            let settings = name.map(|it| ServerSettings { name: Some(it.into()), ..Default::default() });
            match source {
                Source::Config | Source::Environment if trusted => drop(seen.written.insert(at(place))),
                _ if trusted => {
                    seen.vouched.insert(at(place));
                    seen.far.insert((at(place), source));
                }
                _ => drop(seen.far.remove(&(at(place), source))),
            }
            registry.on_hint(Hint { endpoint: at(place), source, trusted, settings }, now)
        }
        Event::Announced(place, name) => {
            let hint = Hint { endpoint: at(place), source: Source::Mdns, trusted: false, settings: None };
            registry.on_announced(hint, name, now)
        }
        Event::Listed(places) => {
            let lookup = Lookup { name: "fleet.example".to_owned(), port: None };
            let all = places.iter().map(|it| (at(it), Listing::default())).collect();
            registry.on_listed(&lookup, &all, now)
        }
        Event::Beat(place, fault) => registry.on_beat(&at(place), fault.map_or(Ok(()), Err), now),
        Event::Said(named, ruled) => {
            let hint = |(place, enabled): &(&str, bool)| Hint {
                endpoint: at(place),
                source: Source::Config,
                trusted: true,
                settings: Some(ServerSettings { enabled: *enabled, ..Default::default() }),
            };
            let rule = |place: &&str| {
                at(place).port().map(|port| Trust::Host {
                    host: place.rsplit_once(':').unwrap_or_default().0.trim_matches(['[', ']']).to_owned(),
                    port: Some(port),
                })
            };
            let trust: Vec<Trust> = ruled.iter().filter_map(rule).collect();
            let covered = PLACES.map(at).into_iter().filter(|it| trust.iter().any(|rule| rule.covers(it)));
            seen.written = named.iter().map(|(place, _)| at(place)).chain(covered).collect();
            let named = named.iter().map(hint).collect();
            registry.on_said(Said { cloud: Cloud::default(), trust, named }, now)
        }
        Event::Gone(place, source) => {
            seen.far.remove(&(at(place), source));
            registry.on_hint_gone(&at(place), source, now)
        }
        Event::Due => {
            let timeout = registry.poll_timeout();
            let (due, beats) = (registry.due(now), registry.beats(now));
            assert_eq!(due.is_empty(), timeout.is_none_or(|it| it > now.at), "the timeout is when it is due");
            let shown = registry.snapshot();
            let open = |it: &Server| matches!(it.admission, Admission::Open | Admission::Draining);
            let is_open = |at: &Endpoint| shown.servers.iter().any(|it| it.endpoint == *at && open(it));
            let fine = beats.iter().all(|it| !it.is_local() && is_open(it));
            assert!(fine, "only what is trusted in the network is reached for");
            assert!(registry.poll_timeout().is_none_or(|it| it > now.at), "all that is due is handed out");
            for endpoint in due {
                assert!(seen.asked.insert(endpoint), "it is being asked");
            }
            Vec::new()
        }
        Event::Seen(place, sighting) => {
            seen.asked.remove(&at(place));
            registry.on_seen(&at(place), sighting, now)
        }
        Event::Silent(place, fault) => {
            seen.asked.remove(&at(place));
            registry.on_silent(&at(place), fault, now)
        }
        Event::Foreign(place) => {
            seen.asked.remove(&at(place));
            registry.on_foreign(&at(place), now)
        }
        Event::Success(at) => registry.on_success(&pick(at), now),
        Event::Fault(at, fault) => registry.on_fault(&pick(at), &fault, now, 0.5),
        Event::TakeBack => registry.take_back_strikes(&ids, now),
        Event::Drain(at) => registry.drain(pick(at).as_str(), now).unwrap_or_default(),
        Event::Resume(at) => registry.resume(pick(at).as_str(), now).unwrap_or_default(),
        Event::Forget(at) => {
            picked.iter().for_each(|it| drop((seen.refused.remove(it), seen.trusted.remove(it))));
            registry.forget(pick(at).as_str(), now).unwrap_or_default()
        }
        Event::Trust(at, pinned) => {
            for endpoint in picked {
                seen.refused.remove(&endpoint);
                seen.trusted.insert(endpoint, kind.clone().unwrap_or_else(|| "nobody".into()));
            }
            let pin = pinned.then(|| Pin::from([1; 32]));
            registry.trust(pick(at).as_str(), pin, Some(1000), now).unwrap_or_default()
        }
        Event::Distrust(at) => {
            seen.refused.extend(picked);
            registry.distrust(pick(at).as_str(), now).unwrap_or_default()
        }
        Event::Listener(place, owner) => registry.on_listener(&at(place), owner, now),
        Event::Probe(at) => registry.probe(pick(at).as_str(), now).unwrap_or_default(),
        Event::ProbeAll => {
            registry.probe_all(now);
            Vec::new()
        }
        Event::Tidy => registry.tidy(now),
    };
    world.take(changes);
    let servers = &world.registry.snapshot().servers;
    assert!(servers.len() <= before || may_find, "only a sighting makes a server");
    check(servers, seen);
}

fn check(servers: &[Arc<Server>], seen: &mut Seen) {
    assert!(servers.is_sorted_by(|a, b| a.id < b.id));
    let mut endpoints = BTreeSet::new();
    for server in servers {
        for endpoint in std::iter::once(&server.endpoint).chain(&server.also_at) {
            assert!(endpoints.insert(endpoint), "two servers at {endpoint}");
        }
        let thing = thing(server);
        let first = seen.things.entry(server.id.clone()).or_insert_with(|| thing.clone());
        // Only what is announced can move, and stays what it was.
        if !server.announced_as.is_empty() && first.0 == thing.0 && !server.endpoint.is_local() {
            first.1.clone_from(&thing.1);
        }
        assert_eq!(*first, thing, "{} was something else", server.id);
        let at = &server.endpoint;
        let far = !at.is_local() && !seen.far.iter().any(|it| it.0 == *at);
        let anyway = seen.written.contains(at) || (seen.vouched.contains(at) && !far);
        let by_hand = seen.trusted.contains_key(at);
        let is_open = matches!(server.admission, Admission::Open | Admission::Draining);
        assert!(!is_open || anyway || by_hand, "{} is open", server.id);
        assert!(!is_open || !seen.refused.contains(at), "{} is refused", server.id);
        assert!(!is_open || !server.problem.is_some_and(Problem::is_change), "{} has changed", server.id);
        match &server.word {
            Some(Word::Trusted(bond)) => {
                let changed = bond.kind.as_ref().is_some_and(|it| *it != server.kind);
                assert!(!is_open || !changed, "{} has changed", server.id);
            }
            Some(_) => assert!(!is_open, "{} is open", server.id),
            None => {}
        }
        if is_open && !anyway {
            let pin = server.word.as_ref().and_then(Word::bond).and_then(|it| it.tls_pin);
            let check = pin.map_or(Check::Authorities, Check::Pin);
            assert_eq!(server.bounds.check, check, "{} may show another key", server.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Replay, ids, addresses, what is due and who may be used: all after each of many events.
    #[test]
    fn every_sentence_with_never_and_always_holds(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        let mut seen = Seen::default();
        for event in events {
            play(&mut world, event, &mut seen);
        }
        // Once more from the store: the same servers, and the ids go on to be theirs.
        let mut after = restart(&world);
        let shown = |world: &World| {
            let servers = world.registry.snapshot().servers.clone();
            // Who is only listed is found anew when the lookup is made anew.
            let servers = servers.into_iter().filter(|it| !Registry::was_listed_only(it));
            let show = |it: Arc<Server>| (it.id.clone(), it.endpoint.clone(), it.also_at.clone(), it.models.clone());
            servers.map(show).collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(&world), shown(&after));
        let stored = |world: &World| world.registry.replicate().iter().filter_map(|it| match it {
            Change::Server { server } => {
                let is_left_out = says_where(&server.id, &server.endpoint, &server.kind);
                (!Registry::was_listed_only(server) || !is_left_out).then(|| server.id.clone())
            }
            Change::Forgotten { id, .. } => Some(id.clone()),
        }).collect::<BTreeSet<_>>();
        prop_assert_eq!(stored(&world), stored(&after));
        seen.asked.clear();
        let resumed = [Event::Due, Event::Seen(PLACES[0], sighting("vllm", &["a"])), Event::Seen(PLACES[3], sighting("ollama", &[]))];
        for event in resumed {
            play(&mut after, event, &mut seen);
        }
    }
}
