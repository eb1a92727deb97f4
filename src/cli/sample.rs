//! Values that the tests of pages draw.

use std::{sync::Arc, time::Duration};

use crate::{
    fault::{Cause, Fault, Stage},
    generate::{
        Attempt, Caller, Candidate, Ending, Gaps, Load, Operation, Outcome, Reading, Reason, Substitution,
        Usage,
    },
    registry::{Admission, LastFault, Server, Standing},
    server::{Bounds, Capability, Endpoint, Model, Problem, Source, Zone},
    wire::{
        CloudView, ConfigView, GpuView, Group, HardwareView, Health, LiveFigures, ModelCounts, ModelView,
        Percentiles, PostgresView, RequestCounts, RequestView, ServerCounts, ServerView, Setting,
        SettingSource, Spread, StatsRow, Status, StoreView, models as views,
    },
};

pub(super) const NOW_MS: u64 = 1_772_366_400_000;

fn server(id: &str, kind: &str, url: &str, models: Vec<Model>) -> Server {
    Server {
        id: id.into(),
        kind: kind.into(),
        name: None,
        version: Some("0.12.6".into()),
        endpoint: Endpoint::parse(url).unwrap(),
        also_at: Vec::new(),
        zone: Zone::Machine,
        bounds: Bounds::default(),
        word: None,
        standing: Standing::Up,
        admission: Admission::Open,
        problem: None,
        simulated: false,
        found_by: [Source::Port].into(),
        announced_as: [].into(),
        instance: None,
        models: models.into_iter().map(Arc::new).collect(),
        limit: None,
        priority: 0,
        weight: None,
        last_seen_ms: Some(NOW_MS - 1_000),
        since_ms: NOW_MS - 3_600_000,
        last_fault: None,
        lacks: Vec::new(),
        busy_until: None,
        trial_at: None,
    }
}

fn registry() -> Vec<Arc<Server>> {
    let mut qwen = Model::named("qwen3:8b");
    qwen.family = Some("qwen3".into());
    qwen.parameters = Some("8.2B".into());
    qwen.quantization = Some("Q4_K_M".into());
    qwen.context_length = Some(40_960);
    qwen.loaded_context_length = Some(8_192);
    qwen.capabilities = [Capability::Chat, Capability::Tools, Capability::Thinking].into();
    qwen.loaded = Some(true);
    qwen.size_bytes = Some(5_225_387_923);
    qwen.memory_bytes = Some(6_100_000_000);
    qwen.expires = Some("2026-03-01T12:04:30Z".into());
    let mut hostile = Model::named("evil\u{1b}[2J\u{202e}name");
    hostile.loaded = Some(false);
    let mut long = Model::named("org/a-model-with-a-name-that-never-seems-to-end-instruct-2507-fp8");
    long.aliases = vec!["long".into()];
    long.context_length = Some(262_144);
    let ollama = server("ollama", "ollama", "http://127.0.0.1:11434", vec![hostile, qwen.clone()]);
    let down = Server {
        standing: Standing::Down,
        last_fault: Some(LastFault {
            fault: Fault::new(Stage::Connect, Cause::Refused),
            at_ms: NOW_MS - 125_000,
        }),
        ..server(
            "llamacpp-9999",
            "llamacpp",
            "unix:/run/user/1000/llama.sock",
            vec![Model::named("gpt-oss-20b")],
        )
    };
    qwen.loaded = Some(false);
    let vllm = Server {
        limit: Some(256),
        simulated: true,
        ..server("vllm-8001", "vllm", "http://127.0.0.1:8001", vec![long, qwen])
    };
    let locked = Server {
        problem: Some(Problem::NeedsKey),
        version: None,
        ..server(
            "openai-compatible-4000",
            "openai-compatible",
            "https://gateway.example.org:4000/llm",
            Vec::new(),
        )
    };
    let others = Server {
        admission: Admission::Untrusted,
        ..server("lmstudio", "lmstudio", "http://127.0.0.1:1234", Vec::new())
    };
    vec![ollama, down, vllm, locked, others].into_iter().map(Arc::new).collect()
}

