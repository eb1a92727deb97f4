//! Fleets that DNS lists: found, trusted by a rule, divided by their records, gone with them.

use proptest::{collection::btree_set, prelude::*, sample::select};

use super::*;
use crate::registry::{Cloud, Said, Trust};

const ONE: &str = "10.0.0.7:8000";
const TWO: &str = "10.0.0.8:8000";

fn fleet() -> Lookup {
    Lookup { name: "_vllm._tcp.lab.example".to_owned(), port: None }
}

fn plain(places: &[&str]) -> Listings {
    places.iter().map(|it| (at(it), Listing::default())).collect()
}

impl World {
    fn list_as(&mut self, lookup: &Lookup, all: &Listings) -> usize {
        let changes = self.registry.on_listed(lookup, all, self.now());
        self.take(changes)
    }

    fn list(&mut self, places: &[&str]) -> usize {
        self.list_as(&fleet(), &plain(places))
    }

    fn trust_only(&mut self, trust: Vec<Trust>) {
        let said = Said { cloud: Cloud::default(), trust, named: Vec::new() };
        let changes = self.registry.on_said(said, self.now());
        self.take(changes);
    }

    /// Lists them and has them answer.
    fn appear(&mut self, places: &[&str]) {
        self.list(places);
        self.due();
        for place in places {
            self.seen(place, sighting("vllm", &["m"]));
        }
    }
}

fn names(end: &str) -> Trust {
    Trust::Names { end: end.to_owned(), port: None }
}

fn host(host: &str, port: Option<u16>) -> Trust {
    Trust::Host { host: host.to_owned(), port }
}

#[test]
fn what_is_listed_is_asked_and_waits_to_be_trusted_under_an_id_that_says_where_it_is() {
    let mut world = World::new();
    world.list(&[ONE, "10.0.0.7:8001"]);
    assert_eq!(world.due(), [ONE, "10.0.0.7:8001"]);
    world.seen(ONE, sighting("vllm", &["m"]));
    world.seen("10.0.0.7:8001", sighting("vllm", &["m"]));
    assert_eq!(
        world.shown(),
        ["vllm-10-0-0-7 10.0.0.7:8000 up untrusted", "vllm-10-0-0-7-8001 10.0.0.7:8001 up untrusted"]
    );
    assert_eq!(world.server("vllm-10-0-0-7").found_by, [Source::Dns].into());
    assert_eq!(world.list(&[ONE, "10.0.0.7:8001"]), 0, "that it is said again changes nothing");
}

#[test]
fn a_rule_covers_the_name_that_was_looked_up_and_a_network_the_address() {
    for (rules, is_open) in [
        (vec![names(".lab.example")], true),
        (vec![names("._tcp.lab.example")], true),
        (vec![host("_vllm._tcp.lab.example", None)], true),
        (vec![host("_vllm._tcp.lab.example", Some(8000))], true),
        (vec![host("_vllm._tcp.lab.example", Some(8001))], false),
        (vec![names(".example.org")], false),
        (vec![names("._vllm._tcp.lab.example")], false),
        (vec![host("lab.example", None)], false),
        (vec![Trust::Network { ip: "10.0.0.0".parse().unwrap(), bits: 24 }], true),
        (vec![Trust::Network { ip: "10.0.1.0".parse().unwrap(), bits: 24 }], false),
    ] {
        let mut world = World::new();
        world.appear(&[ONE]);
        world.trust_only(rules.clone());
        let is = world.server("vllm-10-0-0-7").admission == Admission::Open;
        assert_eq!(is, is_open, "{rules:?}");
        world.trust_only(Vec::new());
        assert_eq!(world.server("vllm-10-0-0-7").admission, Admission::Untrusted);
    }
}

