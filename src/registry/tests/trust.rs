//! What a person says of servers, and until when it holds.

use super::*;

const BOX: &str = "192.168.1.2:11434";
const BOX_TLS: &str = "https://192.168.1.2:8443";
const THEIRS: &str = "127.0.0.1:9000";

fn pin(byte: u8) -> Pin {
    Pin::from([byte; 32])
}

/// A server on another machine that somebody has found.
fn found(place: &str, kind: &str) -> World {
    let mut world = World::new();
    world.hint_as(place, Source::Added, false, None);
    world.due();
    world.seen(place, sighting(kind, &["m"]));
    world
}

fn trust(world: &mut World, id: &str, pin: Option<Pin>, owner: Option<u32>) {
    let changes = world.registry.trust(id, pin, owner, world.now()).unwrap();
    world.take(changes);
}

fn distrust(world: &mut World, id: &str) {
    let changes = world.registry.distrust(id, world.now()).unwrap();
    world.take(changes);
}

fn listener(world: &mut World, place: &str, owner: u32) {
    let changes = world.registry.on_listener(&at(place), owner, world.now());
    world.take(changes);
}

fn state(world: &World, id: &str) -> (Admission, Option<Problem>) {
    let server = world.server(id);
    (server.admission, server.problem)
}

fn after_restart(world: &World) -> World {
    let mut after = World::new();
    let now = after.now();
    for change in world.registry.replicate() {
        let stored = serde_json::to_vec(&change).unwrap();
        after.registry.apply(serde_json::from_slice(&stored).unwrap(), now);
    }
    after.fold = Snapshot { servers: after.registry.snapshot().servers.clone(), ..Snapshot::default() };
    after
}

#[test]
fn a_server_elsewhere_waits_until_a_person_trusts_it_and_stays_so_over_a_restart() {
    let mut world = found(BOX, "ollama");
    assert_eq!(state(&world, "ollama"), (Admission::Untrusted, None));
    assert!(!world.registry.trusts(&at(BOX)));
    trust(&mut world, "ollama", None, None);
    assert_eq!(state(&world, "ollama"), (Admission::Open, None));
    let bond = Bond { kind: Some("ollama".into()), ..Bond::default() };
    assert_eq!(world.server("ollama").word, Some(Word::Trusted(bond)));
    let after = after_restart(&world);
    assert_eq!(state(&after, "ollama"), (Admission::Open, None));
    assert!(after.registry.trusts(&at(BOX)));
}

#[test]
fn another_kind_at_the_same_address_asks_again() {
    let mut world = found(BOX, "ollama");
    trust(&mut world, "ollama", None, None);
    world.seen(BOX, sighting("vllm", &["m"]));
    assert_eq!(state(&world, "vllm-11434"), (Admission::Untrusted, Some(Problem::ChangedKind)));
    // It does not help to be the old one again, or to be known after a restart.
    let mut world = after_restart(&world);
    assert_eq!(state(&world, "vllm-11434"), (Admission::Untrusted, Some(Problem::ChangedKind)));
    world.seen(BOX, sighting("ollama", &["m"]));
    assert_eq!(state(&world, "ollama").0, Admission::Untrusted);
    trust(&mut world, "ollama", None, None);
    assert_eq!(state(&world, "ollama"), (Admission::Open, None));
}

#[test]
fn no_rule_speaks_for_what_has_changed() {
    let mut world = found(BOX, "ollama");
    trust(&mut world, "ollama", None, None);
    world.seen(BOX, sighting("vllm", &["m"]));
    world.hint_as(BOX, Source::Config, true, None);
    assert_eq!(state(&world, "vllm-11434").0, Admission::Untrusted);
}

#[test]
fn another_key_asks_again_and_the_pin_holds_until_then() {
    let mut world = found(BOX_TLS, "vllm");
    assert_eq!(world.registry.bounds(&at(BOX_TLS)).check, Check::Nobody);
    trust(&mut world, "vllm-8443", Some(pin(1)), None);
    assert_eq!(world.registry.bounds(&at(BOX_TLS)).check, Check::Pin(pin(1)));
    assert_eq!(world.server("vllm-8443").bounds.check, Check::Pin(pin(1)));
    assert_eq!(after_restart(&world).server("vllm-8443").bounds.check, Check::Pin(pin(1)));
    let wrong = Fault::new(Stage::Connect, Cause::WrongPin);
    let mut by_probe = after_restart(&world);
    by_probe.silent(BOX_TLS, wrong);
    world.fault("vllm-8443", wrong);
    for mut world in [world, by_probe] {
        assert_eq!(state(&world, "vllm-8443"), (Admission::Untrusted, Some(Problem::ChangedKey)));
        assert_eq!(world.registry.bounds(&at(BOX_TLS)).check, Check::Nobody);
        world.seen(BOX_TLS, sighting("vllm", &["m"]));
        assert_eq!(state(&world, "vllm-8443"), (Admission::Untrusted, Some(Problem::ChangedKey)));
        trust(&mut world, "vllm-8443", Some(pin(2)), None);
        assert_eq!(state(&world, "vllm-8443"), (Admission::Open, None));
    }
}

