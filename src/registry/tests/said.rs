//! What the person says in writing, and says otherwise.

use super::*;
use crate::registry::{Said, Trust};

const FAR: &str = "192.168.1.7:8000";
const NEAR: &str = "127.0.0.1:8000";

fn named(text: &str, settings: ServerSettings) -> Hint {
    Hint { endpoint: at(text), source: Source::Config, trusted: true, settings: Some(settings) }
}

fn plain(text: &str) -> Hint {
    named(text, ServerSettings::default())
}

fn rule(host: &str) -> Trust {
    Trust::Host { host: host.to_owned(), port: None }
}

impl World {
    fn say(&mut self, named: &[Hint], trust: &[Trust]) -> usize {
        let said = Said { named: named.to_vec(), trust: trust.to_vec(), ..Said::default() };
        let now = self.now();
        let changes = self.registry.on_said(said, now);
        self.take(changes)
    }

    fn admissions(&self) -> Vec<Admission> {
        self.registry.snapshot().servers.iter().map(|it| it.admission).collect()
    }
}

#[test]
fn a_named_server_is_asked_once_and_trusted_for_as_long_as_it_is_named() {
    for place in [FAR, NEAR, "unix:/run/a.sock"] {
        let mut world = World::new();
        world.say(&[plain(place)], &[]);
        assert_eq!(world.due().len(), 1);
        world.seen(place, sighting("vllm", &["a"]));
        assert_eq!(world.admissions(), [Admission::Open]);
        assert_eq!(world.say(&[plain(place)], &[]), 0, "nothing new was said");
        assert!(world.due().is_empty());
        world.say(&[], &[]);
        assert_eq!(world.admissions(), [Admission::Untrusted], "{place}");
        world.say(&[plain(place)], &[]);
        assert_eq!(world.admissions(), [Admission::Open]);
        assert_eq!(world.due().len(), 1, "it was named anew");
    }
}

#[test]
fn trust_that_was_stored_ends_with_the_word_that_it_came_from() {
    let mut before = World::new();
    before.say(&[plain("unix:/run/a.sock")], &[]);
    before.due();
    before.seen("unix:/run/a.sock", sighting("vllm", &["a"]));
    let mut after = restart(&before);
    after.say(&[plain("unix:/run/a.sock")], &[]);
    assert_eq!(after.admissions(), [Admission::Open]);
    after.say(&[], &[]);
    assert_eq!(after.admissions(), [Admission::Untrusted]);
}

#[test]
fn a_rule_is_weighed_beside_what_others_vouch_for() {
    let mut world = World::new();
    world.hint_as(FAR, Source::Added, false, None);
    world.hint_as(NEAR, Source::SocketTable, false, None);
    world.due();
    world.seen(FAR, sighting("vllm", &["a"]));
    world.seen(NEAR, sighting("vllm", &["b"]));
    world.say(&[], &[rule("192.168.1.7"), rule("localhost")]);
    assert_eq!(world.admissions(), [Admission::Open, Admission::Open]);
    world.say(&[], &[rule("localhost")]);
    let untrusted: Vec<_> = world.shown().into_iter().filter(|it| it.ends_with("untrusted")).collect();
    assert_eq!(untrusted.len(), 1);
    assert!(untrusted[0].contains("192.168.1.7"));
    world.say(&[], &[]);
    assert_eq!(world.admissions(), [Admission::Untrusted, Admission::Untrusted]);
}

#[test]
fn an_owner_that_is_trusted_stays_so_whatever_is_written() {
    let mut world = World::new();
    world.find(NEAR, sighting("vllm", &["a"]));
    world.say(&[plain(NEAR)], &[rule("localhost")]);
    world.say(&[], &[]);
    assert_eq!(world.admissions(), [Admission::Open]);
}

#[test]
fn settings_are_those_of_the_last_word() {
    let mut world = World::new();
    let with = |priority, limit, enabled| {
        named(FAR, ServerSettings { priority, limit, enabled, ..ServerSettings::default() })
    };
    world.say(&[with(1, Some(2), true)], &[]);
    world.due();
    world.seen(FAR, sighting("vllm", &["a"]));
    let id = world.registry.snapshot().servers[0].id.clone();
    let server = world.server(id.as_str());
    assert_eq!((server.priority, server.limit, server.admission), (1, Some(2), Admission::Open));
    world.say(&[with(-1, None, false)], &[]);
    let server = world.server(id.as_str());
    assert_eq!((server.priority, server.limit, server.admission), (-1, None, Admission::Off));
    let kind = ServerSettings { kind: Some("sglang".into()), ..ServerSettings::default() };
    world.say(&[named(FAR, kind)], &[]);
    assert_eq!(world.due().len(), 1, "it may be recognised as something else");
}

#[test]
fn who_is_ill_is_looked_at_after_an_edit_and_who_was_forgotten_is_not() {
    let mut world = World::new();
    world.say(&[plain(FAR), plain(NEAR)], &[]);
    world.due();
    world.silent(FAR, REFUSED);
    world.seen(NEAR, sighting("vllm", &["a"]));
    world.say(&[plain(FAR), plain(NEAR)], &[]);
    assert_eq!(world.due(), [FAR], "its key may have been mended");
    world.silent(FAR, REFUSED);
    let id = world.registry.snapshot().servers[0].id.clone();
    let now = world.now();
    let changes = world.registry.forget(id.as_str(), now).unwrap();
    world.take(changes);
    world.say(&[plain(NEAR)], &[]);
    assert!(world.due().is_empty());
}

#[test]
fn with_the_cloud_goes_everything_that_is_in_it() {
    let mut world = World::new();
    let place = "https://api.openai.com:443";
    let kind = ServerSettings { kind: Some("openai".into()), ..ServerSettings::default() };
    let zones: BTreeMap<_, _> = [(at(place), Zone::Cloud)].into();
    let say = |world: &mut World, enabled: bool| {
        let cloud = Cloud { enabled, zones: zones.clone() };
        let said = Said { cloud, trust: Vec::new(), named: vec![named(place, kind.clone())] };
        let now = world.now();
        let changes = world.registry.on_said(said, now);
        world.take(changes);
    };
    say(&mut world, false);
    assert!(world.due().is_empty());
    for _ in 0..2 {
        say(&mut world, true);
        assert_eq!(world.due(), [place]);
        world.seen(place, Sighting::of("openai"));
        assert_eq!(world.server("openai").admission, Admission::Open);
        say(&mut world, false);
        assert!(world.registry.server("openai").is_none());
        assert!(world.due().is_empty());
        assert_eq!(world.registry.poll_timeout(), None);
    }
}
