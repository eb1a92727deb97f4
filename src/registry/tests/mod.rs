//! The registry's sentences, one by one; `always` has those with "never" and "always".

mod always;
mod announced;
mod cloud;
mod listed;
mod said;
mod trust;

use std::time::{Duration, Instant};

use super::*;
use crate::{
    fault::{Cause, Stage},
    generate::{Needs, Operation},
    server::{Check, Model, Pin, Zone},
};

const REFUSED: Fault = Fault { stage: Stage::Connect, cause: Cause::Refused, status: None };
const SILENT: Fault = Fault { stage: Stage::Head, cause: Cause::FirstTokenTimeout, status: None };
const BROKEN: Fault = Fault { stage: Stage::Head, cause: Cause::Status, status: Some(500) };
const LOADING: Fault = Fault { stage: Stage::Head, cause: Cause::Loading, status: Some(503) };

/// A registry whose every change is also folded into a second picture.
struct World {
    registry: Registry,
    fold: Snapshot,
    start: Instant,
    ms: u64,
}

impl World {
    fn new() -> Self {
        let registry = Registry::new(Settings::default());
        let mut world = Self { registry, fold: Snapshot::default(), start: Instant::now(), ms: 0 };
        world.wait(0);
        world
    }

    fn now(&self) -> Now {
        Now { at: self.start + Duration::from_millis(self.ms), wall_ms: 1_700_000_000_000 + self.ms }
    }

    /// Waits while somebody wants something all the time.
    fn wait(&mut self, ms: u64) {
        self.ms += ms;
        self.registry.on_wanted(self.now());
    }

    fn wait_unwanted(&mut self, ms: u64) {
        self.ms += ms;
    }

    fn take(&mut self, changes: Vec<Change>) -> usize {
        changes.iter().for_each(|it| self.fold.apply(it));
        assert_eq!(self.fold.servers, self.registry.snapshot().servers);
        changes.len()
    }

    fn hint_as(&mut self, text: &str, source: Source, trusted: bool, settings: Option<ServerSettings>) {
        let hint = Hint { endpoint: at(text), source, trusted, settings };
        let changes = self.registry.on_hint(hint, self.now());
        self.take(changes);
    }

    fn hint(&mut self, text: &str) {
        self.hint_as(text, Source::SocketTable, true, None);
    }

    fn gone(&mut self, text: &str) {
        let changes = self.registry.on_hint_gone(&at(text), Source::SocketTable, self.now());
        self.take(changes);
    }

    fn due(&mut self) -> Vec<String> {
        self.registry.due(self.now()).iter().map(|it| it.to_string().replace("http://", "")).collect()
    }

    fn seen(&mut self, text: &str, sighting: Sighting) -> usize {
        let changes = self.registry.on_seen(&at(text), sighting, self.now());
        self.take(changes)
    }

    fn silent(&mut self, text: &str, fault: Fault) -> usize {
        let changes = self.registry.on_silent(&at(text), fault, self.now());
        self.take(changes)
    }

    fn foreign(&mut self, text: &str) {
        let changes = self.registry.on_foreign(&at(text), self.now());
        self.take(changes);
    }

    fn fault(&mut self, id: &str, fault: Fault) -> usize {
        let changes = self.registry.on_fault(&id.into(), &fault, self.now(), 0.0);
        self.take(changes)
    }

    fn success(&mut self, id: &str) -> usize {
        let changes = self.registry.on_success(&id.into(), self.now());
        self.take(changes)
    }

    /// Hints at an address and recognises it.
    fn find(&mut self, text: &str, sighting: Sighting) {
        self.hint(text);
        self.due();
        self.seen(text, sighting);
    }

    /// Each server as `id endpoint standing admission`.
    fn shown(&self) -> Vec<String> {
        let servers = &self.registry.snapshot().servers;
        let show = |it: &Arc<Server>| {
            let endpoint = it.endpoint.to_string().replace("http://", "");
            format!("{} {endpoint} {:?} {:?}", it.id, it.standing, it.admission).to_lowercase()
        };
        servers.iter().map(show).collect()
    }

    fn server(&self, id: &str) -> Arc<Server> {
        Arc::clone(self.registry.server(id).unwrap())
    }
}

fn at(text: &str) -> Endpoint {
    Endpoint::parse(text).unwrap()
}

fn sighting(kind: &str, models: &[&str]) -> Sighting {
    Sighting { models: models.iter().map(|it| Model::named(*it)).collect(), ..Sighting::of(kind) }
}

