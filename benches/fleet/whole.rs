//! A daemon that knows many servers.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lovable::simulate::{At, Offer, Script, Shape, Simulated};
use tokio::time::{Instant, sleep};

use crate::{
    MODELS,
    daemon::{Daemon, Options},
};

/// Each size has ports of its own: those of the one before may not be free yet.
const FIRST_PORT: usize = 20_000;

pub(crate) async fn measure(servers: usize, at: IpAddr, short: bool) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut options = Options::alone();
    for number in 0..servers {
        let own = (0..MODELS).map(|it| Offer::named(&format!("maker/model-{number}-{it}-7b-instruct")));
        let models = own.chain([Offer::named("shared-8b")]).collect();
        let address = SocketAddr::from((at, (FIRST_PORT + servers + number) as u16));
        let script = Script { models, ..Script::default() };
        let server = Simulated::start_at(Shape::Vllm, script, At::Address(address)).await;
        all.push(server.expect("its port is free"));
        options = options.config(&format!("[[servers]]\nurl = \"http://{address}\""));
    }
    let begun = Instant::now();
    let daemon = options.start().await;
    while daemon.servers().await.iter().filter(|it| it["standing"] == "up").count() < servers {
        sleep(Duration::from_millis(200)).await;
    }
    let known = begun.elapsed();
    let mut rows = vec![("until all are known and up".to_owned(), format!("{:.1} s", known.as_secs_f64()))];
    for path in ["/lovable/v1/servers", "/v1/models", "/lovable/v1/models", "/lovable/v1/status"] {
        rows.push((format!("GET {path}"), get(&daemon, path).await));
    }
    rows.push(("a chat, whole, through the daemon".to_owned(), chat(&daemon).await));
    // What was hurried because it was new is over by then.
    sleep(Duration::from_secs(if short { 5 } else { 30 })).await;
    let seconds = if short { 10 } else { 60 };
    daemon.servers().await;
    rows.extend(rest("in the minute after a look", seconds, &daemon, &all).await);
    if !short {
        // The last turns that were given while somebody wanted something are over by then.
        sleep(Duration::from_secs(150)).await;
        rows.extend(rest("idle", seconds, &daemon, &all).await);
    }
    rows.push(("memory".to_owned(), format!("{:.1} MB", memory(daemon.pid()))));
    rows
}

/// What it does meanwhile, to keep fresh what it knows.
async fn rest(when: &str, seconds: u64, daemon: &Daemon, all: &[Simulated]) -> [(String, String); 3] {
    let before = (processor_seconds(daemon.pid()), asked(all));
    sleep(Duration::from_secs(seconds)).await;
    let after = (processor_seconds(daemon.pid()), asked(all));
    let share = (after.0 - before.0) / seconds as f64 * 100.0;
    let per_second = |count: u64| format!("{:.1}/s", count as f64 / seconds as f64);
    [
        (format!("{when}, of one core"), format!("{share:.2} %")),
        (format!("{when}, connections"), per_second(after.1.0 - before.1.0)),
        (format!("{when}, questions"), per_second(after.1.1 - before.1.1)),
    ]
}

/// Connections and questions that all servers had.
fn asked(all: &[Simulated]) -> (u64, u64) {
    let counts = all.iter().map(Simulated::counts);
    counts.fold((0, 0), |sum, it| (sum.0 + it.connections, sum.1 + it.probes))
}

async fn get(daemon: &Daemon, path: &str) -> String {
    let caller = daemon.caller();
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..10 {
        let begun = Instant::now();
        bytes = caller.get(path).await.text().len();
        times.push(begun.elapsed());
    }
    times.sort();
    format!("{:.1} ms {}K", times[times.len() / 2].as_secs_f64() * 1e3, bytes / 1000)
}

async fn chat(daemon: &Daemon) -> String {
    let caller = daemon.caller();
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let answer = caller.chat("shared-8b", false).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        times.push(begun.elapsed());
    }
    times.sort();
    format!("{:.2} ms", times[times.len() / 2].as_secs_f64() * 1e3)
}

fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').map(|it| it.1.split_ascii_whitespace());
    let ticks = fields.map(|it| it.skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum::<u64>());
    // A tick is 10 ms for every process, on every Linux.
    ticks.unwrap_or_default() as f64 / 100.0
}

fn memory(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
