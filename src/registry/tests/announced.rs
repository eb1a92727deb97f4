//! Servers that are announced in the network: found, reached for, missed, moved, too many.

use super::*;
use crate::{
    fault::{Cause, Stage},
    registry::{Cloud, Said, Trust},
};

const DESK: &str = "192.168.1.7:11434";
const LATER: &str = "192.168.1.9:11434";
const NO_ANSWER: Fault = Fault { stage: Stage::Connect, cause: Cause::ConnectTimeout, status: None };

impl World {
    fn announced(&mut self, text: &str, name: &str, trusted: bool) {
        if trusted {
            let (host, port) = text.rsplit_once(':').unwrap();
            let rule = Trust::Host { host: host.to_owned(), port: port.parse().ok() };
            let said = Said { cloud: Cloud::default(), trust: vec![rule], named: Vec::new() };
            let changes = self.registry.on_said(said, self.now());
            self.take(changes);
        }
        let hint = Hint { endpoint: at(text), source: Source::Mdns, trusted: false, settings: None };
        let changes = self.registry.on_announced(hint, name, self.now());
        self.take(changes);
    }

    fn withdrawn(&mut self, text: &str) {
        let changes = self.registry.on_hint_gone(&at(text), Source::Mdns, self.now());
        self.take(changes);
    }

    /// Announces it and has it answer.
    fn comes(&mut self, text: &str, name: &str, trusted: bool) {
        self.announced(text, name, trusted);
        self.due();
        self.seen(text, sighting("ollama", &["m"]));
    }

    fn beats(&mut self) -> Vec<String> {
        self.registry.beats(self.now()).iter().map(|it| it.to_string().replace("http://", "")).collect()
    }

    fn beat(&mut self, text: &str, fault: Option<Fault>) {
        let changes = self.registry.on_beat(&at(text), fault.map_or(Ok(()), Err), self.now());
        self.take(changes);
    }
}

#[test]
fn an_announced_server_waits_to_be_trusted_and_is_not_reached_for() {
    let mut world = World::new();
    world.comes(DESK, "desk", false);
    assert_eq!(world.shown(), [format!("ollama {DESK} up untrusted")]);
    assert_eq!(world.server("ollama").found_by, [Source::Mdns].into());
    assert_eq!(world.server("ollama").zone, Zone::Lan);
    world.wait(60_000);
    assert!(world.beats().is_empty());
}

#[test]
fn a_server_that_is_missed_three_times_is_down_and_the_first_answer_ends_doubts() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    assert!(world.beats().is_empty(), "it has just answered");
    world.wait(900);
    assert_eq!(world.beats(), [DESK]);
    assert!(world.beats().is_empty(), "it is being reached for");
    world.beat(DESK, Some(NO_ANSWER));
    assert_eq!(world.shown(), [format!("ollama {DESK} suspect open")]);
    assert_eq!(world.beats(), [DESK]);
    world.beat(DESK, None);
    assert_eq!(world.shown(), [format!("ollama {DESK} up open")]);
    world.wait(900);
    for _ in 0..3 {
        assert_eq!(world.beats(), [DESK]);
        world.beat(DESK, Some(NO_ANSWER));
    }
    assert_eq!(world.shown(), [format!("ollama {DESK} down open")]);
    assert!(world.beats().is_empty(), "from here on it is asked as everybody is");
    assert_eq!(world.due(), [DESK]);
    world.seen(DESK, sighting("ollama", &["m"]));
    assert_eq!(world.shown(), [format!("ollama {DESK} up open")]);
}

#[test]
fn a_server_that_refuses_a_connection_is_down_at_once() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.wait(900);
    world.beats();
    world.beat(DESK, Some(REFUSED));
    assert_eq!(world.shown(), [format!("ollama {DESK} down open")]);
}

#[test]
fn a_report_that_never_comes_is_not_waited_for() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.wait(900);
    world.beats();
    world.wait(5_000);
    assert_eq!(world.beats(), [DESK]);
}

#[test]
fn a_server_of_this_machine_or_far_away_is_not_reached_for() {
    let mut world = World::new();
    world.find("127.0.0.1:11434", sighting("ollama", &["m"]));
    world.hint_as("https://8.8.8.8", Source::Config, true, None);
    world.hint_as("desk:8000", Source::Config, true, None);
    world.due();
    world.seen("https://8.8.8.8", sighting("vllm", &["m"]));
    world.seen("desk:8000", sighting("vllm", &["m"]));
    world.wait(9_000);
    assert!(world.beats().is_empty());
}

#[test]
fn a_withdrawn_server_is_looked_at_and_stays_while_it_answers() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.wait(1_500);
    world.withdrawn(DESK);
    assert_eq!(world.due(), [DESK]);
    world.seen(DESK, sighting("ollama", &["m"]));
    assert_eq!(world.shown().len(), 1);
}