#[test]
fn what_a_server_lacks_is_remembered_for_that_work_and_not_for_ever() {
    let mut world = World::new();
    world.hint("127.0.0.1:1");
    world.due();
    world.seen(
        "127.0.0.1:1",
        Sighting { models: vec![Model::named("m"), Model::named("n")], ..Sighting::of("vllm") },
    );
    let id = world.registry.snapshot().servers[0].id.clone();
    let plain = (Operation::Chat, Needs::default());
    let tools = (Operation::Chat, Needs { tools: true, ..Needs::default() });
    let lack = |world: &mut World, work: Work, cause: Cause| {
        let fault = Fault { cause, ..BROKEN };
        let changes = world.registry.on_lack(&id, &"m".into(), work, &fault, world.now());
        world.take(changes)
    };
    let lacks = |world: &World, model: &str, work: Work| {
        world.registry.snapshot().servers[0].lacks(&model.into(), work, world.now().at)
    };
    assert_eq!(lack(&mut world, tools, Cause::Unsupported), 1);
    assert!(lacks(&world, "m", tools) && !lacks(&world, "m", plain) && !lacks(&world, "n", tools));
    assert_eq!(lack(&mut world, tools, Cause::Unsupported), 0, "known");
    assert_eq!(lack(&mut world, plain, Cause::ContextOverflow), 0, "the next prompt may be shorter");
    lack(&mut world, plain, Cause::ModelNotFound);
    assert!(lacks(&world, "m", plain) && !lacks(&world, "n", plain));
    world.wait(1_000);
    assert!(!lacks(&world, "m", plain) && !lacks(&world, "m", tools));
    lack(&mut world, plain, Cause::ModelNotFound);
    world.wait(1_999);
    assert!(lacks(&world, "m", plain), "longer each time");
    world.wait(10_000);
    lack(&mut world, plain, Cause::ModelNotFound);
    world.wait(1_000);
    assert!(!lacks(&world, "m", plain), "and from the start when it was well between");
}

#[test]
fn after_a_sleep_of_the_machine_every_server_is_due_and_nothing_is_waited_for() {
    let mut world = World::new();
    let places = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
    for (place, id) in places.iter().zip(["vllm-1", "vllm-2", "vllm-3"]) {
        world.hint(place);
        world.due();
        world.seen(place, Sighting::of("vllm"));
        assert!(world.registry.server(id).is_some(), "{:?}", world.fold.servers);
    }
    for _ in 0..8 {
        for _ in 0..3 {
            world.fault("vllm-1", BROKEN);
        }
        world.wait(20_000);
    }
    world.due();
    let busy = Fault { cause: Cause::Busy { retry_after: Some(Duration::from_secs(900)) }, ..BROKEN };
    world.fault("vllm-2", busy);
    world.seen("127.0.0.1:1", Sighting::of("vllm"));
    world.seen("127.0.0.1:2", Sighting::of("vllm"));
    // The third is being asked, over a connection that the sleep ends.
    let standing = |world: &World, id: &str| world.registry.server(id).unwrap().standing;
    assert_ne!(standing(&world, "vllm-1"), Standing::Up);
    let changes = world.registry.on_wake(world.now());
    world.take(changes);
    assert_eq!(world.due(), ["127.0.0.1:1", "127.0.0.1:2"]);
    world.silent("127.0.0.1:3", SILENT);
    assert_eq!(world.due(), ["127.0.0.1:3"], "at once again");
    for place in places {
        world.seen(place, Sighting::of("vllm"));
    }
    for id in ["vllm-1", "vllm-2", "vllm-3"] {
        assert_eq!(standing(&world, id), Standing::Up, "{id}");
        assert_eq!(world.registry.server(id).unwrap().busy_until, None, "{id}");
    }
}

#[test]
fn a_hint_makes_an_address_due_and_a_reply_makes_a_server() {
    let mut world = World::new();
    world.hint("127.0.0.1:8001");
    assert!(world.shown().is_empty());
    assert_eq!(world.due(), ["127.0.0.1:8001"]);
    assert!(world.due().is_empty(), "it is being asked");
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.shown(), ["vllm-8001 127.0.0.1:8001 up open"]);
}

#[test]
fn several_hints_for_one_address_are_one_server_that_knows_who_told() {
    let mut world = World::new();
    world.hint_as("127.0.0.1:8001", Source::Port, true, None);
    world.hint("127.0.0.1:8001");
    world.hint_as("127.0.0.1:8001", Source::Config, true, None);
    assert_eq!(world.due().len(), 1);
    world.seen("127.0.0.1:8001", sighting("vllm", &[]));
    let found_by: Vec<Source> = world.server("vllm-8001").found_by.iter().copied().collect();
    assert_eq!(found_by, [Source::Port, Source::SocketTable, Source::Config]);
}

#[test]
fn a_server_is_asked_every_ten_seconds_and_a_loading_one_every_second() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    world.wait(9_999);
    assert!(world.due().is_empty());
    world.wait(1);
    assert_eq!(world.due(), ["127.0.0.1:1"]);
    world.seen("127.0.0.1:1", Sighting { problem: Some(Problem::Loading), ..sighting("vllm", &[]) });
    world.wait(1_000);
    assert_eq!(world.due(), ["127.0.0.1:1"]);
}

