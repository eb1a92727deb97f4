//! What becomes of a server that fails fast, beside one that answers: the registry, the
//! probes and the choice together, in a time of their own.

use super::*;
use crate::{
    fault::{Cause, Fault, Stage},
    registry::{Hint, Now, Registry, ServerSettings, Settings},
    server::{Sighting, Source},
};

fn at(server: &str) -> Endpoint {
    Endpoint::parse(if server == "bad" { "127.0.0.1:1001" } else { "127.0.0.1:1002" }).unwrap()
}

/// Sends 10,000 requests, so many a second, to a server that fails like this and is asked
/// first by priority, and to one that answers; both answer probes. Says how many the bad one got.
fn share(fault: Fault, per_second: u64) -> usize {
    let start = Instant::now();
    let mut registry = Registry::new(Settings::default());
    let now = |ms: u64| Now { at: start + Duration::from_millis(ms), wall_ms: 1_700_000_000_000 + ms };
    for (server, priority) in [("bad", -1), ("good", 0)] {
        let settings = ServerSettings { name: Some(server.into()), priority, ..ServerSettings::default() };
        let hint =
            Hint { endpoint: at(server), source: Source::Config, trusted: true, settings: Some(settings) };
        registry.on_hint(hint, now(0));
    }
    let sighting = || Sighting { models: vec![Model::named("m")], ..Sighting::of("vllm") };
    let mut world = with(Vec::new());
    let mut asked = 0;
    for request in 0..10_000 {
        let now = now(1 + request * 1000 / per_second);
        for endpoint in registry.due(now) {
            registry.on_seen(&endpoint, sighting(), now);
        }
        world.tried.clear();
        (world.now, world.salt) = (now.at, request.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        loop {
            world.snapshot = (*registry.snapshot()).clone();
            let Decision::Server(choice) = world.choose().0 else {
                panic!("one answers: {}", world.decide())
            };
            let id = choice.server.id.clone();
            if choice.server.name.as_deref() == Some("good") {
                registry.on_success(&id, now);
                break;
            }
            asked += 1;
            registry.on_fault(&id, &fault, now, 0.5);
            registry.on_lack(&id, &choice.model, (world.head.operation, world.head.needs), &fault, now);
            world.tried.push(id);
        }
    }
    asked
}

#[test]
fn a_server_that_fails_fast_gets_less_than_one_request_in_a_hundred() {
    let fault = |stage, cause, status| Fault { stage, cause, status };
    for (fault, rates) in [
        (fault(Stage::Head, Cause::Status, Some(500)), [10, 100, 1000]),
        (fault(Stage::Head, Cause::Reset, None), [10, 100, 1000]),
        (fault(Stage::Head, Cause::Empty, Some(200)), [10, 100, 1000]),
        (fault(Stage::Content, Cause::EarlyEnd, Some(200)), [10, 100, 1000]),
        (fault(Stage::FirstToken, Cause::ErrorEvent, Some(200)), [10, 100, 1000]),
        (fault(Stage::Head, Cause::Busy { retry_after: None }, Some(429)), [10, 100, 1000]),
        (fault(Stage::Head, Cause::NeedsKey, Some(401)), [10, 100, 1000]),
    ] {
        for rate in rates {
            let asked = share(fault, rate);
            assert!((1..100).contains(&asked), "{fault}: {asked} of 10,000 at {rate} a second");
        }
    }
}

#[test]
fn nor_does_one_that_lacks_what_it_lists() {
    for cause in [Cause::ModelNotFound, Cause::Forbidden, Cause::Unsupported] {
        let asked = share(Fault { stage: Stage::Head, cause, status: Some(404) }, 100);
        assert!((1..100).contains(&asked), "{cause:?}: {asked} of 10,000");
    }
}
