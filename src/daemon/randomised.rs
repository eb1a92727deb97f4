//! Random sequences of faults, and whether what the daemon wrote down is what happened.
//!
//! Each sequence has servers that fail as its seed has it and callers who come when it says,
//! some of whom leave. They meet in a whole house: the door, the relay, the registry with its
//! probes. Then what was recorded of every request is compared with what its caller saw, and
//! what was recorded of every server with what that server counted.
//!
//! Time is paused and moved on by hand, in small steps, whenever nobody has anything to do:
//! servers listen on Unix sockets, where what is written is there at once, so that nothing
//! waits for the real clock. (Left to itself a paused clock leaps on while bytes are on their
//! way.)

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{sync::watch, task::yield_now, time::Instant};

use crate::{
    api::{self, Door, Peer},
    failover::Patience,
    fault::Cause,
    generate::{Ending, Outcome},
    housekeeping::{self, Housekeeping},
    kind,
    registry::{self, Hint, Registry, ServerSettings, Standing},
    relay::{self, Relay},
    route::Fallback,
    scan::{self, Watch as _},
    server::Source,
    simulate::{At, Counts, Fault, Plan, Script, Shape, Simulated, check},
    stats::{By, Endings, Query, Stats},
    store::Store,
    upstream::{self, Upstream},
    wire::ConfigView,
};

/// How far time goes in one step.
const STEP: Duration = Duration::from_millis(5);
/// How often everybody has a turn before that: a request goes through a few hands.
const TURNS: usize = 4;
/// What a caller measures may differ from what was recorded by that.
const BLUR: Duration = Duration::from_millis(60);
/// Everything is over by then.
const END: Duration = Duration::from_secs(120);

const PATIENCE: Patience = Patience {
    connect: Duration::from_millis(500),
    first_token: Duration::from_millis(800),
    load: Duration::from_millis(1500),
    gap: Duration::from_millis(500),
    before_commit: Duration::from_secs(6),
    open_after: Duration::from_millis(1200),
};

/// One sequence.
struct Sequence {
    seed: u64,
    servers: Vec<Script>,
    shapes: Vec<Shape>,
    /// Whether the last server never fails.
    has_a_good_one: bool,
    callers: Vec<Plans>,
}

/// What one caller will do.
#[derive(Clone, Copy, Debug)]
struct Plans {
    comes: Duration,
    stream: bool,
    /// Short enough for a server to be asked for all of it at once.
    short: bool,
    /// How long after it came it leaves.
    leaves: Option<Duration>,
}

/// What one caller saw.
#[derive(Debug)]
enum Saw {
    /// A whole answer: words, and tokens as it tells them.
    Whole { words: usize, tokens: Option<u64> },
    /// An answer that had begun and ended in an error.
    BrokenOff { status: u16 },
    /// A refusal.
    Refused { status: u16 },
    /// Nothing any more.
    Left,
    /// What nobody should ever see.
    Wrong(String),
}

#[derive(Debug)]
struct Account {
    id: String,
    plans: Plans,
    saw: Saw,
    attempts: Option<usize>,
    first: Option<Duration>,
    total: Duration,
}

impl Sequence {
    fn of(seed: u64) -> Self {
        let mut luck = fastrand::Rng::with_seed(seed);
        let count = luck.usize(1..=3);
        let has_a_good_one = luck.bool();
        let words = luck.usize(4..=12);
        let ms = |it: u64| Duration::from_millis(it);
        // What floods the machine is proved elsewhere, and what has no end has no record.
        let left_out = [Fault::EndlessWords, Fault::EndlessFrame, Fault::GiantHead];
        let faults: Vec<_> = Fault::ALL.iter().copied().filter(|it| !left_out.contains(it)).collect();
        let mut shapes = Vec::new();
        let servers = (0..count)
            .map(|at| {
                shapes.push(Shape::ALL[luck.usize(..Shape::ALL.len())]);
                let good = has_a_good_one && at + 1 == count;
                let often = if good { 0.0 } else { luck.f64() };
                let chosen = (1..=64_u64).filter(|_| luck.f64() < often).collect::<Vec<_>>();
                let chosen: BTreeMap<_, _> =
                    chosen.into_iter().map(|it| (it, faults[luck.usize(..faults.len())])).collect();
                Script {
                    words,
                    before: ms(luck.u64(0..60)),
                    between: ms(luck.u64(0..30)),
                    after: luck.usize(0..=words),
                    // A queue in a server takes of the patience for its first word.
                    slots: if good { 0 } else { luck.u32(0..4) },
                    slow: ms(1),
                    plan: Plan::At(chosen),
                    ..Script::default()
                }
            })
            .collect();
        let callers = (0..luck.usize(1..=5))
            .map(|_| Plans {
                comes: ms(luck.u64(0..500)),
                stream: luck.bool(),
                short: luck.bool(),
                leaves: (luck.usize(..8) == 0).then(|| ms(luck.u64(0..1500))),
            })
            .collect();
        Self { seed, servers, shapes, has_a_good_one, callers }
    }
}

