//! Who sells answers: not asked unless that was said, and then rarely.

use super::*;
use crate::registry::Cloud;

const OPENAI: &str = "https://api.openai.com:443";

fn world(enabled: bool) -> World {
    let zones = [(at("https://near:9"), Zone::Cloud), (at("https://8.8.8.8:9"), Zone::Lan)];
    let cloud = Cloud { enabled, zones: zones.into() };
    World { registry: Registry::new(Settings { cloud, ..Settings::default() }), ..World::new() }
}

fn named(kind: Option<&str>) -> Option<ServerSettings> {
    Some(ServerSettings { kind: kind.map(Into::into), ..ServerSettings::default() })
}

#[test]
fn nothing_makes_an_address_in_the_cloud_due_while_that_is_not_enabled() {
    let mut world = world(false);
    for source in [Source::Config, Source::Environment, Source::Added, Source::SocketTable] {
        world.hint_as(OPENAI, source, true, named(Some("openai")));
        world.hint_as("https://near:9", source, true, named(Some("openai-compatible")));
    }
    assert!(world.due().is_empty());
    assert_eq!(world.registry.poll_timeout(), None);
    world.hint_as("https://8.8.8.8:9", Source::Config, true, named(None));
    assert_eq!(world.due(), ["https://8.8.8.8:9"], "it was said to be near");
}

#[test]
fn what_was_stored_of_the_cloud_is_not_believed_without_it() {
    let mut before = world(true);
    before.hint_as("https://near:9", Source::Config, true, named(Some("openai")));
    before.due();
    before.seen("https://near:9", Sighting::of("openai"));
    let server = before.registry.server("openai").unwrap().clone();
    assert_eq!((server.zone, server.admission), (Zone::Cloud, Admission::Open));
    for (enabled, known) in [(true, true), (false, false)] {
        let mut after = world(enabled);
        let now = after.now();
        after.registry.apply(Change::Server { server: server.clone() }, now);
        assert_eq!(after.registry.server("openai").is_some(), known);
        assert_eq!(!after.due().is_empty(), known);
    }
}

#[test]
fn a_list_that_costs_nothing_is_still_asked_for_rarely() {
    let mut world = world(true);
    world.hint_as(OPENAI, Source::Config, true, named(Some("openai")));
    assert_eq!(world.due(), [OPENAI]);
    assert_eq!(world.registry.claimed(&at(OPENAI)).unwrap(), "openai");
    world.seen(OPENAI, Sighting::of("openai"));
    world.wait(3_599_000);
    assert!(world.due().is_empty());
    // A fault is a reason to look, but not each of them.
    let (id, now) = (ServerId::from("openai"), world.now());
    let changes = world.registry.on_fault(&id, &BROKEN, now, 0.0);
    world.take(changes);
    assert_eq!(world.due(), [OPENAI]);
    world.seen(OPENAI, Sighting::of("openai"));
    world.wait(30_000);
    let now = world.now();
    let changes = world.registry.on_fault(&id, &BROKEN, now, 0.0);
    world.take(changes);
    assert!(world.due().is_empty());
}
