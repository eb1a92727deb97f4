//! Servers that die and freeze under many callers, of whom none may notice.
//!
//! The servers are processes: they are killed with SIGKILL and stopped with SIGSTOP, and what
//! the daemon sees of that is what it would see of real ones.

use std::{sync::Arc, time::Duration};

use lovable::simulate::{self, Shape};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    crowd::{COLUMNS, Crowd, Sum, all_were_delivered, resumed},
    daemon::{Daemon, Options},
    process::{Pace, Process},
    proof::{Table, times},
    witness::question,
};

const AT_ONCE: usize = 32;
const SECOND: Duration = Duration::from_secs(1);
/// Nobody waits longer than that for a word because a server froze.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);
/// An answer takes 0.4 s.
const PACE: Pace = Pace { words: 20, before: Duration::from_millis(20), between: Duration::from_millis(20) };

/// A daemon with three servers of these shapes.
async fn three(shapes: [Shape; 3]) -> (Daemon, Vec<Process>) {
    let (mut servers, mut options) = (Vec::new(), Options::alone());
    for (shape, name) in shapes.into_iter().zip(["a", "b", "c"]) {
        let server = Process::start(shape, PACE).await;
        options = options.server(&server.endpoint(), name, 0);
        servers.push(server);
    }
    (options.start().await, servers)
}

fn crowd(daemon: &Daemon, requests: usize) -> Crowd {
    // Each has a conversation of its own, so that all servers have some.
    let body = |number| question("sim", &format!("Count for me, number {number:03}."));
    Crowd { caller: daemon.caller(), body, requests, until: None, at_once: AT_ONCE, check: simulate::check }
}

/// Kills one server after the other, each second one, and starts it again.
async fn kill_one_each_second(mut servers: Vec<Process>, stop: Arc<Notify>) -> usize {
    let begun = Instant::now();
    for kills in 0.. {
        tokio::select! {
            () = tokio::time::sleep_until(begun + SECOND * (kills as u32 + 1)) => {}
            () = stop.notified() => return kills,
        }
        let server = &mut servers[kills % 3];
        server.kill().await;
        sleep(SECOND / 5).await;
        server.start_again().await;
    }
    unreachable!("the numbers do not end")
}

async fn storm(title: &str, shapes: [Shape; 3], requests: usize) {
    let (daemon, servers) = three(shapes).await;
    let mut table = Table::new(title, &COLUMNS);
    let undisturbed = Sum::of(crowd(&daemon, requests).run().await, PACE.words);
    undisturbed.row(&mut table, "undisturbed", resumed(&daemon).await);

    let stop = Arc::new(Notify::new());
    let killer = tokio::spawn(kill_one_each_second(servers, stop.clone()));
    let sum = Sum::of(crowd(&daemon, requests).run().await, PACE.words);
    stop.notify_one();
    let (kills, resumed) = (killer.await.unwrap(), resumed(&daemon).await);
    sum.row(&mut table, &format!("{kills} kills"), resumed);
    table.show();
    undisturbed.is_like(&undisturbed, "");
    sum.is_like(&undisturbed, &daemon.log());
    all_were_delivered(&daemon, 2 * requests).await;
    assert!(kills > 1 && resumed > 0, "{kills} kills, {resumed} resumed");
}

/// Of two kinds that go on with each other's answers.
const MIXED: [Shape; 3] = [Shape::Vllm, Shape::LlamaCpp, Shape::Vllm];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_a_server_is_killed_each_second() {
    storm("Three servers of two kinds, one killed each second", MIXED, times(300, 10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_it_either_where_answers_can_only_be_begun_again() {
    storm("Three that only begin again, one killed each second", [Shape::OpenAi; 3], times(150, 10_000))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_it_of_servers_that_speak_another_language() {
    storm("Three Ollamas, one killed each second", [Shape::Ollama; 3], times(150, 10_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_three_seconds_because_a_server_froze() {
    let frozen_for = SECOND * times(4, 10) as u32;
    let requests = times(400, 10_000);
    let (daemon, servers) = three(MIXED).await;
    let mut table = Table::new("Three servers of two kinds, one frozen", &COLUMNS);
    let undisturbed = Sum::of(crowd(&daemon, requests).run().await, PACE.words);
    undisturbed.row(&mut table, "undisturbed", resumed(&daemon).await);
    let (mut sums, mut before) = (Vec::new(), 0);
    for (server, shape) in servers.iter().zip(MIXED).take(times(1, 3)) {
        let freeze = async {
            sleep(SECOND).await;
            server.freeze();
            sleep(frozen_for).await;
            server.thaw();
        };
        let (seen, ()) = tokio::join!(crowd(&daemon, requests).run(), freeze);
        let (sum, after) = (Sum::of(seen, PACE.words), resumed(&daemon).await);
        let what = format!("{} frozen for {} s", shape.kind(), frozen_for.as_secs());
        sum.row(&mut table, &what, after - before);
        before = after;
        sums.push(sum);
    }
    table.show();
    for sum in &sums {
        sum.is_like(&undisturbed, &daemon.log());
        assert!(sum.longest_silence() < LONGEST_SILENCE, "{:?}", sum.longest_silence());
    }
    assert!(before > 0, "the freeze was noticed by the daemon");
    all_were_delivered(&daemon, requests * (1 + sums.len())).await;
}
