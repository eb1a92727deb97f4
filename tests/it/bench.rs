//! `bench` as a person and a script use it.

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use lovable::{
    server::Endpoint,
    simulate::{Offer, Script, Shape, Simulated},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{process::Command, time::sleep};

use crate::{
    daemon::{Daemon, Options, clean},
    proof::Table,
    real::Real,
    terminal::Terminal,
};

/// Two models, of which one is not in memory.
async fn two_models(between: Duration) -> (Daemon, Simulated) {
    let asleep = Offer { loaded: false, ..Offer::named("asleep") };
    let script = Script {
        models: vec![Offer::named("awake"), asleep],
        words: 12,
        before: Duration::from_millis(30),
        load: Duration::from_millis(300),
        between,
        ..Script::default()
    };
    let server = Simulated::start(Shape::Ollama, script).await.unwrap();
    let mut daemon = Options::alone().simulated(&server, "sim", 0).start().await;
    daemon.until_ready().await;
    (daemon, server)
}

fn bench(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = clean(Path::new(env!("CARGO_BIN_EXE_lovablectl")), &daemon.home());
    command.arg("--socket").arg(daemon.socket()).arg("bench").args(args);
    command
}

const SHORT: [&str; 8] = ["--prompts", "32,128", "--at-once", "1,2", "--rounds", "2", "--tokens", "12"];

async fn rows(daemon: &Daemon, args: &[&str]) -> Value {
    let output = daemon.ctl(&[&["--json", "bench"], args, &SHORT].concat()).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn every_length_is_measured_with_every_number_at_once_and_nothing_is_loaded_unasked() {
    let (daemon, server) = two_models(Duration::from_millis(5)).await;
    let report = rows(&daemon, &[]).await;
    let all = report["rows"].as_array().unwrap();
    assert_eq!((all.len(), &report["ended"]), (4, &Value::from("whole")), "{report}");
    for row in all {
        assert_eq!(
            (&row["model"], &row["server"], &row["warm"]),
            (&"awake:latest".into(), &"sim".into(), &true.into())
        );
        assert_eq!(row["requests"].as_u64().unwrap(), 2 * row["at_once"].as_u64().unwrap());
        assert_eq!(row["failed"], 0);
        // 30 ms before the first word, 5 ms between words: two hundred a second at the most.
        let first = row["first_token_ms"]["p50"].as_f64().unwrap();
        assert!((29.0..500.0).contains(&first), "{row}");
        let speed = row["tokens_per_second"]["p50"].as_f64().unwrap();
        assert!((20.0..230.0).contains(&speed), "{row}");
    }
    assert!(report["left_out"][0]["name"].as_str().unwrap().starts_with("asleep:latest on"), "{report}");
    // One to warm up, and two rounds of three for each length.
    assert_eq!(server.counts().received, 1 + 2 * 2 * 3);

    let report = rows(&daemon, &["--yes", "-m", "asleep"]).await;
    let all = report["rows"].as_array().unwrap();
    assert_eq!(all.iter().filter(|it| it["warm"] == false).count(), 1, "{report}");
    assert_eq!(all.len(), 5);
    assert!(all[0]["first_token_ms"]["p50"].as_f64().unwrap() >= 300.0, "it was loaded: {report}");
    assert!(all[1]["first_token_ms"]["p50"].as_f64().unwrap() < 300.0, "{report}");
}

#[tokio::test]
async fn a_person_is_asked_before_anything_is_loaded() {
    for (answer, measured) in [("\r", false), ("y\r", true)] {
        let (daemon, server) = two_models(Duration::from_millis(1)).await;
        let mut terminal = Terminal::start(&bench(&daemon, &SHORT));
        terminal.answers("[y/N] ", answer).await;
        let before = terminal.until("ALL TOK/S").await;
        assert_eq!(before.contains("left out"), !measured, "{before}");
        assert!(terminal.ended().await.success());
        let requests = if measured { 26 } else { 13 };
        assert_eq!(server.counts().received, requests);
    }
}

#[tokio::test]
async fn what_is_there_is_told_when_it_is_interrupted_or_the_time_is_over() {
    let (daemon, _server) = two_models(Duration::from_millis(40)).await;
    let mut command = bench(&daemon, &["--rounds", "500"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    sleep(Duration::from_secs(3)).await;
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("awake"), "{output:?}");

    let output = daemon.ctl(&["--json", "bench", "--rounds", "500", "--within", "2s"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ended"], "out_of_time");
    assert!(!report["rows"].as_array().unwrap().is_empty() && output.status.success(), "{output:?}");
}

#[tokio::test]
async fn without_a_model_there_is_nothing_to_measure() {
    let daemon = Options::alone().start().await;
    let output = daemon.ctl(&["bench"]).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let output = daemon.ctl(&["bench", "-m", "nobody"]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn a_real_llama_cpp_is_measured_as_fast_as_it_is() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // It says some 150 words a second.
    let _server = Real::llama("bench", port).await;
    let endpoint = Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let mut daemon = Options::alone().server(&endpoint, "real", 0).start().await;
    daemon.until_ready().await;
    let args = ["--prompts", "30,90", "--at-once", "1,2", "--rounds", "2", "--tokens", "48"];
    let output =
        daemon.ctl_within(Duration::from_secs(120), &[&["--json", "bench"][..], &args].concat()).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = report["rows"].as_array().unwrap();
    assert_eq!((all.len(), output.status.code()), (4, Some(0)), "{report}");
    let mut table = Table::new(
        "bench with a real llama.cpp",
        &["prompt", "at once", "first token", "tokens/s", "all tokens/s"],
    );
    for row in all {
        let figure = |it: &Value| format!("{:.1}", it.as_f64().unwrap_or(f64::NAN));
        let [first, speed] = ["first_token_ms", "tokens_per_second"].map(|it| &row[it]["p50"]);
        let (first, speed, together) =
            (figure(first), figure(speed), figure(&row["total_tokens_per_second"]));
        table.row(&[&row["input_tokens"], &row["at_once"], &first, &speed, &together]);
        assert_eq!((&row["failed"], &row["warm"]), (&0.into(), &true.into()), "{row}");
        assert!(row["input_tokens"].as_f64().unwrap() > 20.0, "{row}");
        assert!((1.0..400.0).contains(&row["tokens_per_second"]["p50"].as_f64().unwrap()), "{row}");
    }
    table.show();
}