#[test]
fn a_key_that_the_configuration_pins_stays_pinned() {
    let mut world = World::new();
    let settings = ServerSettings { pin: Some(pin(1)), ..ServerSettings::default() };
    world.hint_as(BOX_TLS, Source::Config, true, Some(settings));
    assert_eq!(world.registry.bounds(&at(BOX_TLS)).check, Check::Pin(pin(1)));
    world.due();
    world.silent(BOX_TLS, Fault::new(Stage::Connect, Cause::WrongPin));
    assert_eq!(world.registry.bounds(&at(BOX_TLS)).check, Check::Pin(pin(1)));
}

#[test]
fn another_users_listener_is_trusted_as_that_users() {
    let mut world = World::new();
    world.hint_as(THEIRS, Source::SocketTable, false, None);
    world.due();
    world.seen(THEIRS, sighting("vllm", &["m"]));
    trust(&mut world, "vllm-9000", None, Some(1001));
    assert_eq!(state(&world, "vllm-9000"), (Admission::Open, None));
    assert!(world.registry.is_bound_to_owner(&at(THEIRS)));
    listener(&mut world, THEIRS, 1001);
    world.hint_as(THEIRS, Source::SocketTable, false, None);
    assert_eq!(state(&world, "vllm-9000"), (Admission::Open, None));
    listener(&mut world, THEIRS, 1002);
    assert_eq!(state(&world, "vllm-9000"), (Admission::Untrusted, Some(Problem::ChangedOwner)));
}

#[test]
fn distrust_outweighs_owners_rules_and_the_configuration_until_it_is_taken_back() {
    let mut world = World::new();
    world.find("127.0.0.1:11434", sighting("ollama", &["m"]));
    assert_eq!(state(&world, "ollama").0, Admission::Open);
    distrust(&mut world, "ollama");
    for source in [Source::SocketTable, Source::Config, Source::Environment, Source::Port] {
        world.hint_as("127.0.0.1:11434", source, true, None);
        assert_eq!(state(&world, "ollama").0, Admission::Untrusted, "{source:?}");
    }
    let mut world = after_restart(&world);
    assert_eq!(state(&world, "ollama").0, Admission::Untrusted);
    world.hint("127.0.0.1:11434");
    trust(&mut world, "ollama", None, Some(1000));
    let server = world.server("ollama");
    assert_eq!((server.admission, &server.word), (Admission::Open, &None), "it is trusted anyway");
}

#[test]
fn who_is_distrusted_gets_nothing_under_another_name_of_its_port() {
    let mut world = World::new();
    world.find("127.0.0.1:11434", sighting("ollama", &["m"]));
    distrust(&mut world, "ollama");
    world.find("[::1]:11434", sighting("ollama", &["m"]));
    world.find("localhost:11434", sighting("ollama", &["other"]));
    world.gone("127.0.0.1:11434");
    let servers = &world.registry.snapshot().servers;
    assert!(servers.iter().all(|it| it.admission == Admission::Untrusted), "{:?}", world.shown());
}

#[test]
fn what_was_said_of_a_server_is_forgotten_only_with_it() {
    let mut world = found(BOX, "ollama");
    distrust(&mut world, "ollama");
    world.silent(BOX, REFUSED);
    world.wait(1000 * 24 * 3_600_000);
    let changes = world.registry.tidy(world.now());
    world.take(changes);
    assert_eq!(state(&world, "ollama").0, Admission::Untrusted);
    let changes = world.registry.forget("ollama", world.now()).unwrap();
    world.take(changes);
    world.hint_as(BOX, Source::Added, true, None);
    world.due();
    world.seen(BOX, sighting("ollama", &["m"]));
    assert_eq!(state(&world, "ollama").0, Admission::Open, "the rule that covers it counts again");
}

