//! What was written down against what callers and servers counted for themselves.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate::{Counts, Fault, Plan, Script, Shape, Simulated};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{exported, stats, sum};
use crate::{
    caller::{Caller, Verdict, chat, request},
    daemon::{Daemon, Options},
    proof::{Table, times},
};

const AT_ONCE: usize = 8;
const WORDS: usize = 8;
const PROGRAMS: [&str; 3] = ["curl/8.5.0", "OpenAI/Python 1.40", "node"];

const ENDINGS: [&str; 7] =
    ["delivered", "resumed", "cut_short", "refused", "exhausted", "out_of_time", "caller_gone"];

/// What a caller saw of one request.
#[derive(Debug)]
enum Saw {
    Answer(u16, Verdict),
    /// Nothing any more: it left.
    Left,
}

/// A server of which each tenth request goes wrong in one way or another.
async fn server(shape: Shape, seed: u64) -> Simulated {
    // What has no end floods the machine, and is proved elsewhere. A server that wants a key is
    // left alone for minutes, in which all would be refused.
    let left_out = [
        Fault::EndlessWords,
        Fault::EndlessFrame,
        Fault::EndlessComments,
        Fault::GiantHead,
        Fault::Unauthorized,
    ];
    let faults: Vec<_> = Fault::ALL.iter().copied().filter(|it| !left_out.contains(it)).collect();
    let mut luck = fastrand::Rng::with_seed(seed);
    let wrong = (1..=40_000).filter(|_| luck.u8(..10) == 0).collect::<Vec<_>>();
    let wrong = wrong.into_iter().map(|it| (it, faults[luck.usize(..faults.len())])).collect();
    let script = Script {
        words: WORDS,
        before: Duration::from_millis(3),
        between: Duration::from_millis(2),
        after: 3,
        plan: Plan::At(wrong),
        ..Script::default()
    };
    Simulated::start(shape, script).await.unwrap()
}

async fn call(caller: &Caller, number: usize, luck: &mut fastrand::Rng) -> Saw {
    let body = chat("sim", luck.bool(), "Count for me.").to_string();
    let id = format!("number-{number}");
    let headers = [("x-request-id", id.as_str()), ("user-agent", PROGRAMS[number % 3])];
    let request = request("POST", "/v1/chat/completions", body.into(), &headers);
    let patience = match luck.u8(..8) {
        0 => Duration::from_millis(luck.u64(0..40)),
        _ => Duration::from_secs(60),
    };
    match timeout(patience, caller.send(request)).await {
        Ok(Ok(answer)) => {
            if matches!(answer.status, 429 | 502 | 503) {
                // As whoever is told to try later.
                sleep(Duration::from_millis(luck.u64(50..250))).await;
            }
            Saw::Answer(answer.status, answer.verdict())
        }
        Ok(Err(error)) => panic!("number {number} got no answer: {error}"),
        Err(_) => Saw::Left,
    }
}

async fn quiet(daemon: &Daemon, servers: &[Simulated]) {
    let settled =
        |it: &Counts| it.in_flight == 0 && it.received == it.served + it.refused + it.faulted + it.cancelled;
    let begun = Instant::now();
    loop {
        let requests = daemon.caller().get("/lovable/v1/status").await.json()["requests"].clone();
        let is_quiet = requests["in_flight"] == 0 && requests["queued"] == 0;
        if is_quiet && servers.iter().all(|it| settled(&it.counts())) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "never quiet: {requests}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_says_what_callers_and_servers_count_for_themselves() {
    let requests = times(300, 10_000);
    let shapes = [Shape::Vllm, Shape::LlamaCpp, Shape::OpenAi];
    let mut servers = Vec::new();
    for (shape, seed) in shapes.into_iter().zip(1..) {
        servers.push(server(shape, seed).await);
    }
    let patience =
        "[patience]\nfirst_token = \"300ms\"\ngap = \"300ms\"\nload = \"300ms\"\nbefore_commit = \"1s\"\n";
    let mut options = Options::alone().config(patience);
    for (server, name) in servers.iter().zip(["a", "b", "c"]) {
        options = options.simulated(server, name, 0);
    }
    let daemon = options.start().await;
    let next = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..AT_ONCE as u64)
        .map(|seed| {
            let (caller, next) = (daemon.caller(), next.clone());
            tokio::spawn(async move {
                let mut luck = fastrand::Rng::with_seed(seed);
                let mut saw = Vec::new();
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= requests {
                        return saw;
                    }
                    saw.push((format!("number-{number}"), call(&caller, number, &mut luck).await));
                }
            })
        })
        .collect();
    let mut accounts = BTreeMap::new();
    for caller in callers {
        accounts.extend(caller.await.unwrap());
    }
    assert_eq!(accounts.len(), requests);
    quiet(&daemon, &servers).await;

    let rows = exported(&daemon.caller(), "").await;
    let (mut left, mut whole) = (0, 0);
    let mut seen = BTreeMap::new();
    for row in &rows {
        let id = row["request_id"].as_str().unwrap();
        assert!(seen.insert(id, row).is_none(), "{id} is there twice");
    }
    for (id, saw) in &accounts {
        match (saw, seen.remove(id.as_str())) {
            // It left before the daemon had all of its request.
            (Saw::Left, None) => {}
            (Saw::Left, Some(_)) => left += 1,
            (Saw::Answer(status, verdict), Some(row)) => {
                whole += usize::from(matches!(verdict, Verdict::Whole(_)));
                same(*status, verdict, row);
            }
            (saw, None) => panic!("{id} is not there: {saw:?}"),
        }
    }
    assert!(seen.is_empty(), "nobody asked these: {seen:?}");
    for (server, name) in servers.iter().zip(["a", "b", "c"]) {
        at_server(name, &server.counts(), &rows);
    }
    sums(&daemon.caller(), &rows).await;
    let endings = |ending: &str| rows.iter().filter(|it| it["ending"] == ending).count();
    let mut table = Table::new(
        "The ledger against callers and servers",
        &[
            "requests",
            "rows",
            "delivered",
            "resumed",
            "cut short",
            "refused",
            "exhausted",
            "out of time",
            "caller gone",
        ],
    );
    let counts = ENDINGS.map(endings);
    let count = rows.len();
    let mut cells: Vec<&dyn std::fmt::Display> = vec![&requests, &count];
    cells.extend(counts.iter().map(|it| it as &dyn std::fmt::Display));
    table.row(&cells);
    table.show();
    assert!(whole > requests / 2 && left > 0 && endings("resumed") > 0, "{whole} whole, {left} left");
}