/// A house with servers that are known and well.
struct House {
    house: Arc<Housekeeping>,
    relay: Arc<Relay>,
    door: Arc<Door>,
    servers: Vec<Simulated>,
    /// The house ends with it.
    _stop: watch::Sender<bool>,
}

impl House {
    async fn furnish(sequence: &Sequence, directory: &Path) -> Self {
        let house = Housekeeping::new(housekeeping::Furnishing {
            registry: Registry::new(registry::Settings::default()),
            stats: Stats::default(),
            store: Store::none("nothing is kept"),
            keys: BTreeMap::new(),
            kinds_off: std::collections::BTreeSet::new(),
            trusts: Box::new(|_| true),
            ours: Box::new(|_| true),
            tracking: false,
            queue: 100,
        });
        let upstream = Arc::new(Upstream::new(upstream::Settings::default()).unwrap());
        let relay = Relay::new(
            house.clone(),
            upstream.clone(),
            relay::Settings {
                patience: PATIENCE,
                aliases: BTreeMap::new(),
                chains: BTreeMap::new(),
                fallback: Fallback::Same,
                limit: Fallback::Local,
                held: 64 << 20,
                gpu_memory: None,
            },
            sequence.seed,
        );
        let (stop, stopping) = watch::channel(false);
        let door = Door::new(
            api::Furnishing {
                house: house.clone(),
                relay: relay.clone(),
                socket: PathBuf::new(),
                listen: None,
                instance: "randomised".to_owned(),
                config: ConfigView { file: None, warnings: Vec::new(), settings: Vec::new() },
                aliases: BTreeMap::new(),
                body_limit: 1 << 20,
                hosts: Vec::new(),
                origins: Vec::new(),
                control_on_tcp: false,
                stopping: stopping.clone(),
                notes: Vec::new(),
            },
            Instant::now().into_std(),
            sequence.seed,
        );
        let mut servers = Vec::new();
        for (at, (script, shape)) in sequence.servers.iter().zip(&sequence.shapes).enumerate() {
            let path = directory.join(format!("{}-{at}", sequence.seed));
            let server = Simulated::start_at(*shape, script.clone(), At::Unix(path)).await.unwrap();
            let settings = ServerSettings { name: Some(format!("s{at}")), ..ServerSettings::default() };
            house.hint(Hint {
                endpoint: server.endpoint(),
                source: Source::Config,
                trusted: true,
                settings: Some(settings),
            });
            servers.push(server);
        }
        // Nothing but these is looked at.
        let settings = scan::Settings {
            skip_ports: kind::usual_ports(),
            socket_table: false,
            proc_root: directory.join("no-proc"),
            ..scan::Settings::default()
        };
        tokio::spawn(scan::run(settings, upstream, house.clone(), stopping));
        let up = || {
            let up = |it: &&Arc<registry::Server>| it.standing == Standing::Up;
            house.snapshot().servers.iter().filter(up).count() == servers.len()
        };
        while !up() {
            tokio::time::sleep(STEP).await;
        }
        Self { house, relay, door, servers, _stop: stop }
    }

