//! The measures, one function each.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;

use crate::{
    Scene, Way,
    client::{Events, Line, request},
    daemon::Options,
    process::{processor, resident},
    table::{Report, Row, Target},
    translation::translation,
};

type Measure = for<'a> fn(&'a Scene, &'a mut Report) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// All of them, in the order of the table.
pub(crate) const ALL: &[(&str, Measure)] = &[
    ("one", |scene, report| Box::pin(one_connection(scene, report))),
    ("many", |scene, report| Box::pin(many_connections(scene, report))),
    ("token", |scene, report| Box::pin(token_delay(scene, report))),
    ("flood", |scene, report| Box::pin(flood(scene, report))),
    ("prompts", |scene, report| Box::pin(large_prompts(scene, report))),
    ("open", |scene, report| Box::pin(open_streams(scene, report))),
    ("idle", |scene, report| Box::pin(idle(scene, report))),
    ("start", |scene, report| Box::pin(first_answer(scene, report))),
    ("translation", |scene, report| Box::pin(translation(scene, report))),
];

/// Runs slices of each way in turn, the order turning with the rounds.
async fn in_turns<T, F: Future<Output = T>>(
    scene: &Scene,
    rounds: usize,
    mut slice: impl FnMut(Way) -> F,
) -> BTreeMap<Way, Vec<T>> {
    let mut ways = scene.ways();
    let mut out = BTreeMap::<Way, Vec<T>>::new();
    for _ in 0..rounds {
        for way in &ways {
            out.entry(*way).or_default().push(slice(*way).await);
        }
        ways.rotate_left(1);
    }
    out
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratio(values: &BTreeMap<Way, f64>) -> Option<f64> {
    Some(values.get(&Way::Lovable)? / values.get(&Way::HaProxy)?)
}

fn shown(values: &BTreeMap<Way, f64>, unit: &str) -> Vec<(Way, String)> {
    values.iter().map(|(way, value)| (*way, format!("{value:.0} {unit}"))).collect()
}

/// What each proxy adds to the direct way, as rows: the times, and the ratio of what was added.
fn added(report: &mut Report, name: &str, medians: &BTreeMap<Way, f64>, target: f64) {
    let direct = medians[&Way::Direct];
    report.add(Row {
        name: name.to_owned(),
        shown: shown(medians, "µs"),
        figure: None,
        unit: "",
        target: None,
    });
    let extra: BTreeMap<Way, f64> =
        medians.iter().filter(|it| *it.0 != Way::Direct).map(|(way, it)| (*way, it - direct)).collect();
    report.add(Row {
        name: "  added to direct".to_owned(),
        shown: shown(&extra, "µs"),
        figure: ratio(&extra),
        unit: "×",
        target: Some(Target::AtMost(target)),
    });
}

/// A figure per second, as a ratio to HAProxy's.
fn rates(report: &mut Report, name: &str, rates: &BTreeMap<Way, f64>, unit: &str, target: f64) {
    report.add(Row {
        name: name.to_owned(),
        shown: shown(rates, unit),
        figure: ratio(rates),
        unit: "×",
        target: Some(Target::AtLeast(target)),
    });
}

/// Processor time of each proxy per piece of work.
fn costs(report: &mut Report, what: &str, costs: &BTreeMap<Way, f64>) {
    report.add(Row {
        name: format!("  processor time per {what}"),
        shown: costs.iter().map(|(way, it)| (*way, format!("{it:.1} µs"))).collect(),
        figure: ratio(costs),
        unit: "×",
        target: None,
    });
}

async fn one_connection(scene: &Scene, report: &mut Report) {
    let ask = request("small", false, "hello");
    let lines = lines(scene, "small", 1).await;
    let slices = in_turns(scene, scene.pick(12, 60), |way| {
        let (ask, line) = (ask.clone(), lines[&way][0].clone());
        async move {
            let mut times = Vec::with_capacity(200);
            for _ in 0..200 {
                let start = Instant::now();
                answered(&line, &ask).await;
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            median(times)
        }
    })
    .await;
    let medians = slices.into_iter().map(|(way, slices)| (way, median(slices))).collect();
    added(report, "small plain request, 1 connection", &medians, 1.5);
}

type Lines = BTreeMap<Way, Vec<Rc<RefCell<Line>>>>;

async fn lines(scene: &Scene, server: &str, count: usize) -> Lines {
    let mut all = Lines::new();
    for way in scene.ways() {
        for _ in 0..count {
            let line = scene.door(way, server).open().await.expect("every way is open");
            all.entry(way).or_default().push(Rc::new(RefCell::new(line)));
        }
    }
    all
}

#[expect(clippy::await_holding_refcell_ref, reason = "each line has one user at a time")]
async fn answered(line: &Rc<RefCell<Line>>, ask: &[u8]) {
    line.borrow_mut().ask(ask, |_| true).await.expect("every request is answered");
}

/// Requests that `at_once` connections get answered within a slice: per second, and the proxy's time for each.
async fn closed_loop(
    scene: &Scene,
    server: &str,
    at_once: usize,
    ask: Vec<u8>,
    rounds: usize,
    slice: Duration,
) -> (BTreeMap<Way, f64>, BTreeMap<Way, f64>) {
    let lines = lines(scene, server, at_once).await;
    let slices = in_turns(scene, rounds, |way| {
        let (ask, lines) = (ask.clone(), lines[&way].clone());
        async move {
            let busy = || scene.pid(way).map_or(Duration::ZERO, processor);
            let (start, before) = (Instant::now(), busy());
            let each = lines.iter().map(|line| async {
                let mut count = 0;
                while start.elapsed() < slice {
                    answered(line, &ask).await;
                    count += 1;
                }
                count
            });
            let count: usize = join_all(each).await.into_iter().sum();
            let spent = (busy() - before).as_secs_f64() * 1e6;
            (count as f64 / start.elapsed().as_secs_f64(), spent / count as f64)
        }
    })
    .await;
    let rates = slices.iter().map(|(way, it)| (*way, median(it.iter().map(|it| it.0).collect()))).collect();
    let costs = slices.iter().filter(|it| *it.0 != Way::Direct);
    let costs = costs.map(|(way, it)| (*way, median(it.iter().map(|it| it.1).collect()))).collect();
    (rates, costs)
}

async fn many_connections(scene: &Scene, report: &mut Report) {
    let ask = request("small", false, "hello");
    let slice = Duration::from_millis(scene.pick(200, 1000));
    let (per_second, cost) = closed_loop(scene, "small", 64, ask, scene.pick(4, 20), slice).await;
    rates(report, "small plain requests, 64 connections", &per_second, "/s", 0.7);
    costs(report, "request", &cost);
}

async fn large_prompts(scene: &Scene, report: &mut Report) {
    let ask = request("small", false, &"x".repeat(1 << 20));
    let slice = Duration::from_millis(scene.pick(300, 1000));
    let (per_second, cost) = closed_loop(scene, "small", 4, ask, scene.pick(3, 15), slice).await;
    rates(report, "1 MiB prompts, 4 connections", &per_second, "MiB/s", 0.9);
    costs(report, "prompt", &cost);
}

async fn token_delay(scene: &Scene, report: &mut Report) {
    let ask = request("paced", true, "hello");
    let lines = lines(scene, "paced", 64).await;
    let slices = in_turns(scene, scene.pick(2, 9), |way| {
        let (ask, lines) = (ask.clone(), lines[&way].clone());
        async move {
            let each = lines.iter().map(|line| delays(line, &ask));
            median(join_all(each).await.into_iter().flatten().collect())
        }
    })
    .await;
    let medians = slices.into_iter().map(|(way, slices)| (way, median(slices))).collect();
    added(report, "delay per token, 64 streams 10 ms apart", &medians, 1.2);
}

/// How long each token was on its way, in µs. A token is the time at which it was written.
#[expect(clippy::await_holding_refcell_ref, reason = "each line has one user at a time")]
async fn delays(line: &Rc<RefCell<Line>>, ask: &[u8]) -> Vec<f64> {
    const MARK: &[u8] = b"\"content\":\"";
    let mut delays = Vec::with_capacity(128);
    let see = |bytes: &[u8]| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_nanos());
        for at in memchr::memmem::find_iter(bytes, MARK) {
            let digits: String = bytes[at + MARK.len()..]
                .iter()
                .map_while(|it| it.is_ascii_digit().then_some(*it as char))
                .collect();
            // Nineteen digits are nanoseconds in this century; less is no stamp, or a torn one.
            if digits.len() == 19
                && let Ok(written) = digits.parse::<u128>()
            {
                delays.push(now.saturating_sub(written) as f64 / 1e3);
            }
        }
        true
    };
    line.borrow_mut().ask(ask, see).await.expect("every stream is answered");
    delays
}

