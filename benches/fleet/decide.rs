//! Deciding, and keeping the registry, without a daemon around it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use lovable::{
    generate::{Head, Length, Needs, Operation},
    registry::{Hint, Now, Registry, Settings, Snapshot},
    route::{self, Ask, Decision, Fallback, Fidelity, Readings},
    server::{Endpoint, Model, ServerId, Sighting, Source},
};

use crate::MODELS;

/// How long each thing is done over and over.
const FOR: Duration = Duration::from_millis(300);

fn endpoint(number: usize) -> Endpoint {
    Endpoint::tcp([10, 1, (number / 250) as u8, (number % 250) as u8 + 1].into(), 8000)
}

/// A server with models of its own, and one that all have.
fn sighting(number: usize) -> Sighting {
    let own = (0..MODELS).map(|it| Model::named(format!("maker/model-{number}-{it}-7b-instruct")));
    Sighting { models: own.chain([Model::named("shared-8b")]).collect(), ..Sighting::of("vllm") }
}

pub(crate) fn measure(servers: usize) -> Vec<(String, String)> {
    let begun = Instant::now();
    let ms = Cell::new(0);
    let now = || Now { at: begun + Duration::from_millis(ms.get()), wall_ms: 1_700_000_000_000 + ms.get() };
    let mut registry = Registry::new(Settings::default());
    let found = Instant::now();
    for number in 0..servers {
        let hint = Hint { endpoint: endpoint(number), source: Source::Config, trusted: true, settings: None };
        registry.on_hint(hint, now());
    }
    while registry.snapshot().servers.len() < servers {
        registry.due(now());
        ms.set(ms.get() + 1000);
        for number in 0..servers {
            registry.on_seen(&endpoint(number), sighting(number), now());
        }
    }
    let found = found.elapsed();
    let snapshot = registry.snapshot();
    let readings = Readings::default();
    let mut salt = 0u64;
    let mut choose = |model: &str, busy: u32| {
        per_time(|| {
            salt = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let decision = decide(&snapshot, &readings, model, busy, salt);
            std::hint::black_box(decision);
        })
    };
    let last = format!("maker/model-{}-{}-7b-instruct", servers - 1, MODELS - 1);
    let mut rows = vec![
        ("to choose, of all that have a model".to_owned(), choose("shared-8b", 0)),
        ("to choose, of one that has a model".to_owned(), choose(&last, 0)),
        ("to choose, where all that have it are full".to_owned(), choose("shared-8b", 9)),
        ("to find that nobody has a model".to_owned(), choose("maker/model-x-7b", 0)),
    ];
    let mut number = 0;
    let probe = per_time(|| {
        ms.set(ms.get() + 1);
        number = (number + 7) % servers;
        registry.due(now());
        registry.on_seen(&endpoint(number), sighting(number), now());
        std::hint::black_box(registry.poll_timeout());
    });
    rows.push(("to file an answer that changes nothing".to_owned(), probe));
    let change = per_time(|| {
        ms.set(ms.get() + 1);
        number = (number + 7) % servers;
        let mut sighting = sighting(number);
        sighting.version = Some(ms.get().to_string());
        registry.on_seen(&endpoint(number), sighting, now());
        std::hint::black_box(registry.poll_timeout());
    });
    rows.push(("to file one that changes something".to_owned(), change));
    rows.push((
        "to file all of them the first time".to_owned(),
        format!("{:.1} ms", found.as_secs_f64() * 1e3),
    ));
    rows
}

fn decide(snapshot: &Snapshot, readings: &Readings, model: &str, busy: u32, salt: u64) -> Decision {
    let head = Head {
        operation: Operation::Chat,
        model: model.into(),
        stream: true,
        max_tokens: None,
        needs: Needs::default(),
    };
    let none = BTreeMap::new();
    let no_chains = BTreeMap::new();
    let in_flight = |_: &ServerId| busy;
    let ask = Ask {
        head: &head,
        readings,
        aliases: &none,
        chains: &no_chains,
        fallback: Fallback::Same,
        via: &[],
        widened: false,
        tried: &[],
        first: None,
        first_model: None,
        in_flight: &in_flight,
        uses_others: &|_, _| false,
        full: &|_| busy > 4,
        home: None,
        said: &|_| Ok(Fidelity::Own),
        gpu_memory: None,
        cloud: None,
        bytes: 400,
        length: &|| Some(Length::default()),
        now: Instant::now(),
        salt,
    };
    route::choose(snapshot, &ask).0
}

/// How long something takes, on average.
fn per_time(mut act: impl FnMut()) -> String {
    let begun = Instant::now();
    let mut times = 0u32;
    while begun.elapsed() < FOR {
        act();
        times += 1;
    }
    format!("{:.1} us", begun.elapsed().as_secs_f64() * 1e6 / f64::from(times))
}
