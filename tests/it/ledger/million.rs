//! A million outcomes: what one costs, what they take, how soon they are summed up, and whether
//! other programs read of them what the daemon says.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use lovable::{
    fault::{Cause, Fault, Stage},
    generate::{
        Attempt, Caller, Candidate, Cost, Ending, Gaps, Operation, Outcome, Reason, Substitution, Usage, Usd,
    },
    housekeeping::{Furnishing, Housekeeping, Settings, Span, Stored, now, restore, wall_ms},
    ledger::Filter,
    registry,
    server::Zone,
    stats::{By, Query},
    store::Store,
};
use serde_json::Value;

use super::{stats, sum, text};
use crate::{
    daemon::Options,
    proof::{Table, is_full, times},
};

const DAY_MS: u64 = 86_400_000;
/// Enough for all of them.
const MOST: u64 = 4 << 30;
/// So many come between two saves, which the queue holds.
const AT_ONCE: usize = 4_000;
const SERVERS: [&str; 4] = ["vllm-8001", "ollama", "llamacpp-8080", "lmstudio"];
const MODELS: [&str; 3] = ["Qwen/Qwen3-8B", "llama3.2:3b", "openai/gpt-oss-20b"];
const PROGRAMS: [&str; 3] = ["OpenAI/Python", "curl", "node"];

fn house(dir: &Path, tracking: bool) -> Arc<Housekeeping> {
    let opened = if tracking { Store::open_with_rows(dir, MOST) } else { Store::open(dir) };
    let (store, stored) = opened.unwrap();
    let (registry, figures) = restore(&store, &stored, registry::Settings::default(), now());
    Housekeeping::new(Furnishing {
        instance: String::new(),
        registry,
        figures,
        store,
        spent: Stored::Lost,
        ours: Box::new(|_| false),
        owner_of: Box::new(|_| None),
        settings: Settings { tracking, queue: 10, ..Settings::default() },
    })
}

/// An outcome as they are on a machine with a few servers, one in ten of which took two.
fn outcome(number: u64, at_ms: u64) -> Outcome {
    let mut luck = fastrand::Rng::with_seed(number);
    let mut gaps = Gaps::default();
    (0..100).for_each(|_| gaps.add_time(Duration::from_micros(luck.u64(8_000..30_000))));
    let micros = |it: u64| Duration::from_micros(it);
    let at = luck.usize(..4);
    let model = at % 3;
    let tokens = luck.u64(20..800);
    let usage =
        Usage { input_tokens: Some(luck.u64(10..4_000)), output_tokens: Some(tokens), ..Usage::default() };
    let candidates: Vec<_> = (0..3)
        .map(|place| Candidate {
            server: SERVERS[(at + place) % 4].into(),
            model: MODELS[model].into(),
            excluded: None,
            behind: (place > 0).then(|| "the model is not in memory there".into()),
        })
        .collect();
    let (first, total) = (luck.u64(50_000..900_000), luck.u64(1_000_000..20_000_000));
    let good = Attempt {
        server: SERVERS[at].into(),
        kind: "vllm".into(),
        model: MODELS[model].into(),
        candidates,
        after: micros(300),
        first_token: Some(micros(first)),
        total: micros(total),
        requests: 1,
        fault: None,
        usage,
        cost: (at == 3).then(|| Cost { usd: Usd::from_nanos(luck.u64(1_000..90_000)), at_most: false }),
    };
    let bad = Attempt {
        server: SERVERS[(at + 1) % 4].into(),
        first_token: None,
        total: micros(900),
        fault: Some(Fault::new(Stage::Connect, Cause::Refused)),
        usage: Usage::default(),
        cost: None,
        ..good.clone()
    };
    let is_whole = luck.u8(..50) > 0;
    Outcome {
        request_id: format!("req-{number:016x}"),
        at_ms,
        caller: Caller { program: Some(PROGRAMS[luck.usize(..3)].to_owned()), uid: Some(1000) },
        dialect: "openai".into(),
        operation: Operation::Chat,
        asked: MODELS[model].to_owned(),
        stream: luck.bool(),
        ending: if is_whole { Ending::Delivered } else { Ending::CutShort },
        status: 200,
        failure: (!is_whole).then(|| "all_servers_failed".into()),
        callers_fault: false,
        attempts: if luck.u8(..10) == 0 { vec![bad, good] } else { vec![good] },
        candidates: Vec::new(),
        zone: Some(Zone::Machine),
        substituted: Substitution::No,
        queued: micros(luck.u64(..3) / 2 * 40_000),
        first_token: Some(micros(first + 400)),
        gaps,
        total: micros(total + 500),
        usage,
        usage_estimated: false,
        reason: Some(Reason::Stop),
        sent: tokens * 190,
        load: None,
    }
}