/// Whether a row is what its caller saw.
fn same(status: u16, verdict: &Verdict, row: &Value) {
    let ending = row["ending"].as_str().unwrap();
    let is_success = matches!(ending, "delivered" | "resumed");
    let tokens = row["usage"]["output_tokens"].as_u64();
    let agrees = match verdict {
        Verdict::Whole(words) => is_success && *words == WORDS && tokens.is_none_or(|it| it == WORDS as u64),
        Verdict::BrokenOff(_) => matches!(ending, "cut_short" | "refused" | "exhausted" | "out_of_time"),
        Verdict::Refused(_) => matches!(ending, "refused" | "exhausted" | "out_of_time"),
        // A plain answer that cannot be finished ends in a broken connection.
        Verdict::Wrong(_) => ending == "cut_short" && row["stream"] == false,
    };
    let last = row["attempts"].as_array().unwrap().last();
    let good = last.is_none_or(|it| it["fault"].is_null()) || !is_success;
    assert!(agrees && good && row["status"] == status, "{status} {verdict:?} {row:#}");
}

/// Whether the attempts at a server are what that server counted.
fn at_server(name: &str, counts: &Counts, rows: &[Value]) {
    let (mut requests, mut whole, mut left, mut late) = (0, 0, 0, 0);
    for row in rows {
        let success = matches!(row["ending"].as_str(), Some("delivered" | "resumed"));
        for attempt in row["attempts"].as_array().unwrap().iter().filter(|it| it["server"] == name) {
            requests += attempt["requests"].as_u64().unwrap();
            match (&attempt["fault"], success) {
                (Value::Null, true) => whole += 1,
                (Value::Null, false) => left += 1,
                (fault, _) => late += u64::from(fault["cause"] == "first_token_timeout"),
            }
        }
    }
    let told = format!("{name}: {counts:?}, {requests} requests, {whole} whole, {left} left, {late} late");
    // What broke on a kept connection is sent once more within the same attempt.
    assert!(counts.received <= requests + counts.hung_up && counts.received + left >= requests, "{told}");
    assert!(counts.served >= whole && counts.served <= whole + left + late, "{told}");
}

/// Whether statistics and status are the sums of the rows.
async fn sums(caller: &Caller, rows: &[Value]) {
    let all = stats(caller, "").await;
    let status = caller.get("/lovable/v1/status").await.json()["requests"].clone();
    let count = rows.len() as u64;
    assert_eq!(sum(&all, "requests"), count);
    assert_eq!(status["total"], count);
    for ending in ENDINGS {
        let count = rows.iter().filter(|it| it["ending"] == ending).count() as u64;
        assert_eq!(sum(&all, ending), count, "{ending}");
        assert_eq!(status[ending], count, "{ending}");
    }
    let tokens = |name: &str| rows.iter().filter_map(|it| it["usage"][name].as_u64()).sum::<u64>();
    for name in ["input_tokens", "output_tokens"] {
        assert_eq!(sum(&all, name), tokens(name), "{name}");
    }
    let attempts: usize = rows.iter().map(|it| it["attempts"].as_array().unwrap().len()).sum();
    for (by, count) in
        [("server", attempts), ("kind", attempts), ("model", rows.len()), ("caller", rows.len())]
    {
        assert_eq!(sum(&stats(caller, &format!("by={by}")).await, "requests"), count as u64, "{by}");
    }
    for program in ["curl", "OpenAI/Python", "node"] {
        let of = rows.iter().filter(|it| it["caller"] == program).count();
        let counted = sum(&stats(caller, &format!("caller={program}")).await, "requests");
        assert_eq!(counted, of as u64, "{program}");
    }
}
