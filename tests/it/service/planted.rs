//! What `lovablectl doctor` says of model servers, of the network, of another lovable and of the
//! clock: each of them planted, and looked at through a real daemon.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
};

use rustix::fs::{Uid, fchown};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::doctor::{examine, examine_all, has};
use crate::lifecycle::{Home, is_root, until};

/// Set in the process that runs in a network of its own.
const INSIDE: &str = "LOVABLE_TEST_PLANTED";

/// What an Ollama says of its models and of those in memory.
#[derive(Default)]
struct Ollama {
    models: Value,
    running: Value,
    /// Whether it turns away whoever calls it by another name than it expects.
    turns_away: bool,
}

impl Ollama {
    fn answer(&self, path: &str) -> (u16, String) {
        match path {
            _ if self.turns_away => (403, String::new()),
            "/" => (200, "Ollama is running".to_owned()),
            "/api/version" => (200, json!({"version": "0.12.6"}).to_string()),
            "/api/tags" => (200, json!({"models": self.models}).to_string()),
            "/api/ps" => (200, json!({"models": self.running}).to_string()),
            _ => (404, "404 page not found".to_owned()),
        }
    }

    /// Answers from now on.
    fn listen(self, listener: TcpListener) {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let (status, body) = self.answer(request.split(' ').nth(1).unwrap_or_default());
                let _ = stream.write_all(reply(status, &body).as_bytes());
            }
        });
    }

    /// Answers on a port of its own, which is in the configuration of the home.
    fn known_to(self, home: &Home) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        home.configure(&format!("[[servers]]\nurl = \"http://{}\"\n", listener.local_addr().unwrap()));
        self.listen(listener);
    }
}

fn reply(status: u16, body: &str) -> String {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} It\r\ncontent-length: {length}\r\nconnection: close\r\n");
    format!("{head}content-type: application/json\r\n\r\n{body}")
}

fn model(name: &str, size: u64) -> Value {
    let details = json!({"family": "qwen3", "parameter_size": "8.2B", "context_length": 40_960});
    json!({"name": name, "size": size, "digest": "d", "details": details, "capabilities": ["completion"]})
}

/// What is found once a check finds anything.
async fn found(home: &Home, id: &str) -> Vec<(String, String)> {
    until(id, async || {
        let found = examine_all(home, &[]).await;
        found.iter().any(|it| it.0 == id).then_some(found)
    })
    .await
}

#[tokio::test]
async fn a_server_that_turns_away_the_name_it_is_called_by() {
    let home = Home::new();
    Ollama { turns_away: true, ..Ollama::default() }.known_to(&home);
    let running = home.start(&[]).await;
    has(&found(&home, "wrong_host").await, "wrong_host", &["refuses the Host header", "[[servers]]"]);
    running.stop().await;
}

#[tokio::test]
async fn a_model_that_is_loaded_with_less_context_than_it_allows() {
    let home = Home::new();
    let running = json!([{"name": "qwen3:8b", "size": 5_000_000_000_u64, "context_length": 4_096}]);
    let models = json!([model("qwen3:8b", 5_000_000_000)]);
    Ollama { models, running, ..Ollama::default() }.known_to(&home);
    let running = home.start(&[]).await;
    let words = ["4,096", "40,960", "OLLAMA_CONTEXT_LENGTH=40960"];
    has(&found(&home, "small_context").await, "small_context", &words);
    running.stop().await;
}

#[tokio::test]
async fn a_model_that_no_memory_of_this_machine_holds() {
    let home = Home::new();
    let models = json!([model("kimi-k9:100t", 1_000_000_000_000_000)]);
    Ollama { models, running: json!([]), ..Ollama::default() }.known_to(&home);
    let running = home.start(&[]).await;
    has(&found(&home, "too_large").await, "too_large", &["kimi-k9:100t", "its memory is", "gpu_memory"]);
    running.stop().await;
}

#[tokio::test]
async fn a_server_of_another_user() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The kernel tells the owner of a socket by its inode, and root may give that away.
    fchown(&listener, Some(Uid::from_raw(4242)), None).unwrap();
    let port = listener.local_addr().unwrap().port();
    Ollama { models: json!([]), running: json!([]), ..Ollama::default() }.listen(listener);
    let lines = fs::read_to_string(home.at("config/lovable/config.toml")).unwrap();
    let lines = lines.replace("socket_table = false", &format!("socket_table = false\nports = [{port}]"));
    fs::write(home.at("config/lovable/config.toml"), lines).unwrap();
    let running = home.start(&[]).await;
    has(&found(&home, "untrusted").await, "untrusted", &["belongs to another user", "servers trust"]);
    running.stop().await;
}

#[test]
fn a_server_on_a_network_address_and_a_network_without_multicast() {
    if !is_root() {
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "service::planted::inside", "--nocapture"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn ip(args: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let status = Command::new("ip").args(args.split(' ')).env("PATH", path).status().unwrap();
    assert!(status.success(), "ip {args}");
}

/// What the test above runs in a network of its own.
#[tokio::test]
async fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    // Networks of their own have no cards but this sort.
    for args in
        ["link set lo up", "link add here type veth peer name there", "addr add 10.77.0.1/24 dev here"]
    {
        ip(args);
    }
    let home = Home::new();
    fs::write(home.at("config/lovable/config.toml"), "").unwrap();
    let running = home.start(&[]).await;
    has(&found(&home, "multicast").await, "multicast", &["no interface has a route", "ip route add"]);
    ip("link set here up");
    let ollama = Ollama { models: json!([]), running: json!([]), ..Ollama::default() };
    ollama.listen(TcpListener::bind((Ipv4Addr::new(10, 77, 0, 1), 11_434)).unwrap());
    let words = ["network address alone", "10.77.0.1", "OLLAMA_HOST=127.0.0.1"];
    has(&found(&home, "other_interface").await, "other_interface", &words);
    running.stop().await;
}

/// Answers on a socket as the daemon of a home does, with something changed in it.
fn altered(home: &Home, name: &str, alter: fn(&mut Value)) -> String {
    let path = home.at(name);
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let caller = home.caller();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let answer = caller.get(request.split(' ').nth(1).unwrap_or_default()).await;
            let mut body = answer.json();
            alter(&mut body);
            let _ = stream.write_all(reply(answer.status, &body.to_string()).as_bytes()).await;
        }
    });
    path.display().to_string()
}

#[tokio::test]
async fn another_version_and_a_clock_that_was_set_back() {
    let home = Home::new();
    let models = json!([model("qwen3:8b", 5_000_000_000)]);
    Ollama { models, running: json!([]), ..Ollama::default() }.known_to(&home);
    let running = home.start(&[]).await;
    home.ready().await;
    let old = altered(&home, "old.sock", |it| {
        if it["version"].is_string() {
            it["version"] = json!("0.0.7");
        }
    });
    let of_old = examine(&home, &[("LOVABLE_SOCKET", &old)]).await;
    has(&of_old, "version", &["lovabled is 0.0.7", "start the new one"]);
    assert_eq!(of_old.len(), 1, "{of_old:?}");
    let ahead = altered(&home, "ahead.sock", |it| {
        let servers = it["servers"].as_array_mut().into_iter().flatten();
        servers.for_each(|it| it["last_seen"] = json!("2190-01-01T00:00:00Z"));
    });
    has(&examine(&home, &[("LOVABLE_SOCKET", &ahead)]).await, "clock", &["set back by", "set-ntp true"]);
    running.stop().await;
}