/// What this process has in memory, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What this thread has used of the processor.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// What is in a directory, in MiB.
fn size(path: &Path) -> f64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let each = entries.map(|it| match it.metadata() {
        Ok(meta) if meta.is_dir() => size(&it.path()),
        Ok(meta) => meta.len() as f64 / f64::from(1 << 20),
        Err(_) => 0.0,
    });
    each.sum()
}

/// Writes outcomes of the last six days, of which no hour is folded yet; says what one takes of whoever reports it.
async fn fill(house: &Arc<Housekeeping>, count: usize) -> Duration {
    let first = wall_ms() - 6 * DAY_MS;
    let mut took = Duration::ZERO;
    for begin in (0..count).step_by(AT_ONCE) {
        let at = |it: usize| first + 6 * DAY_MS * it as u64 / count as u64;
        let some: Vec<_> =
            (begin..(begin + AT_ONCE).min(count)).map(|it| outcome(it as u64, at(it))).collect();
        let start = processor();
        some.into_iter().for_each(|it| house.finished(it, None));
        took += processor() - start;
        house.close().await;
    }
    took / count as u32
}

fn ms(it: Duration) -> String {
    format!("{:.1} ms", it.as_secs_f64() * 1000.0)
}

#[tokio::test]
async fn a_million_outcomes_are_small_soon_summed_up_and_read_by_others() {
    let count = times(20_000, 1_000_000);
    let root = tempfile::tempdir().unwrap();
    let (dir, other) = (root.path().join("state"), root.path().join("other"));
    let mut table = Table::new("A million outcomes", &["what", "figure"]);
    table.row(&[&"outcomes", &count]);
    let without = fill(&house(&other, false), count.min(100_000)).await;
    table.row(&[&"one outcome, not stored", &format!("{:.2} us", without.as_secs_f64() * 1e6)]);
    let before = memory();
    let full = house(&dir, true);
    let begun = Instant::now();
    let with = fill(&full, count).await;
    table.row(&[&"one outcome, stored", &format!("{:.2} us", with.as_secs_f64() * 1e6)]);
    let each = begun.elapsed() / count as u32;
    table.row(&[&"with all that is done for it elsewhere", &format!("{:.2} us", each.as_secs_f64() * 1e6)]);
    let grown = memory().saturating_sub(before);
    table.row(&[&"memory, after that", &format!("{grown} KiB more")]);
    let status = full.store().status();
    assert!(status.ok && status.dropped == 0, "{status:?}");
    let (rows, sums) = (size(&dir.join("outcomes")), size(&dir.join("stats")));
    table.row(&[&"on the disk: outcomes", &format!("{rows:.1} MiB")]);
    table.row(&[&"on the disk: sums", &format!("{sums:.1} MiB")]);
    let bytes = rows * f64::from(1 << 20) / count as f64;
    table.row(&[&"of that for one outcome", &format!("{bytes:.0} bytes")]);
    drop(full);

    let begun = Instant::now();
    let full = house(&dir, true);
    table.row(&[&"restart", &ms(begun.elapsed())]);
    let span = |since_ms: Option<u64>| Span { since_ms, until_ms: None };
    let by = |by| Query { by, ..Query::default() };
    let ago = |ms: u64| span(Some(wall_ms() - ms));
    let queries = [
        ("all", by(None), span(None)),
        ("by server", by(Some(By::Server)), span(None)),
        ("by caller", by(Some(By::Caller)), span(None)),
        ("by hour", by(Some(By::Hour)), span(None)),
        ("by day", by(Some(By::Day)), span(None)),
        (
            "of one model by server",
            Query { model: Some(MODELS[0].into()), ..by(Some(By::Server)) },
            span(None),
        ),
        ("since 10 minutes", by(None), ago(600_000)),
        ("since 24 hours, by model", by(Some(By::Model)), ago(DAY_MS + 7)),
    ];
    for (name, query, span) in queries {
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let begun = Instant::now();
            let rows = full.report_of(&query, span).await;
            fastest = fastest.min(begun.elapsed());
            assert!(name.starts_with("since") || !rows.is_empty(), "{name}");
        }
        table.row(&[&format!("query: {name}"), &ms(fastest)]);
        // A debug build is some ten times slower.
        assert!(
            fastest < Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 }),
            "{name}: {fastest:?}"
        );
    }
    let all = full.report_of(&by(None), span(None)).await;
    assert_eq!(all[0].endings.all(), count as u64);
    let begun = Instant::now();
    assert_eq!(full.requests(100, &Filter::default()).await.len(), 100);
    table.row(&[&"the last 100", &ms(begun.elapsed())]);
    let begun = Instant::now();
    let oldest = full.request("req-0000000000000000", &Filter::default()).await;
    assert_eq!(oldest.as_deref(), Some(&outcome(0, oldest.as_ref().unwrap().at_ms)));
    table.row(&[&"the very first by its id", &ms(begun.elapsed())]);
    drop(full);

    exports(&dir, root.path(), count, &mut table).await;
    table.show();
}

