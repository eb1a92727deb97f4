//! Traces and metrics for a collector.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lovable::simulate::{Fault, Plan, Shape};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::Child,
};

use super::quick;
use crate::{
    caller::{chat, request},
    daemon::{Daemon, Options},
};

/// A python that has the official definitions; `None` where none can be had.
fn python() -> Option<String> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/target/prove/otlp");
    let python = format!("{dir}/bin/python");
    if !Path::new(&format!("{dir}/ready")).exists() {
        let run = |program: &str, args: &[&str]| {
            let status = Command::new(program).args(args).stdout(Stdio::null()).status();
            status.is_ok_and(|it| it.success())
        };
        let made = run("python3", &["-m", "venv", dir])
            && run(&python, &["-m", "pip", "install", "-q", "opentelemetry-proto==1.45.2"]);
        if !made {
            return None;
        }
        std::fs::write(format!("{dir}/ready"), "").unwrap();
    }
    Some(python)
}

/// A collector that reads what it gets with the official definitions.
struct Collector {
    _child: Child,
    port: u16,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start(python: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/monitoring/receiver.py");
        let mut child = tokio::process::Command::new(python)
            .arg(script)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        let messages = Arc::<Mutex<Vec<Value>>>::default();
        let all = messages.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                all.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { _child: child, port, messages }
    }

    fn of(&self, path: &str) -> Vec<Value> {
        let messages = self.messages.lock().unwrap();
        messages.iter().filter(|it| it["path"] == path).cloned().collect()
    }

    fn spans(&self) -> Vec<Value> {
        self.of("/v1/traces")
            .iter()
            .flat_map(|it| {
                it["message"]["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
            })
            .collect()
    }
}

fn attribute<'a>(of: &'a Value, key: &str) -> &'a Value {
    let all = of["attributes"].as_array().unwrap();
    all.iter().find(|it| it["key"] == key).map_or(&Value::Null, |it| &it["value"])
}

async fn until(daemon: &Daemon, what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(20), "not in time: {what}: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn told(options: Options, port: u16) -> Options {
    options.config(&format!("[stats]\notlp = \"http://127.0.0.1:{port}\"\n"))
}

#[tokio::test]
async fn a_collector_reads_traces_and_metrics_by_the_official_definitions() {
    let Some(python) = python() else {
        eprintln!("left out: pip cannot give opentelemetry-proto");
        return;
    };
    let collector = Collector::start(&python).await;
    let (bad, good) = (quick(Shape::Vllm).await, quick(Shape::Vllm).await);
    bad.change(|script| script.plan = Plan::Always(Fault::ServerError));
    let options = Options::alone().simulated(&bad, "bad", 0).simulated(&good, "good", 10);
    let mut daemon = told(options, collector.port).start().await;
    let body = chat("sim", true, "Hello.").to_string();
    let parent = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer =
        daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), &[parent])).await.unwrap();
    assert_eq!(answer.status, 200);
    until(&daemon, "spans", || collector.spans().len() == 3).await;
    assert!(daemon.stop().await.success());
    until(&daemon, "metrics", || !collector.of("/v1/metrics").is_empty()).await;

    for message in collector.messages.lock().unwrap().iter() {
        assert_eq!(message["type"], "application/x-protobuf");
        assert_eq!(message["unknown"], false, "all fields are known: {message}");
    }
    let spans = collector.spans();
    let own = spans.iter().find(|it| it["kind"] == "SPAN_KIND_SERVER").unwrap();
    assert_eq!(own["name"], "chat sim");
    // Bytes are base64 in JSON: the caller's trace, and its span.
    assert_eq!(
        (&own["traceId"], &own["parentSpanId"]),
        (&"S/kvNXezTaajzpKdDg5HNg==".into(), &"APBnqgupArc=".into())
    );
    assert_eq!(attribute(own, "gen_ai.operation.name")["stringValue"], "chat");
    assert_eq!(attribute(own, "gen_ai.response.model")["stringValue"], "sim");
    assert_eq!(attribute(own, "lovable.ending")["stringValue"], "delivered");
    assert_eq!(attribute(own, "lovable.attempts")["intValue"], "2");
    let id = answer.header("x-lovable-request-id").unwrap();
    assert_eq!(attribute(own, "lovable.request_id")["stringValue"], id);
    assert!(own["status"].is_null(), "{own}");
    let below: Vec<_> = spans.iter().filter(|it| it["parentSpanId"] == own["spanId"]).collect();
    let servers: Vec<_> = below.iter().map(|it| &attribute(it, "lovable.server")["stringValue"]).collect();
    assert_eq!(servers, ["bad", "good"]);
    assert_eq!(below[0]["status"]["code"], "STATUS_CODE_ERROR");
    assert_eq!(attribute(below[0], "error.type")["stringValue"], "status");
    assert_eq!(below[1]["events"][0]["name"], "first token");
    let time = |it: &Value, name: &str| it[name].as_str().unwrap().parse::<u64>().unwrap();
    for it in &below {
        assert!(time(own, "startTimeUnixNano") <= time(it, "startTimeUnixNano"));
        assert!(time(it, "endTimeUnixNano") <= time(own, "endTimeUnixNano"));
    }

    let last = collector.of("/v1/metrics").pop().unwrap();
    let resource = &last["message"]["resourceMetrics"][0];
    assert_eq!(attribute(&resource["resource"], "service.name")["stringValue"], "lovable");
    let metrics = resource["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let find = |name: &str| metrics.iter().find(|it| it["name"] == name).unwrap();
    let durations = &find("gen_ai.client.operation.duration")["histogram"];
    assert_eq!(durations["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    assert_eq!(durations["dataPoints"].as_array().unwrap().len(), 2);
    assert_eq!(durations["dataPoints"][0]["bucketCounts"].as_array().unwrap().len(), 15);
    assert_eq!(find("lovable.failovers")["sum"]["dataPoints"][0]["asDouble"], 1.0);
}

/// A collector that can be away: it takes whole requests and counts their bytes.
pub(crate) async fn takes_all(listener: TcpListener, bytes: Arc<Mutex<Vec<u8>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let bytes = bytes.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                head.extend_from_slice(&buffer[..read]);
                let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") else { continue };
                let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
                let length = text.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if head.len() >= end + 4 + length {
                    bytes.lock().unwrap().extend_from_slice(&head);
                    head.clear();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        });
    }
}