#[test]
fn while_nobody_wants_anything_servers_are_asked_rarely_and_all_at_once_when_somebody_does() {
    let mut world = World::new();
    let (here, loading) = ("127.0.0.1:1", "127.0.0.1:2");
    world.wait_unwanted(60_000);
    world.find(here, sighting("vllm", &[]));
    world.wait_unwanted(29_999);
    assert!(world.due().is_empty());
    world.wait_unwanted(1);
    assert_eq!(world.due(), [here]);
    world.seen(here, sighting("vllm", &[]));
    world.find(loading, Sighting { problem: Some(Problem::Loading), ..sighting("vllm", &[]) });
    world.wait_unwanted(1_000);
    assert_eq!(world.due(), [loading], "what will change is looked at all the same");
    world.wait_unwanted(4_000);
    world.wait(0);
    assert!(world.due().is_empty(), "what is known is fresh enough");
    world.wait(5_000);
    assert_eq!(world.due(), [here]);
    world.seen(here, sighting("vllm", &[]));
    world.wait_unwanted(61_000);
    world.wait(0);
    assert_eq!(world.due(), [here], "it is older than anybody should see");
}

/// Answers `silent` whenever the address is asked, for ten minutes; the pauses in seconds.
fn pauses(world: &mut World, text: &str, fault: Fault) -> Vec<u64> {
    let mut pauses = Vec::new();
    let end = world.ms + 600_000;
    while let Some(at) = world.registry.poll_timeout() {
        let ms = (at.saturating_duration_since(world.now().at)).as_millis() as u64;
        if world.ms + ms > end {
            break;
        }
        world.wait(ms);
        assert_eq!(world.due(), [text]);
        world.silent(text, fault);
        pauses.push(ms / 1000);
    }
    pauses
}

#[test]
fn a_silent_listener_is_asked_after_growing_pauses() {
    let mut world = World::new();
    world.hint("127.0.0.1:1");
    assert_eq!(pauses(&mut world, "127.0.0.1:1", SILENT)[..9], [0, 1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_usual_port_where_nobody_listens_costs_next_to_nothing_when_the_table_is_watched() {
    let mut world = World::new();
    world.hint_as("127.0.0.1:1", Source::Port, true, None);
    assert_eq!(pauses(&mut world, "127.0.0.1:1", REFUSED)[..6], [0, 1, 2, 4, 4, 4]);
    world.hint("127.0.0.1:2");
    world.due();
    world.foreign("127.0.0.1:2");
    world.wait(4_000);
    assert_eq!(pauses(&mut world, "127.0.0.1:1", REFUSED)[1..4], [60, 60, 60]);
    world.hint("127.0.0.1:1");
    assert_eq!(world.due(), ["127.0.0.1:1"], "the table tells of the listener");
}

#[test]
fn something_else_is_not_asked_again_until_its_listener_changes() {
    let mut world = World::new();
    world.hint("127.0.0.1:1");
    world.due();
    world.foreign("127.0.0.1:1");
    world.registry.probe_all(world.now());
    world.wait(3_600_000);
    assert!(world.due().is_empty());
    assert_eq!(world.registry.poll_timeout(), None);
    world.gone("127.0.0.1:1");
    assert_eq!(world.registry.poll_timeout(), None, "nobody tells of it any more");
    world.hint("127.0.0.1:1");
    assert_eq!(world.due(), ["127.0.0.1:1"]);
}

#[test]
fn a_listener_that_changes_while_it_is_asked_is_asked_again() {
    let mut world = World::new();
    world.hint("127.0.0.1:1");
    world.due();
    world.gone("127.0.0.1:1");
    world.hint("127.0.0.1:1");
    assert!(world.due().is_empty(), "it is being asked");
    world.foreign("127.0.0.1:1");
    assert_eq!(world.due(), ["127.0.0.1:1"]);
}

#[test]
fn what_is_seen_where_nobody_hints_any_more_is_no_server() {
    let mut world = World::new();
    world.hint("127.0.0.1:1");
    world.due();
    world.gone("127.0.0.1:1");
    world.seen("127.0.0.1:1", sighting("vllm", &[]));
    world.seen("127.0.0.1:2", sighting("vllm", &[]));
    assert!(world.shown().is_empty());
    assert_eq!(world.registry.poll_timeout(), None);
}

#[test]
fn a_server_whose_listener_vanishes_is_down_at_once_and_up_when_it_is_seen_again() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    world.gone("127.0.0.1:8001");
    assert_eq!(world.shown(), ["vllm-8001 127.0.0.1:8001 down open"]);
    world.hint("127.0.0.1:8001");
    world.due();
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.shown(), ["vllm-8001 127.0.0.1:8001 up open"]);
}

#[test]
fn three_silent_probes_take_a_server_out_and_one_good_one_brings_it_back() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    for expected in [Standing::Suspect, Standing::Suspect, Standing::Down] {
        world.silent("127.0.0.1:8001", SILENT);
        assert_eq!(world.server("vllm-8001").standing, expected);
    }
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8001").standing, Standing::Up);
}