async fn flood(scene: &Scene, report: &mut Report) {
    let ask = request("flood", true, "hello");
    let lines = lines(scene, "flood", 64).await;
    let slices = in_turns(scene, scene.pick(2, 9), |way| {
        let (ask, lines) = (ask.clone(), lines[&way].clone());
        async move {
            let busy = || scene.pid(way).map_or(Duration::ZERO, processor);
            let (start, before) = (Instant::now(), busy());
            let each = lines.iter().map(|line| counted(line, &ask));
            let events: u64 = join_all(each).await.into_iter().sum();
            let spent = (busy() - before).as_secs_f64() * 1e6;
            (events as f64 / start.elapsed().as_secs_f64(), spent / events as f64)
        }
    })
    .await;
    let pick = |which: fn(&(f64, f64)) -> f64| -> BTreeMap<Way, f64> {
        slices.iter().map(|(way, it)| (*way, median(it.iter().map(which).collect()))).collect()
    };
    rates(report, "events, 64 streams without pauses", &pick(|it| it.0), "/s", 0.8);
    let mut cost = pick(|it| it.1);
    cost.remove(&Way::Direct);
    costs(report, "event", &cost);
}

#[expect(clippy::await_holding_refcell_ref, reason = "each line has one user at a time")]
async fn counted(line: &Rc<RefCell<Line>>, ask: &[u8]) -> u64 {
    let mut events = Events::default();
    let see = |bytes: &[u8]| {
        events.add(bytes);
        true
    };
    line.borrow_mut().ask(ask, see).await.expect("every stream is answered");
    events.count
}

