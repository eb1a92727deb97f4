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

mod caller;
mod compare;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::yield_now, time::Instant};

use self::{
    caller::{Account, Plans, Saw, ask},
    compare::{agree, is_settled, same, same_at_server},
};
use crate::{
    api::{self, Door, Peer},
    failover::Patience,
    housekeeping::{self, Housekeeping, Stored},
    kind,
    postgres::Sharing,
    registry::{self, Hint, Registry, ServerSettings, Standing},
    relay::{self, Relay},
    route::Fallback,
    scan::{self, Watch as _},
    server::Source,
    simulate::{At, Fault, Plan, Script, Shape, Simulated},
    stats::Endings,
    store::Store,
    upstream::{self, Upstream},
};

/// How far time goes in one step.
const STEP: Duration = Duration::from_millis(5);
/// How often everybody has a turn before that: a request goes through a few hands.
const TURNS: usize = 4;
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
            instance: String::new(),
            registry: Registry::new(registry::Settings::default()),
            figures: housekeeping::Figures::default(),
            store: Store::none("nothing is kept"),
            spent: Stored::Lost,
            ours: Box::new(|_| true),
            owner_of: Box::new(|_| None),
            settings: housekeeping::Settings { queue: 100, ..housekeeping::Settings::default() },
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
                sharing: Sharing::new(house.clone(), None),
                relay: relay.clone(),
                socket: PathBuf::new(),
                listen: None,
                instance: "randomised".to_owned(),
                stopping: stopping.clone(),
                settings: api::Settings { body_limit: 1 << 20, ..api::Settings::default() },
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
        tokio::spawn(scan::run(watch::channel(settings).1, upstream, house.clone(), stopping));
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
        let serving = api::serve(
            self.door.clone(),
            theirs,
            Peer::Socket { may_change: true, uid: None },
            std::future::pending(),
        );
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