#[test]
fn probes_that_time_out_beside_answered_requests_are_no_strikes() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    world.success("vllm-8001");
    world.silent("127.0.0.1:8001", SILENT);
    assert_eq!(world.server("vllm-8001").standing, Standing::Up);
    world.silent("127.0.0.1:8001", REFUSED);
    assert_eq!(world.server("vllm-8001").standing, Standing::Down);
}

#[test]
fn a_refused_request_takes_a_server_out_and_has_it_looked_at() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    world.wait(2_000);
    world.fault("vllm-8001", REFUSED);
    assert_eq!(world.server("vllm-8001").standing, Standing::Down);
    assert_eq!(world.due(), ["127.0.0.1:8001"]);
}

#[test]
fn a_server_that_lists_models_and_fails_at_requests_needs_an_answer_to_be_up() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    for _ in 0..3 {
        world.fault("vllm-8001", BROKEN);
    }
    assert_eq!(world.server("vllm-8001").standing, Standing::Down);
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8001").standing, Standing::Down);
    world.wait(1_000);
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8001").standing, Standing::Trial);
    world.success("vllm-8001");
    assert_eq!(world.server("vllm-8001").standing, Standing::Up);
    assert_eq!(world.server("vllm-8001").last_fault.unwrap().fault, BROKEN);
}

#[test]
fn a_fault_does_what_its_blame_says() {
    let fault = |cause| Fault::new(Stage::Head, cause);
    let check = |cause: Cause, standing: Standing, problem: Option<Problem>, busy: bool, due: bool| {
        let mut world = World::new();
        world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
        world.wait(2_000);
        world.fault("vllm-8001", fault(cause));
        let server = world.server("vllm-8001");
        let shown = (server.standing, server.problem, server.busy_until.is_some(), !world.due().is_empty());
        assert_eq!(shown, (standing, problem, busy, due), "{cause:?}");
    };
    let hint = Some(Duration::from_secs(7));
    check(Cause::Stalled, Standing::Suspect, None, false, true);
    check(Cause::Unresponsive, Standing::Down, None, false, true);
    check(Cause::Refused, Standing::Down, None, false, true);
    check(Cause::Busy { retry_after: hint }, Standing::Up, None, true, false);
    check(Cause::Busy { retry_after: None }, Standing::Up, None, true, false);
    check(Cause::Loading, Standing::Up, Some(Problem::Loading), false, true);
    check(Cause::ModelNotFound, Standing::Up, None, false, true);
    check(Cause::ContextOverflow, Standing::Up, None, false, true);
    check(Cause::NeedsKey, Standing::Up, Some(Problem::NeedsKey), false, true);
    check(Cause::Malformed, Standing::Up, None, false, false);
    check(Cause::Internal, Standing::Up, None, false, false);
}

#[test]
fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    let busy = |secs: Option<u64>| {
        let retry_after = secs.map(Duration::from_secs);
        Fault { stage: Stage::Head, cause: Cause::Busy { retry_after }, status: Some(429) }
    };
    let rest = |world: &World| {
        world.server("vllm-8001").busy_until.map(|it| it.saturating_duration_since(world.now().at).as_secs())
    };
    world.fault("vllm-8001", busy(Some(7)));
    assert_eq!(rest(&world), Some(7));
    world.fault("vllm-8001", busy(None));
    assert_eq!(rest(&world), Some(7), "a shorter wish does not end a longer one");
    world.success("vllm-8001");
    assert_eq!(rest(&world), None);
    for seconds in [1, 2, 4] {
        world.fault("vllm-8001", busy(None));
        world.fault("vllm-8001", busy(None));
        assert_eq!(rest(&world), Some(seconds), "no hint: the rest grows");
        world.wait(seconds * 1000);
    }
    world.fault("vllm-8001", busy(Some(u64::MAX / 1_000_000_000)));
    assert_eq!(rest(&world), Some(3600), "a silly wish is cut");
}

#[test]
fn a_thousand_misfits_are_one_question_a_second() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    let mut asked = 0;
    for _ in 0..1000 {
        world.wait(5);
        assert_eq!(world.fault("vllm-8001", Fault::new(Stage::Head, Cause::ModelNotFound)), 0);
        for _ in world.due() {
            asked += 1;
            world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
        }
    }
    assert_eq!(asked, 5);
}

#[test]
fn a_live_401_outweighs_probes_that_need_no_key_for_a_minute() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("vllm", &["m"]));
    world.fault("vllm-8001", Fault::new(Stage::Head, Cause::NeedsKey));
    world.wait(10_000);
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8001").problem, Some(Problem::NeedsKey));
    world.wait(60_000);
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8001").problem, None);
}

