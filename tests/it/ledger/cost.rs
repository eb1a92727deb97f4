//! What a request costs the daemon with and without the ledger and the line in the log: in
//! instructions, which no neighbour on the machine changes, and in time of the processor.

use std::{fs, path::Path, time::Duration};

use lovable::simulate::{Script, Shape, Simulated};

use crate::{
    daemon::{Daemon, Options},
    proof::{Table, is_full},
};

/// Enough that each of them weighs more than what the daemon does by itself meanwhile.
const FEW: usize = 300;
const MANY: usize = 1_800;
const TIMED: usize = 1_500;
/// What else runs on the machine only ever adds: the least of these is nearest to the truth.
const ROUNDS: usize = 5;

const SETTINGS: [(&str, &str, &str); 4] = [
    ("neither", "off", "warn"),
    ("the line in the log", "off", "info"),
    ("the ledger", "on", "warn"),
    ("both", "on", "info"),
];

fn options(server: &Simulated, tracking: &str, level: &str) -> Options {
    let options = Options::alone().simulated(server, "sim", 0);
    let config = format!("[stats]\ntracking = {}\n", tracking == "on");
    options.config(&config).env("LOVABLE_LOG", level)
}

async fn ask(daemon: &Daemon, count: usize) {
    let caller = daemon.caller();
    for _ in 0..count {
        assert_eq!(caller.chat("sim", false).await.unwrap().status, 200);
    }
}

/// Instructions of a life of the daemon in which it is asked so often.
async fn life(options: Options, count: usize) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let log = format!("--log-file={}", told.display());
    let valgrind =
        ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", &log];
    let mut daemon = options.under(&valgrind).start().await;
    ask(&daemon, count).await;
    assert!(daemon.stop().await.success(), "{}", daemon.log());
    let told = fs::read_to_string(told).unwrap();
    let line = told.lines().find(|it| it.contains("refs:")).unwrap_or_else(|| panic!("{told}"));
    line.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
}

/// What all threads of a process have used of the processor.
fn processor(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let spent = threads.filter_map(|it| fs::read_to_string(it.path().join("schedstat")).ok());
    spent.map(|it| Duration::from_nanos(it.split(' ').next().unwrap().parse().unwrap())).sum()
}

#[tokio::test]
async fn a_request_costs_little_more_with_the_ledger_and_the_log() {
    if !is_full() {
        return;
    }
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let mut table = Table::new(
        "What a request costs the daemon",
        &["with", "instructions", "more", "time of the processor", "more"],
    );
    let mut times = [Duration::MAX; SETTINGS.len()];
    for _ in 0..ROUNDS {
        for (least, (_, tracking, level)) in times.iter_mut().zip(SETTINGS) {
            let mut daemon = options(&server, tracking, level).start().await;
            ask(&daemon, 200).await;
            let before = processor(daemon.pid());
            ask(&daemon, TIMED).await;
            // What is written in batches is part of it.
            tokio::time::sleep(Duration::from_millis(600)).await;
            *least = (*least).min((processor(daemon.pid()) - before) / TIMED as u32);
            assert!(daemon.stop().await.success());
        }
    }
    let counts = Path::new("/usr/bin/valgrind").exists();
    let mut least = None;
    for (time, (name, tracking, level)) in times.into_iter().zip(SETTINGS) {
        let micros = |it: Duration| format!("{:.0} us", it.as_secs_f64() * 1e6);
        let more = micros(time.saturating_sub(times[0]));
        if !counts {
            table.row(&[&name, &"(no valgrind)", &"", &micros(time), &more]);
            continue;
        }
        let few = life(options(&server, tracking, level), FEW).await;
        let many = life(options(&server, tracking, level), MANY).await;
        let each = (many - few) / (MANY - FEW) as u64;
        let least = *least.get_or_insert(each);
        table.row(&[&name, &each, &each.saturating_sub(least), &micros(time), &more]);
    }
    table.show();
}
