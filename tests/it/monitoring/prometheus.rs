//! `GET /metrics`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use lovable::simulate::{Fault, Plan, Shape};

use super::quick;
use crate::daemon::{Daemon, Options};

async fn page(daemon: &Daemon) -> String {
    let answer = daemon.caller().get("/metrics").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text()
}

/// The number of a line that begins with a name and has all of these in its labels.
fn number(page: &str, name: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|it| line.contains(it))
    };
    let lines: Vec<_> = page.lines().filter(is_it).collect();
    assert_eq!(lines.len(), 1, "{name} {labels:?}: {lines:#?} in\n{page}");
    lines[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_say_what_happened_and_promtool_has_nothing_to_say() {
    let (bad, good) = (quick(Shape::Vllm).await, quick(Shape::Vllm).await);
    bad.change(|script| script.plan = Plan::Always(Fault::ServerError));
    let daemon = Options::alone().simulated(&bad, "bad", 0).simulated(&good, "good", 10).start().await;
    for stream in [true, false, true] {
        assert_eq!(daemon.caller().chat("sim", stream).await.unwrap().status, 200);
    }
    assert_eq!(daemon.caller().chat("no-such-model", true).await.unwrap().status, 404);
    let page = page(&daemon).await;

    let requests = daemon.caller().get("/lovable/v1/requests").await.json();
    let attempts: Vec<_> = requests["requests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|it| it["attempts"].as_array().unwrap())
        .collect();
    let to_bad = attempts.iter().filter(|it| it["server"] == "bad").count() as f64;
    assert!(to_bad >= 1.0);
    let good_ones =
        ["lovable_server=\"good\"", "gen_ai_provider_name=\"vllm\"", "gen_ai_request_model=\"sim\""];
    let duration = "gen_ai_client_operation_duration_seconds_count";
    assert_eq!(number(&page, duration, &good_ones), 3.0);
    assert_eq!(number(&page, duration, &["lovable_server=\"bad\"", "error_type=\"status\""]), to_bad);
    for name in
        ["gen_ai_server_request_duration_seconds_count", "gen_ai_server_time_to_first_token_seconds_count"]
    {
        assert_eq!(number(&page, name, &good_ones), 3.0, "{name}");
    }
    let usage =
        |sort: &str| number(&page, "gen_ai_client_token_usage_count", &[&good_ones[..], &[sort]].concat());
    assert_eq!(usage("gen_ai_token_type=\"output\""), 3.0);
    assert_eq!(number(&page, "lovable_failovers_total", &[]), to_bad);
    assert_eq!(
        number(
            &page,
            "lovable_requests_total",
            &["lovable_ending=\"delivered\"", "lovable_dialect=\"openai\""]
        ),
        3.0
    );
    assert_eq!(number(&page, "lovable_requests_total", &["lovable_ending=\"refused\""]), 1.0);
    assert_eq!(number(&page, "lovable_requests_in_flight", &[]), 0.0);
    assert_eq!(number(&page, "lovable_ledger_dropped_total", &[]), 0.0);
    assert_eq!(number(&page, "lovable_models_available", &[]), 1.0);
    assert_eq!(number(&page, "lovable_server_up", &["lovable_server=\"good\""]), 1.0);
    let used = number(&page, "lovable_processor_usage_ratio", &[]);
    assert!((0.0..=1.0).contains(&used), "{used}");
    assert!(number(&page, "lovable_memory_used_bytes", &[]) > 1e6);
    assert!(!page.contains("no-such-model"), "what callers write is no label");
    check(&page);
}

/// Has Prometheus' own tool look at it.
fn check(page: &str) {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else {
        eprintln!("left out: promtool (Debian's package `prometheus`) is not there");
        return;
    };
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.trim().is_empty(), "promtool: {text}\nof\n{page}");
}
