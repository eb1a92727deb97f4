use std::time::{Duration, Instant};

use super::*;
use crate::{
    fault::{Cause, Stage},
    server::Model,
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
        Self { registry, fold: Snapshot::default(), start: Instant::now(), ms: 0 }
    }

    fn now(&self) -> Now {
        Now { at: self.start + Duration::from_millis(self.ms), wall_ms: 1_700_000_000_000 + self.ms }
    }

    fn wait(&mut self, ms: u64) {
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
fn a_hint_makes_an_address_due_and_a_reply_makes_a_server() {
    let mut world = World::new();
    world.hint("127.0.0.1:8001");
    assert!(world.shown().is_empty());
    assert_eq!(world.due(), ["127.0.0.1:8001"]);
    assert!(world.due().is_empty(), "it is being asked");
    world.seen("127.0.0.1:8001", sighting("vllm", &["m"]));
    assert_eq!(world.shown(), ["vllm-8001 127.0.0.1:8001 up open"]);
}