/// Exports by the binaries, summed up by programs that know nothing of them.
async fn exports(state: &Path, root: &Path, count: usize, table: &mut Table) {
    let daemon = Options::alone().config("[stats]\nmax_size = \"4GiB\"").state(state).start().await;
    let rows = stats(&daemon.caller(), "").await;
    let cost = rows[0]["cost_usd"].as_f64().unwrap();
    let expected = [
        ("requests", count as f64),
        ("ids", count as f64),
        ("good", (sum(&rows, "delivered") + sum(&rows, "resumed")) as f64),
        ("input_tokens", sum(&rows, "input_tokens") as f64),
        ("output_tokens", sum(&rows, "output_tokens") as f64),
        ("cost_usd", cost),
    ];
    let readers: &[(&str, &[&str])] = match is_full() {
        false => &[("csv", &["csv"]), ("jsonl", &["jsonl"]), ("sqlite", &["sqlite"]), ("parquet", &[])],
        true => &[
            ("csv", &["csv"]),
            ("jsonl", &["jsonl"]),
            ("sqlite", &["sqlite"]),
            ("parquet", &["parquet-duckdb", "parquet-pandas"]),
        ],
    };
    for &(format, readers) in readers {
        let file = root.join(format);
        let file = file.to_str().unwrap();
        let begun = Instant::now();
        let args = ["stats", "export", "--format", format, "-o", file];
        let output = daemon.ctl_within(Duration::from_secs(900), &args).await;
        let took = begun.elapsed();
        text(&output);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.replace(',', "").contains(&format!("{count} requests in ")), "{told}");
        let size = std::fs::metadata(file).unwrap().len() as f64 / f64::from(1 << 20);
        table.row(&[&format!("export: {format}"), &format!("{:.1} s, {size:.1} MiB", took.as_secs_f64())]);
        for reader in readers {
            let seen = summed(reader, file);
            for (name, value) in expected {
                let near = (seen[name].as_f64().unwrap() - value).abs() <= value * 1e-9;
                assert!(near, "{reader}: {name} is {} and not {value}", seen[name]);
            }
        }
    }
    // Where nobody else reads it, it is at least a file of that sort.
    let parquet = std::fs::read(root.join("parquet")).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    // One that reads as slowly as it can is no trouble for anybody else.
    let begun = Instant::now();
    assert_eq!(daemon.caller().get("/healthz").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

fn summed(format: &str, file: &str) -> Value {
    let python = match format.starts_with("parquet") {
        true => readers(),
        false => "python3".to_owned(),
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/ledger/sums.py");
    let output = Command::new(python).args([script, format, file]).output().unwrap();
    serde_json::from_str(&text(&output)).unwrap()
}

/// A python that has DuckDB and pandas.
fn readers() -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/target/prove/readers");
    let python = format!("{dir}/bin/python");
    if !Path::new(&format!("{dir}/ready")).exists() {
        let run = |program: &str, args: &[&str]| {
            let status = Command::new(program).args(args).stdout(Stdio::null()).status().unwrap();
            assert!(status.success(), "{program} {args:?}");
        };
        run("python3", &["-m", "venv", dir]);
        run(&python, &["-m", "pip", "install", "-q", "duckdb==2.0.1", "pandas==3.1.1", "pyarrow==26.0.1"]);
        std::fs::write(format!("{dir}/ready"), "").unwrap();
    }
    python
}