async fn status(daemon: &Daemon) -> Value {
    daemon.caller().get("/lovable/v1/status").await.json()["otlp"].clone()
}

#[tokio::test]
async fn a_collector_that_is_away_costs_no_request_and_hears_what_was_held_back() {
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = away.local_addr().unwrap().port();
    drop(away);
    let server = quick(Shape::Vllm).await;
    let daemon = told(Options::alone().simulated(&server, "sim", 0), port).start().await;
    for _ in 0..20 {
        assert_eq!(daemon.caller().chat("sim", false).await.unwrap().status, 200);
    }
    let start = Instant::now();
    while status(&daemon).await["ok"] == true {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", status(&daemon).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = || daemon.log().matches("takes no traces: it cannot be reached").count();
    until(&daemon, "it is in the log", || said() > 0).await;
    assert_eq!(said(), 1, "said once: {}", daemon.log());
    let bytes = Arc::default();
    let back = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(takes_all(back, Arc::clone(&bytes)));
    until(&daemon, "what was held back", || {
        memchr::memmem::find_iter(&bytes.lock().unwrap(), b"lovable.request_id").count() >= 20
    })
    .await;
    // The collector has it a moment before the daemon knows that.
    let start = Instant::now();
    while status(&daemon).await != serde_json::json!({"ok": true, "waiting": 0, "dropped": 0}) {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", status(&daemon).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_collector_can_be_named_and_unnamed_while_requests_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    tokio::spawn(takes_all(listener, bytes.clone()));
    let server = quick(Shape::Vllm).await;
    let options = Options::alone().simulated(&server, "sim", 0);
    let without = options.text();
    let daemon = options.start().await;
    daemon.caller().chat("sim", false).await.unwrap();
    assert!(status(&daemon).await.is_null());
    for (text, named) in
        [(format!("{without}[stats]\notlp = \"http://127.0.0.1:{port}\"\n"), true), (without, false)]
    {
        std::fs::write(daemon.configuration(), text).unwrap();
        let start = Instant::now();
        while status(&daemon).await.is_null() == named {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        daemon.caller().chat("sim", false).await.unwrap();
    }
    until(&daemon, "the one request", || !bytes.lock().unwrap().is_empty()).await;
    let told = memchr::memmem::find_iter(&bytes.lock().unwrap(), b"lovable.request_id").count();
    assert_eq!(told, 1, "what came before and after is nobody's business");
}