/// Memory for each of a thousand streams that are open at once.
async fn open_streams(scene: &Scene, report: &mut Report) {
    const STREAMS: usize = 1000;
    let ask = request("open", true, "hello");
    let mut per_stream = BTreeMap::new();
    for way in scene.ways().into_iter().filter(|way| *way != Way::Direct) {
        let Some(pid) = scene.pid(way) else { continue };
        let before = resident(pid);
        let mut open = Vec::new();
        for _ in 0..STREAMS / 50 {
            let batch = (0..50).map(|_| async {
                let mut line = scene.door(way, "open").open().await.expect("there is room for it");
                // Its first word has come; it stays open.
                let mut events = Events::default();
                let until_word = |bytes: &[u8]| {
                    events.add(bytes);
                    events.count < 2
                };
                line.ask(&ask, until_word).await.expect("every stream is answered");
                line
            });
            open.extend(join_all(batch).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        per_stream.insert(way, (resident(pid) as f64 - before as f64) / open.len() as f64);
    }
    report.add(Row {
        name: format!("memory per open stream, {STREAMS} of them"),
        shown: per_stream.iter().map(|(way, it)| (*way, format!("{it:.1} KiB"))).collect(),
        figure: per_stream.get(&Way::Lovable).copied(),
        unit: " KiB",
        target: Some(Target::AtMost(30.0)),
    });
}

/// A daemon that looks at the whole machine and has nothing to do.
async fn idle(scene: &Scene, report: &mut Report) {
    let daemon = scene.known(Options::looking()).start().await;
    tokio::time::sleep(Duration::from_secs(scene.pick(2, 5))).await;
    let mib = resident(daemon.pid()) as f64 / 1024.0;
    report.add(Row {
        name: "resident when idle".to_owned(),
        shown: vec![(Way::Lovable, format!("{mib:.1} MiB"))],
        figure: Some(mib),
        unit: " MiB",
        target: Some(Target::AtMost(15.0)),
    });
    let (start, before) = (Instant::now(), processor(daemon.pid()));
    tokio::time::sleep(Duration::from_secs(scene.pick(5, 60))).await;
    let share = (processor(daemon.pid()) - before).as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    report.add(Row {
        name: format!("processor when idle, over {} s", start.elapsed().as_secs()),
        shown: vec![(Way::Lovable, format!("{share:.3} %"))],
        figure: Some(share),
        unit: " %",
        target: Some(Target::AtMost(0.2)),
    });
}

/// From the start of the process to the end of the first answer, with a server
/// that was known before.
async fn first_answer(scene: &Scene, report: &mut Report) {
    let mut daemon = scene.known(Options::alone()).start().await;
    let ask = request("small", false, "hello");
    let door = crate::client::Door::Unix(daemon.socket());
    let mut times = Vec::new();
    for _ in 0..scene.pick(5, 30) {
        // What is known is on the disk after half a second.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let _ = daemon.stop().await;
        let start = Instant::now();
        daemon.start_again();
        loop {
            if let Ok(mut line) = door.open().await
                && line.ask(&ask, |_| true).await.is_ok()
            {
                break;
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "no answer after a restart:\n{}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let ms = median(times);
    report.add(Row {
        name: "first answer after process start".to_owned(),
        shown: vec![(Way::Lovable, format!("{ms:.1} ms"))],
        figure: Some(ms),
        unit: " ms",
        target: Some(Target::AtMost(60.0)),
    });
}
