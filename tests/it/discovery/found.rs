//! Any server, on any port, soon; and each only once.

use std::{
    net::{Ipv6Addr, TcpListener},
    time::Duration,
};

use lovable::simulate::{At, Offer, Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    at,
    listener::{Deed, Listener, http, json_of, llama, openai},
    looking, until, until_said, until_up, url, usual_port,
};
use crate::{
    caller::Verdict,
    daemon::{Daemon, Options},
    proof::{Table, times},
};

#[tokio::test]
async fn servers_on_odd_ports_are_there_within_a_second_and_gone_within_two() {
    let daemon = looking().start().await;
    let (mut found, mut lost, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..times(5, 50) {
        let shape = Shape::ALL[round % Shape::ALL.len()];
        let model = format!("odd-{round}");
        let script = Script { models: vec![Offer::named(&model)], ..Script::default() };
        let server = Simulated::start(shape, script).await.unwrap();
        let start = Instant::now();
        let url = url(server.port());
        let seen = until_up(&daemon, &url).await;
        found.push(start.elapsed());
        let tagged = if shape == Shape::Ollama { format!("{model}:latest") } else { model.clone() };
        let version = match shape {
            Shape::Ollama => json!("0.24.0"),
            Shape::Vllm => json!("0.32.0"),
            Shape::LlamaCpp => json!("b0-simulated"),
            Shape::LmStudio | Shape::OpenAi => Value::Null,
        };
        assert_eq!(
            (&seen["kind"], &seen["version"], &seen["models"], &seen["found_by"], &seen["admission"]),
            (&json!(shape.kind()), &version, &json!([tagged]), &json!(["socket-table"]), &json!("open")),
        );

        server.kill().await;
        let start = Instant::now();
        until(&daemon, &url, "is down", |it| it["standing"] == "down").await;
        lost.push(start.elapsed());

        server.revive().await;
        let start = Instant::now();
        let again = until_up(&daemon, &url).await;
        back.push(start.elapsed());
        assert_eq!(again["id"], seen["id"]);
        let answer = daemon.caller().chat(&model, false).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());
    }
    let mut table = Table::new("discovery of servers on odd ports, ms", &["what", "p50", "most", "promised"]);
    for (what, times, promised) in
        [("found", &mut found, 1000), ("gone", &mut lost, 2000), ("back", &mut back, 1000)]
    {
        times.sort();
        let most = times[times.len() - 1];
        table.row(&[&what, &times[times.len() / 2].as_millis(), &most.as_millis(), &promised]);
        // Twice the promise, for a machine that is busy with other tests.
        assert!(most < Duration::from_millis(2 * promised), "{what}: {times:?}");
    }
    table.show();
}

#[tokio::test]
async fn a_request_that_finds_nobody_takes_a_server_out_at_once() {
    // Without the table nothing else could tell so soon.
    let server = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    let daemon = Options::alone().simulated(&server, "sim", 0).start().await;
    server.kill().await;
    let answer = daemon.caller().chat("sim", false).await.unwrap();
    assert!(answer.status >= 500, "{}", answer.text());
    let servers = daemon.servers().await;
    assert_eq!(at(&servers, &url(server.port())).unwrap()["standing"], "down");
}

#[tokio::test]
async fn a_server_at_a_usual_port_is_found_by_both() {
    let daemon = looking().start().await;
    let server = Listener::on(usual_port(), openai("usual"));
    let seen = until_up(&daemon, &server.url()).await;
    assert_eq!(seen["found_by"], json!(["port", "socket-table"]));
}

#[tokio::test]
async fn without_the_table_usual_ports_are_found_and_no_others() {
    let usual = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = usual.local_addr().unwrap().port();
    drop(usual);
    let config = format!("[discovery]\nmdns = false\nsocket_table = false\nports = [{port}]\n");
    let daemon = Options::default().env("LOVABLE_LOG", "lovable=debug").config(&config).start().await;
    let odd = Listener::start(openai("odd")).of(&daemon);
    let script = Script { models: vec![Offer::named("usual")], ..Script::default() };
    let server = Simulated::start_at(Shape::Vllm, script, At::Port(port)).await.unwrap();
    let seen = until_up(&daemon, &url(port)).await;
    assert_eq!((&seen["found_by"], &seen["admission"]), (&json!(["port"]), &json!("open")));
    let answer = daemon.caller().chat("usual", true).await.unwrap();
    assert!(matches!(answer.verdict(), Verdict::Whole(_)), "{}", answer.text());

    server.kill().await;
    until(&daemon, &url(port), "is down", |it| it["standing"] == "down").await;
    server.revive().await;
    assert_eq!(until_up(&daemon, &url(port)).await["id"], seen["id"]);
    assert_eq!(odd.heard().len(), 0);
}

async fn with_port(daemon: &Daemon, port: u16) -> Vec<String> {
    let servers = daemon.servers().await;
    let urls = servers.iter().filter_map(|it| it["url"].as_str());
    urls.filter(|it| it.ends_with(&format!(":{port}"))).map(str::to_owned).collect()
}

/// The same port of both loopback addresses.
fn pair() -> (TcpListener, TcpListener) {
    loop {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, v4.local_addr().unwrap().port())) {
            return (v4, v6);
        }
    }
}