#[test]
fn a_server_that_loads_keeps_the_models_it_had() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("llamacpp", &["m"]));
    world.seen("127.0.0.1:8001", Sighting { problem: Some(Problem::Loading), ..sighting("llamacpp", &[]) });
    assert!(world.server("llamacpp-8001").has("m"));
    world.seen("127.0.0.1:8001", sighting("llamacpp", &[]));
    assert!(!world.server("llamacpp-8001").has("m"));
    assert!(world.registry.knows("m"), "asking for it is no typo");
    assert!(!world.registry.knows("n"));
}

#[test]
fn a_probe_that_meets_a_loading_server_strikes_nobody() {
    let mut world = World::new();
    world.find("127.0.0.1:8001", sighting("llamacpp", &["m"]));
    world.silent("127.0.0.1:8001", LOADING);
    let server = world.server("llamacpp-8001");
    assert_eq!((server.standing, server.problem), (Standing::Up, Some(Problem::Loading)));
}

#[test]
fn one_bad_prompt_does_not_take_every_server_out() {
    let mut world = World::new();
    let ids: Vec<ServerId> = vec!["vllm-1".into(), "vllm-2".into()];
    world.find("127.0.0.1:1", sighting("vllm", &["m"]));
    world.find("127.0.0.1:2", sighting("vllm", &["m"]));
    for _ in 0..3 {
        for id in &ids {
            world.fault(id.as_str(), BROKEN);
        }
        let changes = world.registry.take_back_strikes(&ids, world.now());
        world.take(changes);
    }
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 suspect open", "vllm-2 127.0.0.1:2 suspect open"]);
    world.success("vllm-1");
    world.fault("vllm-2", BROKEN);
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up open", "vllm-2 127.0.0.1:2 down open"]);
}

#[test]
fn being_seen_again_is_told_once_a_minute_and_costs_no_new_snapshot() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &["m"]));
    let before = world.registry.snapshot();
    let mut told = 0;
    for _ in 0..11 {
        world.wait(10_000);
        told += world.seen("127.0.0.1:1", sighting("vllm", &["m"]));
        assert_eq!(world.success("vllm-1"), 0);
        assert_eq!(told == 0, Arc::ptr_eq(&before, &world.registry.snapshot()));
    }
    assert_eq!(told, 1);
}

#[test]
fn views_of_one_loopback_port_are_one_server() {
    let mut world = World::new();
    world.find("127.0.0.1:11434", sighting("ollama", &["a", "b"]));
    world.find("[::1]:11434", sighting("ollama", &["b", "a"]));
    assert_eq!(world.shown(), ["ollama 127.0.0.1:11434 up open"]);
    assert_eq!(world.server("ollama").also_at, [at("[::1]:11434")]);
    world.gone("127.0.0.1:11434");
    assert_eq!(world.shown(), ["ollama [::1]:11434 up open"]);
    world.find("127.0.0.1:11434", sighting("ollama", &["a", "b"]));
    assert_eq!(world.server("ollama").also_at, [at("127.0.0.1:11434")]);
}

#[test]
fn what_differs_is_two_servers() {
    let check = |other: &str, sighting: Sighting| {
        let mut world = World::new();
        world.find("127.0.0.1:11434", self::sighting("ollama", &["a"]));
        world.find(other, sighting);
        assert_eq!(world.shown().len(), 2, "{other}");
    };
    check("[::1]:11434", sighting("ollama", &["a", "b"]));
    check("[::1]:11434", sighting("vllm", &["a"]));
    check("[::1]:11434", Sighting { version: Some("1".into()), ..sighting("ollama", &["a"]) });
    check("[::1]:11435", sighting("ollama", &["a"]));
    check("https://[::1]:11434", sighting("ollama", &["a"]));
    check("http://[::1]:11434/proxy", sighting("ollama", &["a"]));
    check("192.168.1.2:11434", sighting("ollama", &["a"]));
}

#[test]
fn a_view_that_keeps_looking_different_becomes_a_server() {
    let mut world = World::new();
    world.find("127.0.0.1:11434", sighting("ollama", &["a"]));
    world.find("[::1]:11434", sighting("ollama", &["a"]));
    world.seen("[::1]:11434", sighting("ollama", &["a", "b"]));
    world.seen("127.0.0.1:11434", sighting("ollama", &["a", "b"]));
    world.seen("[::1]:11434", sighting("ollama", &["a", "b"]));
    assert_eq!(world.shown().len(), 1, "a pulled model is seen at both");
    for _ in 0..3 {
        world.seen("[::1]:11434", sighting("ollama", &["z"]));
    }
    assert_eq!(world.shown(), ["ollama 127.0.0.1:11434 up open", "ollama-11434 [::1]:11434 up open"]);
    world.seen("[::1]:11434", sighting("ollama", &["a", "b"]));
    assert_eq!(world.shown(), ["ollama 127.0.0.1:11434 up open"]);
}

