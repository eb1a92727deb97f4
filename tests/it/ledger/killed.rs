//! SIGKILL of the daemon under load: at most the last half second is lost, and nothing is there
//! twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};

use super::{exported, stats, sum};
use crate::{
    caller::{Caller, chat, request},
    daemon::Options,
    proof::{Table, times},
};

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Asks without end, and notes when each answer was whole.
async fn hammer(caller: Caller, next: Arc<AtomicUsize>, done: Arc<Mutex<BTreeMap<String, Instant>>>) {
    loop {
        let number = next.fetch_add(1, Relaxed);
        let id = format!("number-{number}");
        let body = chat("sim", number.is_multiple_of(2), "Count for me.").to_string();
        let request = request("POST", "/v1/chat/completions", body.into(), &[("x-request-id", &id)]);
        match caller.send(request).await {
            Ok(answer) if answer.clean => drop(done.lock().unwrap().insert(id, Instant::now())),
            // It is gone, and says so at once.
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_half_a_second_is_lost_when_the_daemon_is_killed_and_nothing_is_there_twice() {
    let rounds = times(3, 30);
    let script =
        |plan| Script { words: 4, between: Duration::from_millis(1), after: 2, plan, ..Script::default() };
    let wrong = Plan::Sometimes { fault: Fault::DieMidStream, probability: 0.1, seed: 1 };
    let bad = Simulated::start(Shape::Vllm, script(wrong)).await.unwrap();
    let good = Simulated::start(Shape::Vllm, script(Plan::Never)).await.unwrap();
    let mut daemon = Options::alone().simulated(&bad, "bad", 0).simulated(&good, "good", 0).start().await;
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(Mutex::new(BTreeMap::new()));
    let (mut lost, mut longest, mut slowest) = (BTreeSet::new(), Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let callers: Vec<_> =
            (0..4).map(|_| tokio::spawn(hammer(daemon.caller(), next.clone(), done.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(900..1900))).await;
        let killed = Instant::now();
        daemon.kill().await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        for caller in callers {
            let _ = caller.await;
        }
        let start = Instant::now();
        daemon.start_again();
        daemon.until_answering().await;
        slowest = slowest.max(start.elapsed());

        let rows = exported(&daemon.caller(), "").await;
        let mut there = BTreeSet::new();
        for row in &rows {
            let id = row["request_id"].as_str().unwrap();
            assert!(there.insert(id.to_owned()), "round {round}: {id} is there twice");
        }
        for (id, at) in done.lock().unwrap().iter() {
            if !there.contains(id) && !lost.contains(id) {
                lost.insert(id.clone());
                longest = longest.max(killed.saturating_duration_since(*at));
            }
        }
        assert!(longest <= HALF_A_SECOND, "round {round} lost what was over {longest:?} before: {lost:?}");
        // Sums and rows say the same, and go on saying it.
        for query in ["", "by=caller", "by=day"] {
            assert_eq!(sum(&stats(&daemon.caller(), query).await, "requests"), rows.len() as u64, "{query}");
        }
        let attempts: usize = rows.iter().map(|it| it["attempts"].as_array().unwrap().len()).sum();
        assert_eq!(sum(&stats(&daemon.caller(), "by=server").await, "requests"), attempts as u64);
        daemon.until_ready().await;
    }
    let done = done.lock().unwrap().len();
    let mut table = Table::new(
        "The ledger and SIGKILL",
        &["kills", "answers", "lost", "longest before the kill", "slowest start"],
    );
    let ms = |it: Duration| format!("{} ms", it.as_millis());
    table.row(&[&rounds, &done, &lost.len(), &ms(longest), &ms(slowest)]);
    table.show();
    assert!(done > 10 * rounds, "{done} answers");
}