    /// One caller, on a connection of its own.
    async fn call(&self, number: usize, seed: u64, plans: Plans) -> Account {
        tokio::time::sleep(plans.comes).await;
        let id = format!("{seed}-{number}");
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let serving =
            api::serve(self.door.clone(), theirs, Peer::Socket { may_change: true }, std::future::pending());
        let serving = tokio::spawn(serving);
        let begun = Instant::now();
        let mut account =
            Account { id, plans, saw: Saw::Left, attempts: None, first: None, total: Duration::ZERO };
        let asking = ask(ours, &mut account, begun);
        match plans.leaves {
            Some(after) => drop(tokio::time::timeout(after, asking).await),
            None => asking.await,
        }
        account.total = begun.elapsed();
        // The daemon has seen that the connection is closed.
        serving.await.unwrap();
        account
    }
}

/// Asks, and sees the answer to its end. Dropping it is leaving.
async fn ask(stream: tokio::io::DuplexStream, account: &mut Account, begun: Instant) {
    let plans = account.plans;
    let mut body = json!({
        "model": "sim", "stream": plans.stream, "messages": [{"role": "user", "content": "Count for me."}],
    });
    if plans.stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    if plans.short {
        body["max_tokens"] = 40.into();
    }
    let request = Request::post("/v1/chat/completions")
        .header("host", "localhost")
        .header("x-request-id", &account.id)
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let exchange = async {
        let response = sender.send_request(request).await.unwrap();
        let (parts, mut body) = response.into_parts();
        account.attempts =
            parts.headers.get("x-lovable-attempts").and_then(|it| it.to_str().ok()?.parse().ok());
        let (mut text, mut clean) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                clean = false;
                break;
            };
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            if account.first.is_none() && memchr::memmem::find(&text, b"w1").is_some() {
                account.first = Some(begun.elapsed());
            }
        }
        account.saw = judge(parts.status.as_u16(), plans.stream, &text, clean);
        drop(sender);
    };
    let _ = tokio::join!(exchange, connection);
}

/// What an answer is worth.
fn judge(status: u16, stream: bool, text: &[u8], clean: bool) -> Saw {
    let text = String::from_utf8_lossy(text);
    let wrong = |why: &str| Saw::Wrong(format!("{why} in {status} {text:?}"));
    if !clean {
        return wrong("torn");
    }
    let parse = |it: &str| serde_json::from_str::<Value>(it).ok();
    if status != 200 || !stream {
        let Some(body) = parse(&text) else { return wrong("no JSON") };
        if status != 200 {
            return if body["error"]["message"].is_string() {
                Saw::Refused { status }
            } else {
                wrong("no error")
            };
        }
        let said = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        return match (check(said), body["choices"][0]["finish_reason"].is_string()) {
            (Ok(words), true) => Saw::Whole { words, tokens: body["usage"]["completion_tokens"].as_u64() },
            _ => wrong("no whole answer"),
        };
    }
    let Some(events) = text.strip_suffix("\n\n") else { return wrong("a torn event") };
    let (mut said, mut reasons, mut done, mut failed, mut tokens) = (String::new(), 0, 0, 0, None);
    for event in events.split("\n\n").filter(|it| !it.starts_with(':')) {
        let data = event.strip_prefix("data: ").unwrap_or_default();
        if done + failed > 0 {
            return wrong("something after the end");
        }
        if data == "[DONE]" {
            done += 1;
            continue;
        }
        let Some(value) = parse(data) else { return wrong("no event") };
        failed += usize::from(value["error"]["message"].is_string());
        said += value["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        reasons += usize::from(value["choices"][0]["finish_reason"].is_string());
        tokens = tokens.or(value["usage"]["completion_tokens"].as_u64());
    }
    match (check(&said), reasons, done, failed) {
        (Ok(words), 1, 1, 0) => Saw::Whole { words, tokens },
        (Ok(_), 0, 0, 1) => Saw::BrokenOff { status },
        (Err(why), ..) => wrong(&why),
        (Ok(_), ..) => wrong("no right end"),
    }
}

/// What many sequences came to.
#[derive(Debug, Default)]
struct Sum {
    requests: usize,
    never_came: usize,
    endings: Endings,
    attempts: usize,
    failed: BTreeMap<String, usize>,
    words: usize,
}

/// Runs a sequence, and says what does not agree.
async fn run(sequence: &Sequence, directory: &Path, sum: &mut Sum) -> Result<(), String> {
    let house = House::furnish(sequence, directory).await;
    let calls = sequence.callers.iter().zip(0..).map(|(it, at)| house.call(at, sequence.seed, *it));
    let accounts = futures_util::future::join_all(calls).await;
    // A server counts an answer once it is written, or once it has seen that nobody reads it.
    let quiet = || house.servers.iter().all(|it| is_settled(&it.counts())) && house.relay.running() == 0;
    let begun = Instant::now();
    while !quiet() && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(STEP).await;
    }
    let outcomes = house.house.recent(1000);
    sum.requests += accounts.len();
    for account in &accounts {
        let mut found = outcomes.iter().filter(|it| it.request_id == account.id);
        match (found.next(), found.next(), &account.saw) {
            (Some(outcome), None, _) => same(account, outcome, sequence)?,
            // It left before the daemon had all of its request.
            (None, None, Saw::Left) => sum.never_came += 1,
            (one, two, _) => return Err(format!("recorded as {one:?} {two:?}: {account:?}")),
        }
    }
    let mut endings = Endings::default();
    for outcome in &outcomes {
        endings.add(outcome.ending);
        sum.endings.add(outcome.ending);
        sum.attempts += outcome.attempts.len();
        sum.words += outcome.usage.output_tokens.unwrap_or(0) as usize;
        for fault in outcome.attempts.iter().filter_map(|it| it.fault) {
            *sum.failed.entry(fault.to_string()).or_default() += 1;
        }
    }
    let counted = house.house.with_stats(|it| it.totals().endings);
    agree("endings", &counted, &endings)?;
    agree("running", &house.relay.running(), &0)?;
    agree("queued", &house.house.traffic().queued(), &0)?;
    for (at, server) in house.servers.iter().enumerate() {
        same_at_server(&house.house, &format!("s{at}"), &server.counts(), &outcomes)?;
    }
    Ok(())
}