#[test]
fn a_name_speaks_for_nobody_whom_its_lookup_does_not_list() {
    let mut world = World::new();
    world.trust_only(vec![names(".lab.example")]);
    world.appear(&[ONE]);
    let other = Lookup { name: "models.elsewhere.example".to_owned(), port: Some(8000) };
    world.list_as(&other, &plain(&[ONE, TWO]));
    world.due();
    world.seen(TWO, sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-10-0-0-7").admission, Admission::Open);
    assert_eq!(world.server("vllm-10-0-0-8").admission, Admission::Untrusted);
    // The other lookup goes on to list it, but that one is trusted by nobody.
    world.list(&[]);
    assert_eq!(world.server("vllm-10-0-0-7").admission, Admission::Untrusted);
}

#[test]
fn who_is_listed_no_more_is_gone_at_once_and_is_the_same_when_it_is_back() {
    let mut world = World::new();
    world.trust_only(vec![names(".lab.example")]);
    world.appear(&[ONE, TWO]);
    assert_eq!(world.list(&[TWO]), 1);
    assert_eq!(world.shown(), ["vllm-10-0-0-8 10.0.0.8:8000 up open"]);
    world.wait(600_000);
    assert_eq!(world.due(), [TWO], "nobody asks an address that is nobody's");
    // Its id says by itself whose it is, so nothing of it is kept.
    assert_eq!(world.registry.replicate().len(), 1);
    world.appear(&[ONE, TWO]);
    assert_eq!(world.server("vllm-10-0-0-7").admission, Admission::Open);
}

#[test]
fn who_is_found_in_another_way_stays_known() {
    let mut world = World::new();
    world.appear(&[ONE]);
    world.hint_as(ONE, Source::Config, true, None);
    world.list(&[]);
    assert_eq!(world.shown(), ["vllm-10-0-0-7 10.0.0.7:8000 up open"]);
    assert_eq!(world.server("vllm-10-0-0-7").found_by, [Source::Config].into());
}

#[test]
fn what_a_person_said_of_a_server_outlives_its_record() {
    let mut world = World::new();
    world.trust_only(vec![names(".lab.example")]);
    world.appear(&[ONE]);
    let changes = world.registry.distrust("vllm-10-0-0-7", world.now()).unwrap();
    world.take(changes);
    world.list(&[]);
    assert_eq!(world.shown(), ["vllm-10-0-0-7 10.0.0.7:8000 down untrusted"]);
    world.wait(60_000);
    assert!(world.due().is_empty());
    world.appear(&[ONE]);
    assert_eq!(world.shown(), ["vllm-10-0-0-7 10.0.0.7:8000 up untrusted"]);
}

#[test]
fn who_was_trusted_by_hand_is_in_no_use_either_while_it_is_not_listed() {
    let mut world = World::new();
    world.appear(&[ONE]);
    let changes = world.registry.trust("vllm-10-0-0-7", None, None, world.now()).unwrap();
    world.take(changes);
    world.list(&[]);
    let server = world.server("vllm-10-0-0-7");
    assert_eq!((server.standing, server.trial_at), (Standing::Down, None), "it gets no trial");
    world.appear(&[ONE]);
    assert_eq!(world.shown(), ["vllm-10-0-0-7 10.0.0.7:8000 up open"]);
}

#[test]
fn tiers_and_weights_are_those_of_the_best_record_unless_a_person_names_the_server() {
    let mut world = World::new();
    let listing = |tier, weight| Listing { tier, weight, kind: None };
    world.appear(&[ONE]);
    world.list_as(&fleet(), &[(at(ONE), listing(1, Some(5)))].into());
    let shown = |world: &World| {
        let server = world.server("vllm-10-0-0-7");
        (server.priority, server.weight)
    };
    assert_eq!(shown(&world), (1, Some(5)));
    let other = Lookup { name: "b.example".to_owned(), port: None };
    world.list_as(&other, &[(at(ONE), listing(0, Some(3)))].into());
    assert_eq!(shown(&world), (0, Some(3)));
    let settings = ServerSettings { priority: 7, ..ServerSettings::default() };
    world.hint_as(ONE, Source::Config, true, Some(settings));
    assert_eq!(shown(&world), (7, Some(3)));
}

#[test]
fn a_kind_that_the_person_gives_is_believed_of_who_does_not_say_it() {
    let mut world = World::new();
    let listing = Listing { kind: Some("vllm".into()), ..Listing::default() };
    world.list_as(&fleet(), &[(at(ONE), listing.clone()), (at(TWO), listing)].into());
    world.due();
    world.seen(ONE, sighting("openai-compatible", &["m"]));
    world.seen(TWO, sighting("ollama", &["m"]));
    assert_eq!(
        world.shown(),
        ["ollama-10-0-0-8-8000 10.0.0.8:8000 up untrusted", "vllm-10-0-0-7 10.0.0.7:8000 up untrusted"]
    );
}

#[test]
fn after_a_restart_only_what_is_listed_anew_is_there() {
    let mut world = World::new();
    world.trust_only(vec![names(".lab.example")]);
    world.appear(&[ONE, TWO]);
    let mut after = World::new();
    after.trust_only(vec![names(".lab.example")]);
    for change in world.registry.replicate() {
        after.registry.apply(change, after.now());
    }
    assert!(after.shown().is_empty() && after.due().is_empty());
    after.appear(&[ONE]);
    assert_eq!(after.shown(), ["vllm-10-0-0-7 10.0.0.7:8000 up open"]);
}

#[test]
fn a_thousand_that_appear_at_once_are_asked_one_after_the_other_and_then_in_turn() {
    let mut world = World::new();
    let many: Vec<String> = (0..1000).map(|it| format!("10.1.{}.{}:8000", it / 250, it % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.trust_only(vec![names(".lab.example")]);
    world.list(&many);
    let mut most = 0;
    for _ in 0..10 {
        let due = world.due();
        most = most.max(due.len());
        for it in &due {
            world.seen(it, sighting("vllm", &["m"]));
        }
        world.wait(1000);
    }
    assert_eq!((most, world.shown().len()), (100, 1000));
    // Well they are, and all of them are asked again within two minutes, some each second.
    let mut again = Vec::new();
    for _ in 0..120 {
        let due = world.due();
        assert!(due.len() <= 100, "{}", due.len());
        assert!(world.registry.beats(world.now()).len() <= 100);
        for it in &due {
            world.seen(it, sighting("vllm", &["m"]));
        }
        again.extend(due);
        world.wait(1000);
    }
    again.sort();
    again.dedup();
    assert_eq!(again.len(), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was listed and ruled before: who is used is listed now, or covered as it is now.
    #[test]
    fn nobody_is_used_whom_neither_a_rule_nor_a_trusted_lookup_covers_now(
        rounds in prop::collection::vec((
            btree_set(select(vec![ONE, TWO, "10.0.1.7:8000"]), 0..4),
            select(vec!["a.lab.example", "b.other.example"]),
            prop::collection::vec(select(vec![names(".lab.example"), names(".other.example"),
                Trust::Network { ip: "10.0.1.0".parse().unwrap(), bits: 24 }]), 0..3),
            any::<bool>(),
        ), 1..30),
    ) {
        let mut world = World::new();
        let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (places, name, rules, answers) in rounds {
            world.wait(1000);
            let all: Vec<&str> = places.iter().copied().collect();
            world.list_as(&Lookup { name: name.to_owned(), port: None }, &plain(&all));
            listed.insert(name, places);
            world.trust_only(rules.clone());
            for place in world.due() {
                if answers {
                    world.seen(&place, sighting("vllm", &["m"]));
                } else {
                    world.silent(&place, SILENT);
                }
            }
            let servers = world.registry.snapshot().servers.clone();
            for server in servers {
                let text = server.endpoint.to_string().replace("http://", "");
                let by = listed.iter().filter(|(_, all)| all.contains(text.as_str())).map(|(name, _)| *name);
                let by: Vec<&str> = by.collect();
                prop_assert!(!by.is_empty(), "{} is listed nowhere", text);
                let covers = |it: &Trust| match it {
                    Trust::Names { end, .. } => by.iter().any(|name| name.ends_with(end.as_str())),
                    rule => rule.covers(&server.endpoint),
                };
                prop_assert_eq!(server.admission == Admission::Open, rules.iter().any(covers));
            }
        }
    }
}