#[test]
fn a_server_that_is_gone_and_announced_elsewhere_keeps_its_id_and_is_trusted_anew() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.withdrawn(DESK);
    world.wait(900);
    world.beats();
    world.beat(DESK, Some(REFUSED));
    world.comes(LATER, "desk", false);
    assert_eq!(world.shown(), [format!("ollama {LATER} up untrusted")]);
    // Where it was there is nothing any more.
    world.due();
    world.silent(DESK, REFUSED);
    world.wait(600_000);
    assert!(!world.due().contains(&DESK.to_owned()));
    // And back again.
    world.withdrawn(LATER);
    world.due();
    for _ in 0..3 {
        world.silent(LATER, REFUSED);
    }
    world.comes(DESK, "desk", true);
    assert_eq!(world.shown(), [format!("ollama {DESK} up open")]);
}

#[test]
fn an_address_that_changes_is_found_out_about_before_anything_is_new() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.withdrawn(DESK);
    world.comes(LATER, "desk", false);
    assert_eq!(world.shown(), [format!("ollama {DESK} up open")], "it may still be there");
    assert_eq!(world.due(), [DESK], "that is asked at once");
    world.silent(DESK, NO_ANSWER);
    world.wait(1_000);
    assert!(world.due().contains(&LATER.to_owned()));
    world.seen(LATER, sighting("ollama", &["m"]));
    assert_eq!(world.shown(), [format!("ollama {LATER} up untrusted")]);
}

#[test]
fn whoever_takes_the_name_of_a_server_that_answers_takes_no_more() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    world.withdrawn(DESK);
    for _ in 0..10 {
        world.announced(LATER, "desk", false);
        for due in world.due() {
            world.seen(&due, sighting("ollama", &["m"]));
        }
        world.wait(1_000);
    }
    assert_eq!(
        world.shown(),
        [format!("ollama {DESK} up open"), format!("ollama-11434 {LATER} up untrusted")]
    );
}

#[test]
fn another_kind_or_another_name_is_another_server() {
    for (kind, name) in [("vllm", "desk"), ("ollama", "attic")] {
        let mut world = World::new();
        world.comes(DESK, "desk", true);
        world.withdrawn(DESK);
        world.wait(900);
        world.beats();
        world.beat(DESK, Some(REFUSED));
        world.announced(LATER, name, false);
        world.due();
        world.seen(LATER, sighting(kind, &["m"]));
        assert_eq!(world.shown().len(), 2, "{kind} {name}");
    }
}

#[test]
fn a_server_that_a_person_named_does_not_move() {
    let mut world = World::new();
    world.hint_as(DESK, Source::Config, true, None);
    world.comes(DESK, "desk", false);
    world.withdrawn(DESK);
    world.wait(900);
    world.beats();
    world.beat(DESK, Some(REFUSED));
    world.comes(LATER, "desk", false);
    assert_eq!(world.shown().len(), 2);
}

#[test]
fn a_name_outlives_a_restart() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    let mut later = World::new();
    for change in world.registry.replicate() {
        later.registry.apply(change, later.now());
    }
    later.fold.servers = later.registry.snapshot().servers.clone();
    later.due();
    later.silent(DESK, REFUSED);
    later.comes(LATER, "desk", false);
    assert_eq!(later.shown(), [format!("ollama {LATER} up untrusted")]);
}

#[test]
fn a_server_that_is_silent_is_asked_again_when_it_is_announced_again() {
    let mut world = World::new();
    world.announced(DESK, "desk", false);
    world.due();
    world.silent(DESK, NO_ANSWER);
    assert!(world.due().is_empty());
    world.announced(DESK, "desk", false);
    assert_eq!(world.due(), [DESK]);
}

#[test]
fn strangers_are_not_too_many_and_push_nobody_out() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    for number in 1..=200 {
        world.comes(&format!("10.0.0.{number}:11434"), &format!("stranger {number}"), false);
    }
    assert_eq!(world.shown().len(), 65);
    assert_eq!(world.shown()[0], format!("ollama {DESK} up open"));
    // One that does not answer any more makes room.
    for _ in 0..3 {
        world.silent("10.0.0.5:11434", NO_ANSWER);
    }
    world.comes("10.0.1.1:11434", "another", false);
    let shown = world.shown().join("\n");
    assert!(shown.contains(" 10.0.1.1:11434 ") && !shown.contains(" 10.0.0.5:11434 "), "{shown}");
}

#[test]
fn who_is_distrusted_gets_nothing_at_another_address_either() {
    let mut world = World::new();
    world.comes(DESK, "desk", true);
    let changes = world.registry.distrust("ollama", world.now()).unwrap();
    world.take(changes);
    world.withdrawn(DESK);
    world.due();
    for _ in 0..3 {
        world.silent(DESK, REFUSED);
    }
    // A rule covers where it comes back.
    world.comes(LATER, "desk", true);
    assert_eq!(world.shown(), [format!("ollama {LATER} up untrusted")]);
}
