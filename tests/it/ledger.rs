//! Every request is accounted for: once, rightly, also after a sudden death, and in every
//! form that it is asked for.

mod agree;
mod cluster;
mod cost;
mod killed;
mod million;
mod postgres;

use std::time::Duration;

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;

use crate::{
    caller::{Caller, chat, request},
    daemon::{Daemon, Options},
};

/// A line of the export for each request.
async fn exported(caller: &Caller, query: &str) -> Vec<Value> {
    let answer = caller.get(&format!("/lovable/v1/stats/export?format=jsonl{query}")).await;
    assert!(answer.status == 200 && answer.clean, "{}", answer.text());
    answer.text().lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// The rows of the statistics.
async fn stats(caller: &Caller, query: &str) -> Vec<Value> {
    let answer = caller.get(&format!("/lovable/v1/stats?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["rows"].as_array().unwrap().clone()
}

/// The sum of a field over rows.
fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().filter_map(|it| it[field].as_u64()).sum()
}

/// A server that answers at once.
async fn quick() -> Simulated {
    let between = Duration::from_millis(1);
    Simulated::start(Shape::Vllm, Script { words: 6, between, ..Script::default() }).await.unwrap()
}

/// Asks as a program of that name; says under which id.
async fn ask(daemon: &Daemon, program: &str) -> String {
    // Each is a conversation of its own, which may go to either server.
    let prompt = format!("Count for me, number {}.", fastrand::u64(..));
    let body = chat("sim", true, &prompt).to_string();
    let headers = [("user-agent", program)];
    let request = request("POST", "/v1/chat/completions", body.into(), &headers);
    let answer = daemon.caller().send(request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-lovable-request-id").unwrap().to_owned()
}

fn text(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn a_request_can_be_looked_up_after_a_restart() {
    let server = quick().await;
    let mut daemon = Options::alone().simulated(&server, "quick", 0).start().await;
    let first = ask(&daemon, "OpenAI/Python 1.40").await;
    let last = ask(&daemon, "curl/8.5.0").await;
    assert!(daemon.stop().await.success());
    daemon.start_again();
    daemon.until_ready().await;
    let list = daemon.caller().get("/lovable/v1/requests?limit=10").await.json();
    let ids: Vec<_> =
        list["requests"].as_array().unwrap().iter().map(|it| it["request_id"].clone()).collect();
    assert_eq!(ids, [last.as_str(), &first]);
    let one = daemon.caller().get(&format!("/lovable/v1/requests/{first}")).await.json();
    let attempt = &one["attempts"][0];
    let told = [&one["caller"], &one["ending"], &attempt["server"]].map(|it| it.as_str().unwrap());
    assert_eq!(told, ["OpenAI/Python", "delivered", "quick"]);
    assert_eq!(one["uid"], rustix::process::getuid().as_raw());
    assert!(one["sent_bytes"].as_u64().unwrap() > 100 && one["gap_ms"]["p50"].is_number(), "{one}");
    assert_eq!(attempt["candidates"][0]["rank"], 1);
    assert!(attempt["fault"].is_null(), "{one}");

    let story = text(&daemon.ctl(&["why"]).await);
    assert!(story.contains(&last) && story.contains("quick answered"), "{story}");
    let story = text(&daemon.ctl(&["why", &first]).await);
    assert!(story.contains("OpenAI/Python") && story.contains("was asked for sim"), "{story}");
    let json = text(&daemon.ctl(&["why", &first, "--json"]).await);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), one);
    assert_eq!(daemon.ctl(&["why", "req-none"]).await.status.code(), Some(1));

    let rows = stats(&daemon.caller(), "by=caller").await;
    let named: Vec<_> = rows.iter().map(|it| (it["caller"].as_str(), it["delivered"].as_u64())).collect();
    assert_eq!(named, [(Some("OpenAI/Python"), Some(1)), (Some("curl"), Some(1))]);
    assert_eq!(sum(&stats(&daemon.caller(), "since=1h&caller=curl").await, "requests"), 1);
    assert_eq!(sum(&stats(&daemon.caller(), "until=1h").await, "requests"), 0);
    assert_eq!(exported(&daemon.caller(), "&caller=curl").await.len(), 1);
}

#[tokio::test]
async fn what_is_cleared_is_gone_and_two_servers_are_compared() {
    let (one, other) = (quick().await, quick().await);
    let options = Options::alone().simulated(&one, "one", 0).simulated(&other, "other", 0);
    let mut daemon = options.start().await;
    for _ in 0..40 {
        ask(&daemon, "curl/8").await;
    }
    let compared = text(&daemon.ctl(&["stats", "compare", "one", "other"]).await);
    assert!(compared.contains("first token, median") && compared.contains("A AGAINST B"), "{compared}");
    let compared = daemon.caller().get("/lovable/v1/stats/compare?a=one&b=other").await.json();
    let count = |it: &str| compared[it].as_u64().unwrap();
    assert_eq!(count("requests_a") + count("requests_b"), 40, "{compared}");
    for (query, why) in [("a=one&b=sim", "comparison"), ("a=one", "`b` names")] {
        let answer = daemon.caller().get(&format!("/lovable/v1/stats/compare?{query}")).await;
        assert!(answer.status == 400 && answer.text().contains(why), "{}", answer.text());
    }
    let table = text(&daemon.ctl(&["stats", "export", "--format", "csv"]).await);
    assert_eq!(table.lines().count(), 41, "{table}");
    assert!(table.starts_with("request_id,at,caller,uid,dialect"), "{table}");
    let outcomes = daemon.state().join("outcomes");
    assert!(outcomes.is_dir());

    text(&daemon.ctl(&["stats", "clear"]).await);
    assert!(!outcomes.exists(), "their directories are gone");
    for _ in 0..2 {
        assert_eq!(sum(&stats(&daemon.caller(), "").await, "requests"), 0);
        assert!(exported(&daemon.caller(), "").await.is_empty());
        let list = daemon.caller().get("/lovable/v1/requests").await.json();
        assert!(list["requests"].as_array().unwrap().is_empty(), "{list}");
        assert!(daemon.stop().await.success());
        daemon.start_again();
        daemon.until_ready().await;
    }
    ask(&daemon, "curl/8").await;
    assert_eq!(exported(&daemon.caller(), "").await.len(), 1);
    assert_eq!(sum(&stats(&daemon.caller(), "since=1m").await, "requests"), 1);
}

#[tokio::test]
async fn nothing_is_stored_of_those_who_do_not_want_it() {
    let server = quick().await;
    for (name, value) in [("LOVABLE_TRACKING", "off"), ("DO_NOT_TRACK", "1")] {
        let mut daemon = Options::alone().simulated(&server, "quick", 0).env(name, value).start().await;
        let id = ask(&daemon, "curl/8").await;
        assert_eq!(daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.status, 200, "in memory");
        assert!(exported(&daemon.caller(), "").await.is_empty());
        assert!(daemon.stop().await.success());
        assert!(!daemon.state().join("outcomes").exists());
        daemon.start_again();
        daemon.until_ready().await;
        assert_eq!(daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.status, 404);
    }
}