fn is_settled(it: &Counts) -> bool {
    it.in_flight == 0 && it.received == it.served + it.refused + it.faulted + it.cancelled
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    if one == other { Ok(()) } else { Err(format!("{what}: {one:?} and {other:?}")) }
}

/// Whether what was recorded of a request is what its caller saw.
fn same(account: &Account, outcome: &Outcome, sequence: &Sequence) -> Result<(), String> {
    let err = |why: &str| Err(format!("{why}: {account:?}\n{outcome:#?}"));
    let words = sequence.servers[0].words;
    let ending = outcome.ending;
    let refused = matches!(ending, Ending::Refused | Ending::Exhausted | Ending::OutOfTime);
    let agrees = match account.saw {
        Saw::Wrong(ref why) => return err(why),
        Saw::Whole { words: seen, tokens } => {
            let told = outcome.usage.output_tokens;
            if seen != words {
                return err("other words");
            }
            if tokens != told || told.is_some_and(|it| it != words as u64) {
                return err("other tokens");
            }
            outcome.status == 200 && ending.is_success()
        }
        Saw::BrokenOff { status } => outcome.status == status && (ending == Ending::CutShort || refused),
        Saw::Refused { status } => outcome.status == status && refused,
        // What was on its way when it left may have been all of it.
        Saw::Left => ending == Ending::CallerGone || outcome.total <= account.total,
    };
    if !agrees {
        return err("another ending");
    }
    let blamed = outcome.failure.is_some() && matches!(outcome.status, 400 | 422);
    if sequence.has_a_good_one && !ending.is_success() && ending != Ending::CallerGone && !blamed {
        return err("a failure beside a server that never fails");
    }
    // A success is one good attempt after only bad ones.
    let good = outcome.attempts.iter().filter(|it| it.fault.is_none()).count();
    let is_last = outcome.attempts.last().is_some_and(|it| it.fault.is_none());
    if ending.is_success() && !(good == 1 && is_last) {
        return err("other attempts");
    }
    // Where the caller or the time was gone it was not the last server's fault.
    let nobodys = matches!(ending, Ending::CallerGone | Ending::OutOfTime | Ending::CutShort) && is_last;
    if !ending.is_success() && good > usize::from(nobodys) {
        return err("a good attempt and a failure");
    }
    if ending == Ending::Resumed && outcome.attempts.len() < 2 {
        return err("resumed by nobody");
    }
    if account.attempts.is_some_and(|it| it > outcome.attempts.len()) {
        return err("more attempts in the head");
    }
    let near = |one: Duration, other: Duration| one.abs_diff(other) <= BLUR;
    if !matches!(account.saw, Saw::Left) && !near(account.total, outcome.total) {
        return err("another time");
    }
    if account.plans.stream
        && let (Some(first), Some(told)) = (account.first, outcome.first_token)
        && !near(first, told)
    {
        return err("another first word");
    }
    Ok(())
}