#[test]
fn an_engine_that_another_server_runs_is_no_server() {
    let blob = || Some("/home/me/.ollama/models/blobs/sha256-12ab".to_owned());
    let engine = || Sighting { engine_of: blob(), ..sighting("llamacpp", &["sha256-12ab"]) };
    let mut world = World::new();
    world.find("127.0.0.1:40123", engine());
    assert_eq!(world.shown(), ["llamacpp-40123 127.0.0.1:40123 up open"], "nobody is known to run it");
    world.find("127.0.0.1:11434", sighting("ollama", &["a"]));
    assert_eq!(world.shown(), ["ollama 127.0.0.1:11434 up open"]);
    world.find("127.0.0.1:40124", engine());
    assert_eq!(world.shown().len(), 1);
    world.gone("127.0.0.1:11434");
    world.wait(1_000);
    assert!(world.due().contains(&"127.0.0.1:40124".to_owned()), "it is looked at again");
    world.seen("127.0.0.1:40124", engine());
    assert_eq!(world.shown()[0], "llamacpp-40124 127.0.0.1:40124 up open");
}

#[test]
fn a_routers_own_list_hides_its_children_but_not_what_a_person_named() {
    let router = || Sighting { engine_ports: vec![40001, 40002, 8080], ..sighting("llamacpp", &["a"]) };
    let mut world = World::new();
    world.find("127.0.0.1:40001", sighting("llamacpp", &["a"]));
    world.hint_as("127.0.0.1:40002", Source::Config, true, None);
    world.find("127.0.0.1:40002", sighting("llamacpp", &["a"]));
    world.find("127.0.0.1:8080", router());
    let ids = |world: &World| {
        world.shown().iter().map(|it| it.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&world), ["llamacpp", "llamacpp-40002"]);
    world.hint_as("127.0.0.1:9", Source::SocketTable, false, None);
    world.due();
    world.seen("127.0.0.1:9", Sighting { engine_ports: vec![8080], ..sighting("vllm", &["x"]) });
    assert_eq!(ids(&world), ["llamacpp", "llamacpp-40002", "vllm-9"], "a stranger hides nobody");
}

#[test]
fn another_kind_at_the_same_address_is_another_server() {
    let mut world = World::new();
    world.find("127.0.0.1:8080", sighting("llamacpp", &["m"]));
    world.find("127.0.0.1:8080", sighting("vllm", &["m"]));
    assert_eq!(world.shown(), ["vllm-8080 127.0.0.1:8080 up open"]);
    world.find("127.0.0.1:8080", sighting("llamacpp", &["m"]));
    assert_eq!(world.shown(), ["llamacpp 127.0.0.1:8080 up open"], "the old one has its old id");
}

#[test]
fn a_port_that_a_server_left_is_not_asked_while_the_table_is_watched() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &["m"]));
    world.gone("127.0.0.1:1");
    assert_eq!(world.registry.poll_timeout(), None);
    world.wait(100_000);
    world.fault("vllm-1", REFUSED);
    assert!(world.due().is_empty(), "perhaps a debugger waits there for its one connection");
    let mut after = restart(&world);
    after.hint("127.0.0.1:2");
    assert_eq!(after.due(), ["127.0.0.1:1", "127.0.0.1:2"], "after a restart nobody knows yet");
    after.silent("127.0.0.1:1", REFUSED);
    after.foreign("127.0.0.1:2");
    assert_eq!(after.registry.poll_timeout(), None);
}

#[test]
fn an_address_that_a_person_named_is_asked_again_and_again() {
    let mut world = World::new();
    world.hint_as("127.0.0.1:1", Source::Config, true, None);
    world.find("127.0.0.1:1", sighting("vllm", &["m"]));
    world.gone("127.0.0.1:1");
    assert_eq!(pauses(&mut world, "127.0.0.1:1", REFUSED)[..4], [0, 1, 2, 4]);
}

#[test]
fn something_else_at_its_address_gets_no_trial() {
    let mut world = World::new();
    world.find("127.0.0.1:8080", sighting("vllm", &["m"]));
    world.foreign("127.0.0.1:8080");
    let server = world.server("vllm-8080");
    assert_eq!((server.standing, server.trial_at), (Standing::Down, None));
    world.wait(100_000);
    assert!(world.due().is_empty());
    world.find("127.0.0.1:8080", sighting("vllm", &["m"]));
    assert_eq!(world.server("vllm-8080").standing, Standing::Up);
}