#[test]
fn a_server_that_wants_a_key_is_trusted_as_what_it_proves_to_be_first() {
    let mut world = found(BOX, "openai-compatible");
    let locked = Sighting { problem: Some(Problem::NeedsKey), ..sighting("openai-compatible", &[]) };
    world.seen(BOX, locked.clone());
    trust(&mut world, "openai-compatible-11434", None, None);
    world.seen(BOX, sighting("vllm", &["m"]));
    assert_eq!(state(&world, "vllm-11434"), (Admission::Open, None));
    // A wrong key for a while is no other server.
    world.seen(BOX, locked);
    world.seen(BOX, sighting("vllm", &["m"]));
    assert_eq!(state(&world, "vllm-11434"), (Admission::Open, None));
    world.seen(BOX, sighting("ollama", &["m"]));
    assert_eq!(state(&world, "ollama").0, Admission::Untrusted);
}

#[test]
fn the_zone_follows_the_address_that_was_connected_to() {
    let seen_at = |world: &mut World, place: &str, ip: &str| {
        let ip = Some(ip.parse().unwrap());
        world.seen(place, Sighting { at: ip, ..sighting("ollama", &["m"]) });
        let server = world.server("ollama");
        (server.zone, server.bounds.reach)
    };
    let name = "http://box:11434";
    let mut world = found(name, "ollama");
    assert_eq!(world.server("ollama").zone, Zone::Lan, "by its name");
    for (ip, zone) in [
        ("192.168.1.2", Zone::Lan),
        ("127.0.0.1", Zone::Machine),
        ("8.8.8.8", Zone::Cloud),
        ("10.0.0.1", Zone::Lan),
    ] {
        assert_eq!(seen_at(&mut world, name, ip), (zone, zone), "{ip}");
    }
    let far = "http://gpu.example:11434";
    let mut world = found(far, "ollama");
    assert_eq!(world.server("ollama").zone, Zone::Cloud, "by its name");
    assert_eq!(seen_at(&mut world, far, "10.1.2.3"), (Zone::Lan, Zone::Lan));
}

#[test]
fn questions_go_no_farther_than_the_person_allows() {
    let world = |enabled| {
        let zones = [(at("http://said:1"), Zone::Lan)];
        let cloud = Cloud { enabled, zones: zones.into() };
        Registry::new(Settings { cloud, ..Settings::default() })
    };
    for (place, without, with) in [
        ("http://localhost:1", Zone::Machine, Zone::Machine),
        ("http://127.0.0.1:1", Zone::Machine, Zone::Machine),
        ("unix:/a.sock", Zone::Machine, Zone::Machine),
        ("http://box:1", Zone::Lan, Zone::Cloud),
        ("http://gpu.example:1", Zone::Lan, Zone::Cloud),
        ("http://192.168.1.2:1", Zone::Lan, Zone::Cloud),
        // Whoever added this has typed it.
        ("http://8.8.8.8:1", Zone::Cloud, Zone::Cloud),
        ("http://said:1", Zone::Cloud, Zone::Cloud),
    ] {
        assert_eq!(world(false).bounds(&at(place)).reach, without, "{place}");
        assert_eq!(world(true).bounds(&at(place)).reach, with, "{place}");
    }
}

#[test]
fn who_passes_requests_on_is_in_the_cloud_unless_the_person_says_otherwise() {
    let gateway = || Sighting { forwards: true, ..sighting("openai-compatible", &["m"]) };
    let mut world = World::new();
    world.find("127.0.0.1:4000", gateway());
    let server = world.server("openai-compatible-4000");
    assert_eq!((server.zone, server.bounds.reach), (Zone::Cloud, Zone::Machine));
    // Neither a restart nor an answer that shows nothing makes it near.
    let mut after = after_restart(&world);
    assert_eq!(after.server("openai-compatible-4000").zone, Zone::Cloud);
    let locked = Sighting { problem: Some(Problem::NeedsKey), ..sighting("openai-compatible", &[]) };
    after.seen("127.0.0.1:4000", locked);
    assert_eq!(after.server("openai-compatible-4000").zone, Zone::Cloud);
    let settings = ServerSettings { zone: Some(Zone::Lan), ..ServerSettings::default() };
    world.hint_as("127.0.0.1:4000", Source::Config, true, Some(settings));
    assert_eq!(world.server("openai-compatible-4000").zone, Zone::Lan);
}
