//! A database that two daemons share: whatever dies, every outcome is there exactly once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use lovable::simulate::{Fault, Plan, Script, Shape, Simulated};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{
    ask,
    cluster::{Cluster, PASSWORD},
    exported, quick, text,
};
use crate::{
    caller::{Caller, chat, request},
    daemon::{Daemon, Options},
    proof::{Table, times},
};

const PHRASE: &str = "a phrase that nobody else has ever said";
/// The longest pause after a failure, and what sending takes.
const CATCH_UP: Duration = Duration::from_secs(60);

fn shares(cluster: &Cluster, database: &str) -> String {
    format!("[stats]\npostgres = \"{}\"", cluster.url(database))
}

/// Asks without end.
async fn hammer(caller: Caller, next: Arc<AtomicUsize>) {
    loop {
        let number = next.fetch_add(1, Relaxed);
        let prompt = format!("Count for me, number {number}: {PHRASE}.");
        let body = chat("sim", number.is_multiple_of(2), &prompt).to_string();
        let request = request("POST", "/v1/chat/completions", body.into(), &[("user-agent", "hammer/1")]);
        if caller.send(request).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn postgres_of(daemon: &Daemon) -> Value {
    daemon.caller().get("/lovable/v1/status").await.json()["postgres"].clone()
}

fn has_all(it: &Value, database: &str) -> bool {
    let is_it = it["database"].as_str().is_some_and(|it| it.ends_with(&format!("/{database}")));
    is_it && it["ok"] == true && it["waiting"] == 0
}

/// Waits until the database has everything.
async fn until_all_is_there(daemon: &Daemon) {
    let start = Instant::now();
    loop {
        let it = postgres_of(daemon).await;
        if has_all(&it, "team") {
            return;
        }
        assert!(start.elapsed() < CATCH_UP, "{it}\n{}", daemon.log());
        sleep(Duration::from_millis(100)).await;
    }
}

/// The sums that a ledger and a database have to agree about, by the id of each request.
fn of_ledger(rows: &[Value]) -> BTreeMap<String, String> {
    let fields = ["ending", "status", "sent_bytes"];
    let line = |it: &Value| fields.map(|field| it[field].to_string().replace('"', "")).join("|");
    let all: BTreeMap<_, _> =
        rows.iter().map(|it| (it["request_id"].as_str().unwrap().to_owned(), line(it))).collect();
    assert_eq!(all.len(), rows.len(), "an id is there twice");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn two_daemons_and_a_database_that_dies_have_every_outcome_there_exactly_once() {
    let rounds = times(4, 40);
    let mut cluster = Cluster::start().await;
    let script =
        |plan| Script { words: 4, between: Duration::from_millis(1), after: 2, plan, ..Script::default() };
    let wrong = Plan::Sometimes { fault: Fault::DieMidStream, probability: 0.1, seed: 1 };
    let bad = Simulated::start(Shape::Vllm, script(wrong)).await.unwrap();
    let good = Simulated::start(Shape::Vllm, script(Plan::Never)).await.unwrap();
    let options = || {
        let lines = shares(&cluster, "team");
        Options::alone().simulated(&bad, "bad", 0).simulated(&good, "good", 0).config(&lines)
    };
    // Both come to an empty database at once.
    let (mut one, other) = tokio::join!(options().start(), options().start());
    let next = Arc::new(AtomicUsize::new(0));
    let mut kills = 0;
    for round in 0..rounds {
        let callers: Vec<_> = [&one, &other, &one, &other]
            .map(|it| tokio::spawn(hammer(it.caller(), next.clone())))
            .into_iter()
            .collect();
        sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
        match round % 4 {
            0 | 2 => {
                cluster.kill().await;
                sleep(Duration::from_millis(fastrand::u64(200..2000))).await;
                kills += 1;
            }
            1 => {
                cluster.signal(Signal::STOP);
                sleep(Duration::from_millis(fastrand::u64(200..2000))).await;
                cluster.signal(Signal::CONT);
            }
            // While it sends.
            _ => {
                one.kill().await;
                one.start_again();
                one.until_answering().await;
                kills += 1;
            }
        }
        cluster.start_again().await;
        sleep(Duration::from_millis(fastrand::u64(200..1000))).await;
        callers.iter().for_each(tokio::task::JoinHandle::abort);
        for caller in callers {
            let _ = caller.await;
        }
    }
    until_all_is_there(&one).await;
    until_all_is_there(&other).await;
    // Those whose callers were cut off are over a little later.
    let (mut ledger, mut table) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..100 {
        let rows = [exported(&one.caller(), "").await, exported(&other.caller(), "").await].concat();
        ledger = of_ledger(&rows);
        let text = cluster.ask("select request_id, ending, status, sent_bytes from lovable.outcomes").await;
        let lines: Vec<_> = text.lines().filter_map(|it| it.split_once('|')).collect();
        table = lines.iter().map(|(id, line)| ((*id).to_owned(), with_null(line))).collect();
        assert_eq!(table.len(), lines.len(), "an outcome is there twice");
        if table.len() == ledger.len() {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let missing: Vec<_> = ledger.iter().filter(|(id, line)| table.get(*id) != Some(line)).take(3).collect();
    assert!(
        missing.is_empty() && table.len() == ledger.len(),
        "{missing:?}, {} of {}",
        table.len(),
        ledger.len()
    );
    assert_eq!(cluster.ask("select count(distinct daemon) from lovable.outcomes").await, "2");
    let told = cluster
        .ask(&format!("select count(*) from lovable.outcomes it where it::text like '%{PHRASE}%'"))
        .await;
    assert_eq!(told, "0", "what was said is in a row");
    let attempts = "select count(*) from lovable.outcomes, jsonb_array_elements(attempt_list)";
    assert_eq!(cluster.ask(attempts).await, cluster.ask("select sum(attempts) from lovable.outcomes").await);
    let mut proof = Table::new("A shared PostgreSQL", &["rounds", "kills", "outcomes", "missing", "twice"]);
    proof.row(&[&rounds, &kills, &ledger.len(), &0, &0]);
    proof.show();
    assert!(ledger.len() > 50 * rounds, "{} outcomes", ledger.len());
}

/// As JSON has it.
fn with_null(line: &str) -> String {
    line.split('|').map(|it| if it.is_empty() { "null" } else { it }).collect::<Vec<_>>().join("|")
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_setting_is_followed_while_it_runs_and_its_password_is_nowhere() {
    let cluster = Cluster::start().await;
    cluster.ask("create database second").await;
    let server = quick().await;
    let mut daemon = Options::alone().simulated(&server, "quick", 0).start().await;
    ask(&daemon, "curl/8").await;
    assert!(postgres_of(&daemon).await.is_null());
    let plain = std::fs::read_to_string(daemon.configuration()).unwrap();
    let set = |lines: &str| std::fs::write(daemon.configuration(), format!("{plain}\n{lines}\n")).unwrap();

    // What there was before is sent too.
    set(&shares(&cluster, "team"));
    until(&daemon, |it| has_all(it, "team")).await;
    let count = "select count(*) from lovable.outcomes";
    assert_eq!(cluster.ask(count).await, "1");

    // A wrong password stops it, and is told of nowhere.
    set(&shares(&cluster, "team").replace("s3cr3t", "wr0ng"));
    ask(&daemon, "curl/8").await;
    let it = until(&daemon, |it| it["problem"] == "login").await;
    assert_eq!((&it["ok"], &it["waiting"]), (&Value::from(false), &Value::from(1)), "{it}");
    let doctor = daemon.ctl(&["doctor"]).await;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("refuses the user or the password; 1 outcome wait"), "{doctor}");
    let bundle = daemon.home().join("bundle.json");
    daemon.ctl(&["doctor", "--bundle", &bundle.display().to_string()]).await;

    // Another database gets everything, once the password is right.
    set(&shares(&cluster, "second"));
    until(&daemon, |it| has_all(it, "second")).await;
    assert_eq!(cluster.ask_in("second", count).await, "2");
    assert_eq!(cluster.ask(count).await, "1");

    // Back to the first one, which has some already.
    set(&shares(&cluster, "team"));
    until(&daemon, |it| has_all(it, "team")).await;
    assert_eq!(cluster.ask(count).await, "2");

    // What is taken away gets nothing more.
    set("");
    until(&daemon, Value::is_null).await;
    ask(&daemon, "curl/8").await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.ask(count).await, "2");

    set(&shares(&cluster, "team"));
    until(&daemon, |it| has_all(it, "team")).await;
    let told = [
        daemon.caller().get("/lovable/v1/config").await.text(),
        daemon.caller().get("/lovable/v1/status").await.text(),
        text(&daemon.ctl(&["config", "show"]).await),
        std::fs::read_to_string(bundle).unwrap(),
        daemon.log(),
    ];
    assert!(daemon.stop().await.success());
    for word in told {
        for secret in [PASSWORD, "s3cr3t", "wr0ng"] {
            assert!(!word.contains(secret), "{word}");
        }
    }
}

async fn until(daemon: &Daemon, is: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let it = postgres_of(daemon).await;
        if is(&it) {
            return it;
        }
        assert!(start.elapsed() < CATCH_UP, "{it}\n{}", daemon.log());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_row_that_is_refused_holds_nothing_up_and_few_rights_are_enough() {
    let cluster = Cluster::start().await;
    let server = quick().await;
    let maker =
        Options::alone().simulated(&server, "quick", 0).config(&shares(&cluster, "team")).start().await;
    ask(&maker, "first/1").await;
    until_all_is_there(&maker).await;
    drop(maker);
    cluster.ask("alter table lovable.outcomes add check (caller <> 'unwanted')").await;
    cluster.ask(&format!("create role bob login password '{PASSWORD}'")).await;
    cluster.ask("grant usage on schema lovable to bob").await;
    cluster.ask("grant insert on lovable.outcomes to bob").await;
    cluster.ask("grant select on lovable.version to bob").await;

    let config = shares(&cluster, "team").replace("//ann", "//bob");
    let daemon = Options::alone().simulated(&server, "quick", 0).config(&config).start().await;
    for program in ["a/1", "unwanted/1", "b/1", "c/1"] {
        ask(&daemon, program).await;
    }
    until_all_is_there(&daemon).await;
    assert_eq!(postgres_of(&daemon).await["refused"], 1);
    assert_eq!(cluster.ask("select count(*) from lovable.outcomes").await, "4");

    // What it may not do is told, and nothing is lost by it.
    cluster.ask("revoke insert on lovable.outcomes from bob").await;
    ask(&daemon, "d/1").await;
    until(&daemon, |it| it["problem"] == "not_allowed").await;
    cluster.ask("grant insert on lovable.outcomes to bob").await;
    until_all_is_there(&daemon).await;
    assert_eq!(cluster.ask("select count(*) from lovable.outcomes where caller = 'd'").await, "1");

    // Tables of a newer lovable are left alone.
    cluster.ask("update lovable.version set layout = 99").await;
    ask(&daemon, "e/1").await;
    cluster.ask("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bob'").await;
    assert!(timeout(CATCH_UP, until(&daemon, |it| it["problem"] == "newer")).await.is_ok());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_database_that_hangs_slows_no_request() {
    let cluster = Cluster::start().await;
    let server = quick().await;
    let daemon =
        Options::alone().simulated(&server, "quick", 0).config(&shares(&cluster, "team")).start().await;
    ask(&daemon, "first/1").await;
    until_all_is_there(&daemon).await;
    let mut times = [Duration::ZERO; 2];
    for (at, signal) in [Signal::CONT, Signal::STOP].into_iter().enumerate() {
        cluster.signal(signal);
        let mut each = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            ask(&daemon, "a/1").await;
            each.push(start.elapsed());
        }
        each.sort();
        times[at] = each[each.len() / 2];
    }
    let it = postgres_of(&daemon).await;
    assert!(it["waiting"].as_u64().unwrap() >= 150, "{it}");
    cluster.signal(Signal::CONT);
    until_all_is_there(&daemon).await;
    assert_eq!(cluster.ask("select count(*) from lovable.outcomes").await, "401");
    assert!(times[1] < times[0] * 2, "{times:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_connection_is_encrypted_for_whom_it_is_meant_and_nobody_else() {
    let cluster = Cluster::start().await;
    let certificate = cluster.encrypt().await;
    let server = quick().await;
    let daemon = Options::alone().simulated(&server, "quick", 0).start().await;
    ask(&daemon, "curl/8").await;
    let plain = std::fs::read_to_string(daemon.configuration()).unwrap();
    let url = cluster.url("team").replace("127.0.0.1", "localhost");
    let set = |url: &str| {
        std::fs::write(daemon.configuration(), format!("{plain}\n[stats]\npostgres = \"{url}\"\n")).unwrap();
    };
    let with = format!("sslrootcert={}", certificate.display());
    // Nobody whom this machine knows vouches for it.
    set(&format!("{url}?sslmode=require"));
    until(&daemon, |it| it["problem"] == "tls").await;
    // It is somebody else's certificate.
    set(&format!("{}?sslmode=require&{with}", url.replace("localhost", "127.0.0.1")));
    until(&daemon, |it| it["problem"] == "tls" && it["database"].as_str().unwrap().contains("127.0.0.1"))
        .await;
    assert_eq!(cluster.ask("select to_regclass('lovable.outcomes')").await, "");
    set(&format!("{url}?sslmode=require&{with}"));
    until_all_is_there(&daemon).await;
    assert_eq!(cluster.ask("select count(*) from lovable.outcomes").await, "1");
    let encrypted =
        "select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'lovabled'";
    assert_eq!(cluster.ask(encrypted).await, "t");
}