#[test]
fn trust_and_switches_decide_admission() {
    let check = |text: &str, hints: &[(Source, bool)], enabled: bool, expected: Admission| {
        let mut world = World::new();
        for (source, trusted) in hints {
            let settings = ServerSettings { enabled, name: Some("box".into()), ..Default::default() };
            let settings = (*source == Source::Config).then_some(settings);
            world.hint_as(text, *source, *trusted, settings);
        }
        world.due();
        world.seen(text, sighting("vllm", &[]));
        let admissions: Vec<Admission> =
            world.registry.snapshot().servers.iter().map(|it| it.admission).collect();
        assert_eq!(admissions, [expected], "{text} {hints:?}");
    };
    use Source::{Added, Config, Environment, Port, SocketTable};
    check("127.0.0.1:1", &[(SocketTable, true)], true, Admission::Open);
    check("127.0.0.1:1", &[(SocketTable, false)], true, Admission::Untrusted);
    check("127.0.0.1:1", &[(Port, true)], true, Admission::Open);
    check("127.0.0.1:1", &[(Port, true), (SocketTable, false)], true, Admission::Untrusted);
    check("127.0.0.1:1", &[(SocketTable, false), (Config, true)], true, Admission::Open);
    check("127.0.0.1:1", &[(SocketTable, true), (Config, true)], false, Admission::Off);
    check("127.0.0.1:1", &[(Added, true), (Port, false)], true, Admission::Untrusted);
    check("unix:/a.sock", &[(Added, true)], true, Admission::Open);
    check("unix:/a.sock", &[(Added, false)], true, Admission::Untrusted);
    check("192.168.1.2:1", &[(Added, false)], true, Admission::Untrusted);
    check("192.168.1.2:1", &[(Added, true)], true, Admission::Open);
    check("192.168.1.2:1", &[(Added, false), (Environment, true)], true, Admission::Open);
    check("192.168.1.2:1", &[(Config, true)], true, Admission::Open);
}

#[test]
fn the_owner_of_an_added_address_decides_where_no_table_does() {
    let at = Endpoint::parse("127.0.0.1:1").unwrap();
    for watched in [false, true] {
        let mut world = World::new();
        if watched {
            world.hint("127.0.0.1:9");
        }
        world.hint_as("127.0.0.1:1", Source::Added, false, None);
        assert!(world.registry.wants_owner(&at));
        world.due();
        for (ours, admission) in [(true, "open"), (false, "untrusted")] {
            let changes = world.registry.on_owner(&at, ours, world.now());
            world.take(changes);
            world.seen("127.0.0.1:1", sighting("vllm", &[]));
            assert_eq!(world.shown(), [format!("vllm-1 127.0.0.1:1 up {admission}")]);
        }
        world.hint_as("127.0.0.1:1", Source::SocketTable, true, None);
        assert!(!world.registry.wants_owner(&at));
        assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up open"]);
    }
    let mut world = World::new();
    world.hint_as("192.168.1.2:1", Source::Added, false, None);
    assert!(!world.registry.wants_owner(&Endpoint::parse("192.168.1.2:1").unwrap()));
}

#[test]
fn a_usual_port_vouches_for_nobody_after_the_table_said_otherwise() {
    let mut world = World::new();
    world.hint_as("127.0.0.1:1", Source::Port, true, None);
    world.hint_as("127.0.0.1:1", Source::SocketTable, false, None);
    world.due();
    world.seen("127.0.0.1:1", sighting("vllm", &[]));
    world.gone("127.0.0.1:1");
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 down untrusted"]);
    world.hint("127.0.0.1:1");
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 down open"], "another owner");
}

#[test]
fn settings_of_localhost_are_those_of_its_ipv4_address() {
    let mut world = World::new();
    let settings = ServerSettings {
        name: Some("Big Box".into()),
        priority: -1,
        limit: Some(4),
        zone: Some(Zone::Lan),
        ..Default::default()
    };
    world.hint_as("localhost:8000", Source::Config, true, Some(settings));
    world.find("127.0.0.1:8000", sighting("vllm", &["m"]));
    world.seen("localhost:8000", sighting("vllm", &["m"]));
    let server = world.server("big-box");
    assert_eq!((server.priority, server.limit, server.zone), (-1, Some(4), Zone::Lan));
    assert_eq!(server.also_at, [at("localhost:8000")]);
    assert_eq!(world.server("Big Box").id, "big-box", "its name finds it too");
}

#[test]
fn draining_ends_by_resuming() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    let changes = world.registry.drain("vllm-1", world.now()).unwrap();
    assert_eq!(world.take(changes), 1);
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up draining"]);
    world.seen("127.0.0.1:1", sighting("vllm", &["m"]));
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up draining"]);
    let changes = world.registry.resume("vllm-1", world.now()).unwrap();
    world.take(changes);
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up open"]);
    assert_eq!(world.registry.drain("nobody", world.now()), None);
}

#[test]
fn a_forgotten_server_stays_away_until_a_new_listener_and_then_has_its_id() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    let changes = world.registry.forget("vllm-1", world.now()).unwrap();
    world.take(changes);
    world.registry.probe_all(world.now());
    world.wait(100_000);
    assert!(world.due().is_empty());
    assert!(world.shown().is_empty());
    world.gone("127.0.0.1:1");
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    assert_eq!(world.shown(), ["vllm-1 127.0.0.1:1 up open"]);
}