/// Whether what was recorded of a server is what it counted.
fn same_at_server(
    house: &Housekeeping,
    id: &str,
    counts: &Counts,
    outcomes: &[Arc<Outcome>],
) -> Result<(), String> {
    let (mut attempts, mut requests, mut whole, mut left, mut late) = (0, 0, 0, 0, 0);
    for outcome in outcomes {
        for attempt in outcome.attempts.iter().filter(|it| it.server.as_str() == id) {
            attempts += 1;
            requests += u64::from(attempt.requests);
            match attempt.fault {
                None if outcome.ending.is_success() => whole += 1,
                // It may have come to its end all the same, or not have begun.
                None => left += 1,
                Some(fault) => late += u64::from(fault.cause == Cause::FirstTokenTimeout),
            }
        }
    }
    let err = |what: &str| {
        Err(format!(
            "{what} at {id}: {counts:?}, attempts {attempts} of {requests} requests, whole {whole}, left {left}: {outcomes:#?}"
        ))
    };
    if !is_settled(counts) {
        return err("not settled");
    }
    // What broke on a kept connection is sent once more within the same attempt, unless a new
    // connection was made for it meanwhile.
    if counts.received > requests + counts.hung_up || counts.received + left < requests {
        return err("attempts");
    }
    if counts.served < whole || counts.served > whole + left + late {
        return err("whole answers");
    }
    if house.traffic().look().of(&id.into()) != 0 {
        return err("a place that is still taken");
    }
    let query = Query { by: Some(By::Server), server: Some(id.to_owned()), ..Query::default() };
    let rows: u64 = house.report(&query).iter().map(|it| it.endings.all()).sum();
    if rows != attempts {
        return err("statistics");
    }
    Ok(())
}

/// Runs a sequence in a time of its own.
fn check_sequence(seed: u64, directory: &Path, sum: &mut Sum) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let sequence = Sequence::of(seed);
    let came = runtime.block_on(async {
        let mut running = std::pin::pin!(run(&sequence, directory, sum));
        let end = Instant::now() + END;
        loop {
            tokio::select! {
                biased;
                came = &mut running => return came,
                () = turn() => assert!(Instant::now() < end, "sequence {seed} does not end"),
            }
        }
    });
    if let Err(why) = came {
        let Sequence { servers, shapes, callers, .. } = &sequence;
        panic!("sequence {seed} of {shapes:?} {servers:#?} {callers:#?}\n{why}");
    }
}

/// Lets everybody do what there is to do, and time go on.
async fn turn() {
    for _ in 0..TURNS {
        yield_now().await;
    }
    tokio::time::advance(STEP).await;
}

#[test]
fn what_was_recorded_is_what_servers_and_callers_saw() {
    let sequences = if std::env::var_os("LOVABLE_PROVE").is_some() { 10_000 } else { 500 };
    let directory = tempfile::tempdir().unwrap();
    let mut sum = Sum::default();
    for seed in 0..sequences {
        check_sequence(seed, directory.path(), &mut sum);
    }
    #[expect(clippy::print_stdout, reason = "the numbers are what it is run for")]
    {
        println!("{sequences} random sequences: {sum:#?}");
    }
    assert!(sum.endings.resumed > 0 && sum.endings.cut_short > 0 && sum.endings.caller_gone > 0, "{sum:?}");
}
