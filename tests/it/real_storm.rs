//! Real servers that die and freeze under many callers, of whom none may notice.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    crowd::{COLUMNS, Crowd, Sum, all_were_delivered, resumed},
    daemon::{Daemon, Options},
    proof::{Table, is_full, times},
    real::{Real, check, odd_port, until_found},
    witness::question,
};

const MODEL: &str = "real-storm";
const WORDS: usize = 40;
const SECOND: Duration = Duration::from_secs(1);
/// Nobody waits longer than that for a word because a server froze.
const LONGEST_SILENCE: Duration = Duration::from_secs(3);

/// As many callers as two cores allow, for so long.
fn crowd(daemon: &Daemon, lasting: Duration) -> Crowd {
    let body = |number| {
        let mut body = question(MODEL, &format!("Count for me, number {number:03}."));
        body["max_tokens"] = WORDS.into();
        body
    };
    Crowd {
        caller: daemon.caller(),
        body,
        requests: usize::MAX,
        until: Some(Instant::now() + lasting),
        at_once: 4,
        check,
    }
}

/// Kills one and then the other, and starts each again before the next is killed.
async fn kill_in_turn(mut servers: [Real; 2], stop: Arc<Notify>) -> (usize, [Real; 2]) {
    for kills in 0.. {
        tokio::select! {
            () = sleep(2 * SECOND) => {}
            () = stop.notified() => return (kills, servers),
        }
        let server = &mut servers[kills % 2];
        server.kill().await;
        sleep(SECOND / 2).await;
        server.start_again().await;
    }
    unreachable!("the numbers do not end")
}

async fn storm(title: &str, servers: [Real; 2]) {
    let daemon = Options::looking().start().await;
    until_found(&daemon, &servers.each_ref().map(Real::port)).await;
    let mut table = Table::new(title, &COLUMNS);
    let undisturbed = Sum::of(crowd(&daemon, times(4, 60) as u32 * SECOND).run().await, WORDS);
    undisturbed.row(&mut table, "undisturbed", resumed(&daemon).await);

    let stop = Arc::new(Notify::new());
    let killer = tokio::spawn(kill_in_turn(servers, stop.clone()));
    let killed = Sum::of(crowd(&daemon, times(8, 180) as u32 * SECOND).run().await, WORDS);
    stop.notify_one();
    let (kills, servers) = killer.await.unwrap();
    let after_kills = resumed(&daemon).await;
    killed.row(&mut table, &format!("{kills} kills"), after_kills);

    // The other one must be there: it may have been killed a moment ago.
    until_found(&daemon, &servers.each_ref().map(Real::port)).await;
    let [frozen, _other] = servers;
    let frozen_for = times(4, 10) as u32 * SECOND;
    let freeze = async {
        sleep(SECOND).await;
        frozen.freeze();
        sleep(frozen_for).await;
        frozen.thaw();
    };
    let (seen, ()) = tokio::join!(crowd(&daemon, frozen_for + 2 * SECOND).run(), freeze);
    let still = Sum::of(seen, WORDS);
    let what = format!("one frozen for {} s", frozen_for.as_secs());
    still.row(&mut table, &what, resumed(&daemon).await - after_kills);
    table.show();

    for sum in [&undisturbed, &killed, &still] {
        sum.is_like(&undisturbed, &daemon.log());
    }
    // A queue in front of the two is there without a freeze as well.
    let silence = still.longest_silence().saturating_sub(undisturbed.longest_silence());
    assert!(silence < LONGEST_SILENCE, "{silence:?}\n{}", daemon.log());
    assert!(kills > 0 && after_kills > 0, "{kills} kills, {after_kills} resumed");
    all_were_delivered(&daemon, undisturbed.count() + killed.count() + still.count()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn nobody_notices_that_one_of_two_llama_cpp_dies_or_freezes() {
    let servers = [Real::llama(MODEL, odd_port().await).await, Real::llama(MODEL, odd_port().await).await];
    storm("Two real llama.cpp", servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real vLLM; tests/prove sets it up"]
async fn nobody_notices_that_vllm_or_llama_cpp_dies_or_freezes() {
    if !is_full() {
        return;
    }
    let servers = [Real::vllm(MODEL, odd_port().await).await, Real::llama(MODEL, odd_port().await).await];
    storm("A real vLLM and a real llama.cpp", servers).await;
}