#[test]
fn an_id_is_never_given_to_another_address() {
    let mut world = World::new();
    world.find("192.168.1.2:8001", sighting("vllm", &[]));
    let changes = world.registry.forget("vllm-8001", world.now()).unwrap();
    world.take(changes);
    world.find("127.0.0.1:8001", sighting("vllm", &[]));
    assert_eq!(world.shown(), ["vllm-8001-2 127.0.0.1:8001 up open"]);
}

#[test]
fn probing_by_hand_asks_at_once() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    assert_eq!(world.registry.probe("vllm-1", world.now()), Some(Vec::new()));
    assert_eq!(world.due(), ["127.0.0.1:1"]);
    assert_eq!(world.registry.probe("nobody", world.now()), None);
}

#[test]
fn servers_that_nobody_named_are_forgotten_after_a_month() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &[]));
    world.hint_as("127.0.0.1:2", Source::Config, true, None);
    world.find("127.0.0.1:2", sighting("vllm", &[]));
    world.gone("127.0.0.1:1");
    world.gone("127.0.0.1:2");
    world.wait(29 * 24 * 3_600_000);
    assert!(world.registry.tidy(world.now()).is_empty());
    world.wait(2 * 24 * 3_600_000);
    let changes = world.registry.tidy(world.now());
    world.take(changes);
    assert_eq!(world.shown(), ["vllm-2 127.0.0.1:2 down open"]);
}

/// The registry as it comes back after a restart, through the bytes of a store.
fn restart(world: &World) -> World {
    let mut after = World::new();
    for change in world.registry.replicate() {
        let bytes = serde_json::to_vec(&change).unwrap();
        after.registry.apply(serde_json::from_slice(&bytes).unwrap(), after.now());
    }
    after.fold = (*after.registry.snapshot()).clone();
    after
}

#[test]
fn after_a_restart_servers_are_suspect_usable_and_due() {
    let mut world = World::new();
    world.find("127.0.0.1:1", sighting("vllm", &["m"]));
    world.find("127.0.0.1:2", sighting("vllm", &["m"]));
    world.find("127.0.0.1:3", sighting("vllm", &["m"]));
    world.hint_as("127.0.0.1:4", Source::SocketTable, false, None);
    world.due();
    world.seen("127.0.0.1:4", sighting("vllm", &["m"]));
    world.hint_as("192.168.1.2:5", Source::Config, true, None);
    world.due();
    world.seen("192.168.1.2:5", sighting("vllm", &["m"]));
    world.registry.drain("vllm-2", world.now()).unwrap();
    world.registry.forget("vllm-3", world.now()).unwrap();
    let mut after = restart(&world);
    let expected = [
        "vllm-1 127.0.0.1:1 suspect open",
        "vllm-2 127.0.0.1:2 suspect draining",
        "vllm-4 127.0.0.1:4 suspect untrusted",
        "vllm-5 192.168.1.2:5 suspect untrusted",
    ];
    assert_eq!(after.shown(), expected, "only the configuration speaks for another machine");
    assert_eq!(after.due().len(), 4);
    after.seen("127.0.0.1:1", sighting("vllm", &["m"]));
    after.hint_as("192.168.1.2:5", Source::Config, true, None);
    assert_eq!(after.server("vllm-1").standing, Standing::Up);
    assert_eq!(after.server("vllm-5").admission, Admission::Open);
    after.find("192.168.1.2:3", sighting("vllm", &["m"]));
    assert!(after.registry.server("vllm-3").is_none(), "the id of a forgotten server stays its own");
    after.find("127.0.0.1:3", sighting("vllm", &["m"]));
    assert_eq!(after.server("vllm-3").endpoint, at("127.0.0.1:3"));
}

#[test]
fn a_restart_trusts_no_address_that_was_not_trusted() {
    let mut world = World::new();
    let ollama = || sighting("ollama", &["m"]);
    world.find("127.0.0.1:11434", ollama());
    world.find("[::1]:11434", ollama());
    world.hint_as("[::1]:11434", Source::SocketTable, false, None);
    let off = ServerSettings { enabled: false, ..Default::default() };
    world.hint_as("127.0.0.1:8000", Source::SocketTable, false, None);
    world.hint_as("127.0.0.1:8000", Source::Config, true, Some(off));
    world.due();
    world.seen("127.0.0.1:8000", sighting("vllm", &["m"]));
    assert_eq!(world.server("ollama").also_at, [at("[::1]:11434")]);
    assert_eq!(world.server("vllm").admission, Admission::Off);
    let after = restart(&world);
    assert!(after.registry.trusts(&at("127.0.0.1:11434")));
    assert!(!after.registry.trusts(&at("[::1]:11434")), "another user's, though the server is known there");
    assert!(!after.registry.trusts(&at("127.0.0.1:8000")), "only the configuration spoke for it");
}
