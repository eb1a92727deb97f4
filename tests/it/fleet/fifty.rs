//! Fifty servers: found, trusted, balanced by weight, and halved under load.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate;
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    caller::request,
    proof::{Table, is_full, times},
    witness::{Seen, question, see},
};

const MANY: usize = 50;
/// Of a worse priority: they are asked for nothing while the others are there.
const SPARE: usize = 2;
const AT_ONCE: usize = 24;
const WORDS: usize = 5;
const PAUSE: Duration = Duration::from_millis(8);

fn records() -> Vec<Srv> {
    let weight = |number| [10, 20, 30, 40][number % 4];
    let fleet = (0..MANY).map(|number| Srv { number, priority: 10, weight: weight(number) });
    let spare = (MANY..MANY + SPARE).map(|number| Srv { number, priority: 20, weight: 1 });
    fleet.chain(spare).collect()
}

/// What `send` gives back is empty.
fn nobody_noticed(failed: &[String], daemon: &Daemon) {
    assert!(failed.is_empty(), "{} failed: {:#?}\n{}", failed.len(), failed.first(), daemon.log());
}

/// Sends so many requests, each with a conversation of its own, and counts those that were not whole.
async fn send(daemon: &Daemon, requests: usize) -> Vec<String> {
    let left = Arc::new(AtomicUsize::new(requests));
    let caller = |_| {
        let (left, caller) = (left.clone(), daemon.caller());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            let mut connection = caller.connect().await.unwrap();
            while let Ok(number) = left.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)) {
                if connection.ready().await.is_err() {
                    connection = caller.connect().await.unwrap();
                    connection.ready().await.unwrap();
                }
                let body = question("sim", &format!("Count for me, number {number:06}.")).to_string();
                let asked = request("POST", "/v1/chat/completions", body.into(), &[]);
                match see(&mut connection, asked, simulate::check).await {
                    Seen { whole: Ok((WORDS, _)), .. } => {}
                    Seen { whole, .. } => failed.push(format!("{whole:?}")),
                }
            }
            failed
        })
    };
    let callers: Vec<_> = (0..AT_ONCE).map(caller).collect();
    let mut failed = Vec::new();
    for caller in callers {
        failed.extend(caller.await.unwrap());
    }
    failed
}

/// The prompts that each got.
async fn prompts(far: &Far) -> Vec<u64> {
    let mut all = Vec::new();
    for number in 0..MANY + SPARE {
        all.push(far.got(port(number)).await.prompts);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_appears_is_trusted_balanced_by_weight_and_halved_and_nobody_notices() {
    let name = "fifty::a_fleet_appears_is_trusted_balanced_by_weight_and_halved_and_nobody_notices";
    in_fleet(name, async {
        let far = with_servers(MANY + SPARE, PAUSE).await;
        let mut dns = Dns::new(&far);
        dns.list(&records()).await;
        let begun = Instant::now();
        let daemon = listing(&lookup()).start().await;

        // All of them are found, and get nothing.
        until(&daemon, "all are found", |servers| servers.len() == MANY + SPARE).await;
        let found_after = begun.elapsed();
        let servers = daemon.servers().await;
        let waits = |it: &Value| {
            it["admission"] == "untrusted"
                && it["found_by"] == serde_json::json!(["dns"])
                && it["zone"] == "lan"
        };
        assert!(servers.iter().all(waits), "{servers:#?}");
        assert!(prompts(&far).await.iter().all(|it| *it == 0));

        // A rule for the name that is looked up trusts them, without a restart.
        let begun = Instant::now();
        trust(&daemon);
        until_open(&daemon, MANY + SPARE).await;
        let trusted_after = begun.elapsed();

        // Each gets what its weight says.
        let half = times(400, 5_000);
        let failed = send(&daemon, half).await;
        nobody_noticed(&failed, &daemon);
        let before = prompts(&far).await;
        let shares = share_by_weight(&before[..MANY], half);
        assert_eq!(before[MANY..], [0; SPARE], "those of a worse priority are asked for nothing");

        // Half of them are listed no more, while requests run.
        let left: Vec<Srv> =
            records().into_iter().filter(|it| it.number % 2 == 0 || it.number >= MANY).collect();
        let halved = async {
            sleep(Duration::from_millis(300)).await;
            let begun = Instant::now();
            dns.list(&left).await;
            until_open(&daemon, left.len()).await;
            let took = begun.elapsed();
            (took, prompts(&far).await)
        };
        let (failed, (halved_after, at_that_time)) = tokio::join!(send(&daemon, half), halved);
        nobody_noticed(&failed, &daemon);
        let after = prompts(&far).await;
        for number in (1..MANY).step_by(2) {
            assert_eq!(after[number], at_that_time[number], "{} got more when it was gone", url(number));
        }
        let got: u64 = after.iter().sum();
        assert!(got >= 2 * half as u64, "{got}");

        let mut table = Table::new(
            "Fifty servers by SRV, of which half are removed",
            &["weight", "servers", "requests", "share", "share by weight"],
        );
        for (weight, (servers, requests, share, wanted)) in &shares {
            let shown = |share: f64| format!("{:.1} %", share * 100.0);
            table.row(&[weight, servers, requests, &shown(*share), &shown(*wanted)]);
            let allowed = if is_full() { 0.03 } else { 0.08 };
            assert!((share - wanted).abs() < allowed, "weight {weight}: {share:.3}, not {wanted:.3}");
        }
        table.row(&[&"all", &MANY, &(2 * half), &"0 failed", &""]);
        table.row(&[&"found after", &format!("{} ms", found_after.as_millis()), &"", &"", &""]);
        table.row(&[&"trusted after", &format!("{} ms", trusted_after.as_millis()), &"", &"", &""]);
        table.row(&[&"halved after", &format!("{} ms", halved_after.as_millis()), &"", &"", &""]);
        table.show();
        assert!(halved_after < Duration::from_secs(5), "{halved_after:?}");
    })
    .await;
}

/// For each weight how many servers have it, what they got, which share that is, and which it should be.
fn share_by_weight(prompts: &[u64], requests: usize) -> BTreeMap<u16, (usize, u64, f64, f64)> {
    let records = records();
    let sum: f64 = records[..MANY].iter().map(|it| f64::from(it.weight)).sum();
    let mut shares = BTreeMap::new();
    for (record, got) in records.iter().zip(prompts) {
        let entry: &mut (usize, u64, f64, f64) = shares.entry(record.weight).or_default();
        entry.0 += 1;
        entry.1 += got;
        entry.2 += *got as f64 / requests as f64;
        entry.3 += f64::from(record.weight) / sum;
    }
    shares
}