#[tokio::test]
async fn views_of_one_server_are_one_and_two_servers_are_two() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return;
    }
    let daemon = looking().start().await;
    let dual = Listener::on(TcpListener::bind("[::]:0").unwrap(), openai("dual"));
    let (v4, v6) = pair();
    let both = (Listener::on(v4, openai("both")), Listener::on(v6, openai("both")));
    let (v4, v6) = pair();
    let two = (Listener::on(v4, openai("one")), Listener::on(v6, openai("other")));

    for url in [&url(dual.port()), &both.0.url(), &both.1.url(), &two.0.url(), &two.1.url()] {
        until_said(&daemon, url, "recognised").await;
    }
    until_up(&daemon, &two.0.url()).await;
    until_up(&daemon, &two.1.url()).await;
    assert_eq!(with_port(&daemon, dual.port()).await, [url(dual.port())]);
    let seen = with_port(&daemon, both.0.port()).await;
    assert_eq!(seen.len(), 1, "{seen:?}");

    // The view that is left carries on.
    let first = daemon.servers().await;
    let first = at(&first, &seen[0]).unwrap()["id"].clone();
    let (gone, left) = if seen[0] == both.0.url() { (both.0, both.1) } else { (both.1, both.0) };
    drop(gone);
    let now = until_up(&daemon, &left.url()).await;
    assert_eq!(now["id"], first);
}

#[tokio::test]
async fn private_engines_are_no_servers_until_their_parent_is_gone() {
    let daemon = looking().start().await;
    let child = Listener::start(llama("/models/a.gguf", json!({"id": "child", "owned_by": "llamacpp"})));
    let args = json!(["llama-server", "--port", child.port().to_string()]);
    let entry = json!({"id": "routed", "owned_by": "llamacpp", "status": {"value": "loaded", "args": args}});
    let router = Listener::start(llama("", entry));
    let parent = Simulated::start(Shape::Ollama, Script::default()).await.unwrap();
    let blob = "/usr/share/ollama/.ollama/models/blobs/sha256-a88fe1";
    let engine = Listener::start(llama(blob, json!({"id": "engine", "owned_by": "llamacpp"})));

    until_up(&daemon, &router.url()).await;
    until_up(&daemon, &url(parent.port())).await;
    for hidden in [&child, &engine] {
        until_said(&daemon, &hidden.url(), "recognised").await;
        daemon.until("it is hidden", |servers| at(servers, &hidden.url()).is_none()).await;
    }
    drop(router);
    until_up(&daemon, &child.url()).await;
}

#[tokio::test]
async fn an_engine_of_an_ollama_that_is_switched_off_is_no_server() {
    let daemon = looking().env("OLLAMA_ENABLED", "false").start().await;
    let parent = Simulated::start(Shape::Ollama, Script::default()).await.unwrap();
    let blob = "/usr/share/ollama/.ollama/models/blobs/sha256-a88fe1";
    let engine = Listener::start(llama(blob, json!({"id": "engine", "owned_by": "llamacpp"})));
    let other = Simulated::start(Shape::Vllm, Script::default()).await.unwrap();
    until_up(&daemon, &url(other.port())).await;
    for off in [url(parent.port()), engine.url()] {
        until_said(&daemon, &off, "recognised").await;
        assert!(at(&daemon.servers().await, &off).is_none(), "{off}");
    }
}

#[tokio::test]
async fn a_daemon_finds_neither_itself_nor_another() {
    let ports = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, other] = ports.map(|it| it.local_addr().unwrap().port());
    let start = |port: u16| looking().arg("--listen").arg(&format!("127.0.0.1:{port}")).start();
    let (first, second) = (start(one).await, start(other).await);
    until_said(&first, &url(other), "recognised").await;
    until_said(&second, &url(one), "recognised").await;
    for daemon in [&first, &second] {
        let servers = daemon.servers().await;
        assert!([one, other].iter().all(|it| at(&servers, &url(*it)).is_none()), "{servers:?}");
    }
    let own = format!("endpoint={}", url(one));
    assert!(!first.log().lines().any(|it| it.split(' ').any(|part| part == own)), "it asked itself");
}

#[tokio::test]
async fn a_model_that_an_ollama_forwards_to_the_cloud_is_shown_so_and_not_used() {
    let daemon = looking().start().await;
    let digest = "500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41";
    let details = json!({"family": "x", "format": "gguf", "parameter_size": "", "quantization_level": ""});
    let entry =
        |name: &str| json!({"name": name, "model": name, "size": 400, "digest": digest, "details": details});
    let mut remote = entry("far-away:120b");
    remote["remote_host"] = "https://ollama.com:443".into();
    remote["remote_model"] = "far-away:120b".into();
    let tags =
        json!({"models": [entry("at-home:8b"), entry("far-off:1t-cloud"), entry("far-up:cloud"), remote]});
    let ollama = Listener::start(move |line| match line {
        "GET /" => http(200, "text/plain", "Ollama is running"),
        "GET /api/version" => json_of(200, &json!({"version": "0.24.0"})),
        "GET /api/tags" => json_of(200, &tags),
        "GET /api/ps" => json_of(200, &json!({"models": []})),
        _ => Deed::Say("HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n".to_owned()),
    })
    .of(&daemon);
    until_up(&daemon, &ollama.url()).await;
    for model in ["far-off:1t-cloud", "far-up:cloud", "far-away:120b"] {
        let shown = daemon.caller().get(&format!("/lovable/v1/models/{model}")).await.json();
        assert_eq!(shown["servers"][0]["zone"], "cloud", "{shown}");
        let answer = daemon.caller().chat(model, false).await.unwrap();
        assert!(matches!(answer.verdict(), Verdict::Refused(503 | 404)), "{}", answer.text());
        assert!(answer.text().contains("cloud"), "{}", answer.text());
    }
    assert!(ollama.heard().iter().all(|it| !it.line().contains("/v1/chat")));
}