pub(super) fn servers() -> Vec<ServerView> {
    let live = LiveFigures {
        in_flight: 3,
        first_token_ms: Percentiles { p50: Some(182.4), p95: Some(1_240.0) },
        success_rate: Some(0.9984),
        ..LiveFigures::default()
    };
    let registry = registry();
    let figures = [live].into_iter().chain(std::iter::repeat(LiveFigures::default()));
    registry.iter().zip(figures).map(|(server, live)| ServerView::of(server, &live)).collect()
}

pub(super) fn models() -> Vec<ModelView> {
    let snapshot = crate::registry::Snapshot { servers: registry(), ..Default::default() };
    let mut models = views(&snapshot, &[("fast".to_owned(), "qwen3:8b".to_owned())].into());
    models.sort_by_key(|it| it.servers.len());
    models.rotate_left(1);
    models
}

pub(super) fn status() -> Status {
    let snapshot = crate::registry::Snapshot { servers: registry(), ..Default::default() };
    Status {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 273_605,
        socket: "/run/user/1000/lovable/lovabled.sock".into(),
        listen: Some("127.0.0.1:11435".into()),
        ready: true,
        health: Health::Degraded,
        reasons: vec!["llamacpp-9999 is down: it refused the connection".into()],
        servers: ServerCounts::of(&snapshot),
        models: ModelCounts::of(&snapshot),
        requests: RequestCounts {
            in_flight: 3,
            total: 1_204,
            delivered: 1_190,
            exhausted: 2,
            caller_gone: 12,
            attempts_failed_over: 7,
            ..RequestCounts::default()
        },
        store: StoreView {
            path: Some("/home/ada/.local/state/lovable".into()),
            bytes: Some(1_234_567),
            ok: true,
            dropped: 0,
        },
        tracking: true,
        postgres: Some(PostgresView {
            database: "db.example:5432/team".into(),
            ok: true,
            waiting: 12,
            refused: 0,
            deleted_unsent: false,
            problem: None,
            since: None,
        }),
        otlp: None,
        lookups: Vec::new(),
        cloud: Some(CloudView { spent_today_usd: 0.734, daily_usd: Some(5.0) }),
        hardware: Some(HardwareView {
            processors: Some(8),
            processor_percent: Some(43.7),
            memory_total_bytes: Some(34_359_738_368),
            memory_used_bytes: Some(12_884_901_888),
            gpus: vec![
                GpuView {
                    name: "NVIDIA GeForce RTX 4090".to_owned(),
                    vendor: "nvidia".to_owned(),
                    busy_percent: Some(87.0),
                    memory_total_bytes: Some(25_757_220_864),
                    memory_used_bytes: Some(19_434_635_264),
                    temperature_celsius: Some(66.0),
                    power_watts: Some(311.4),
                },
                GpuView {
                    name: "AMD".to_owned(),
                    vendor: "amd".to_owned(),
                    busy_percent: None,
                    memory_total_bytes: None,
                    memory_used_bytes: None,
                    temperature_celsius: None,
                    power_watts: None,
                },
            ],
        }),
    }
}

pub(super) fn nothing_found() -> Status {
    Status {
        ready: false,
        health: Health::Down,
        reasons: vec!["no model server found".into()],
        servers: ServerCounts::default(),
        models: ModelCounts::default(),
        requests: RequestCounts::default(),
        listen: None,
        tracking: false,
        lookups: Vec::new(),
        store: StoreView { path: None, bytes: None, ok: false, dropped: 4 },
        cloud: None,
        postgres: None,
        ..status()
    }
}

