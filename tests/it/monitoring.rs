//! What others see of the daemon while it works: metrics, traces, the feed, and how busy the
//! machine was.

mod feed;
pub(crate) mod otlp;
mod prometheus;

use std::time::Duration;

use lovable::simulate::{Script, Shape, Simulated};
use serde_json::Value;

use crate::daemon::Daemon;

/// A server that answers at once.
async fn quick(shape: Shape) -> Simulated {
    Simulated::start(shape, Script { words: 6, between: Duration::from_millis(1), ..Script::default() })
        .await
        .unwrap()
}

#[tokio::test]
async fn how_busy_the_machine_was_is_told_of_a_request_that_ran_for_a_while() {
    let script = Script { words: 30, between: Duration::from_millis(50), ..Script::default() };
    let server = Simulated::start(Shape::Vllm, script).await.unwrap();
    let mut daemon = crate::daemon::Options::alone().simulated(&server, "slow", 0).start().await;
    let answer = daemon.caller().chat("sim", true).await.unwrap();
    let id = answer.header("x-lovable-request-id").unwrap().to_owned();
    let first = hardware_of(&daemon, &id).await;
    let total = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = total.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024;
    for when in ["start", "peak"] {
        let percent = first[when]["processor_percent"].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{first}");
        let used = first[when]["memory_used_bytes"].as_u64().unwrap();
        assert!(0 < used && used < total, "{first}");
    }
    let [start, peak] = ["start", "peak"].map(|it| first[it]["processor_percent"].as_f64().unwrap());
    assert!(start <= peak, "{first}");
    let has_gpu = !daemon.caller().get("/lovable/v1/status").await.json()["hardware"]["gpus"]
        .as_array()
        .unwrap()
        .is_empty();
    assert_eq!(first["peak"]["gpu_percent"].is_null(), !has_gpu, "absent is absent: {first}");

    assert!(daemon.stop().await.success());
    daemon.start_again();
    daemon.until_ready().await;
    assert_eq!(hardware_of(&daemon, &id).await, first, "it is kept");
    let stats = daemon.caller().get("/lovable/v1/stats?by=server").await.json();
    assert_eq!(stats["rows"][0]["hardware"], first);
    let csv = daemon.caller().get("/lovable/v1/stats/export?format=csv").await.text();
    let mut lines = csv.lines().map(|it| it.split(',').collect::<Vec<_>>());
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = |name: &str| values[names.iter().position(|it| *it == name).unwrap()];
    assert_eq!(at("memory_used_peak_bytes"), first["peak"]["memory_used_bytes"].to_string());
    assert_eq!(at("gpu_power_peak_watts").is_empty(), first["peak"]["gpu_power_watts"].is_null());
}

async fn hardware_of(daemon: &Daemon, id: &str) -> Value {
    daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json()["hardware"].clone()
}