pub(super) fn stats() -> Vec<StatsRow> {
    let spread = |p50: f64, p95: f64| Spread { mean: Some(p50), p50: Some(p50), p95: Some(p95), p99: None };
    vec![
        StatsRow {
            group: Some(Group::Server(Some("ollama".into()))),
            requests: 1_190,
            delivered: 1_186,
            exhausted: 1,
            cut_short: 3,
            success_rate: Some(0.9966),
            first_token_ms: spread(182.4, 1_240.0),
            total_ms: spread(4_310.0, 12_800.0),
            tokens_per_second: Percentiles { p50: Some(41.6), p95: Some(55.0) },
            input_tokens: Some(1_204_551),
            output_tokens: Some(402_118),
            cost_usd: Some(1.25),
            hardware: Some(load().into()),
            ..StatsRow::default()
        },
        StatsRow { group: Some(Group::Server(Some("vllm-8001".into()))), requests: 1, ..StatsRow::default() },
    ]
}

pub(super) fn request() -> RequestView {
    let attempt = Attempt {
        server: "llamacpp-9999".into(),
        kind: "llamacpp".into(),
        model: "qwen3:8b".into(),
        candidates: vec![
            Candidate {
                server: "llamacpp-9999".into(),
                model: "qwen3:8b".into(),
                excluded: None,
                behind: None,
            },
            Candidate {
                server: "ollama".into(),
                model: "qwen3:8b".into(),
                excluded: None,
                behind: Some("the model is not in memory there".into()),
            },
            Candidate {
                server: "vllm-8001".into(),
                model: "Qwen/Qwen3-8B".into(),
                excluded: Some("is draining".into()),
                behind: None,
            },
        ],
        after: Duration::from_millis(1),
        first_token: None,
        total: Duration::from_millis(2),
        requests: 1,
        fault: Some(Fault::new(Stage::Connect, Cause::Refused)),
        usage: Usage::default(),
        cost: None,
    };
    let second = Attempt {
        server: "ollama".into(),
        fault: None,
        after: Duration::from_millis(3),
        first_token: Some(Duration::from_millis(177)),
        total: Duration::from_millis(2_397),
        candidates: vec![Candidate {
            server: "ollama".into(),
            model: "qwen3:8b".into(),
            excluded: None,
            behind: None,
        }],
        ..attempt.clone()
    };
    RequestView::from(&Outcome {
        request_id: "req-7".into(),
        at_ms: NOW_MS,
        caller: Caller { program: Some("curl".into()), uid: Some(1000) },
        dialect: "openai".into(),
        operation: Operation::Chat,
        asked: "qwen3:8b".into(),
        stream: true,
        ending: Ending::Delivered,
        status: 200,
        failure: None,
        callers_fault: false,
        attempts: vec![attempt, second],
        candidates: Vec::new(),
        zone: Some(Zone::Machine),
        substituted: Substitution::No,
        queued: Duration::from_millis(40),
        first_token: Some(Duration::from_millis(180)),
        gaps: Gaps::default(),
        total: Duration::from_millis(2_400),
        usage: Usage::default(),
        usage_estimated: false,
        reason: Some(Reason::Stop),
        sent: 4_096,
        load: Some(load()),
    })
}

fn load() -> Load {
    let reading = |processor, gpu| Reading {
        processor: Some(processor),
        memory: Some(12 << 30),
        gpu: Some(gpu),
        temperature: Some(661),
        ..Reading::default()
    };
    Load { start: reading(34, 20), peak: reading(437, 985) }
}

pub(super) fn config() -> ConfigView {
    let setting = |key: &str, value: serde_json::Value, from, at: Option<&str>| Setting {
        key: key.into(),
        value,
        from,
        at: at.map(str::to_owned),
    };
    ConfigView {
        file: Some("/home/ada/.config/lovable/config.toml".into()),
        warnings: vec!["`aliases.fast` stands for a model that nobody has".into()],
        settings: vec![
            setting(
                "aliases.fast",
                "qwen3:8b".into(),
                SettingSource::File,
                Some("/home/ada/.config/lovable/config.toml:3"),
            ),
            setting("patience.connect", "2s".into(), SettingSource::Default, None),
            setting(
                "listen.address",
                "127.0.0.1:11435".into(),
                SettingSource::Environment,
                Some("LOVABLE_LISTEN"),
            ),
            setting("limits.body", serde_json::Value::Null, SettingSource::Default, None),
        ],
    }
}
