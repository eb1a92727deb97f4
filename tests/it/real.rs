//! Real model servers, as `tests/real-servers/setup.sh` sets them up.
//!
//! `LOVABLE_REAL_SERVERS` names the directory; `tests/run` sets it. The model
//! counts through a list of words, so a lost or repeated piece is seen here too.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    caller::{Answer, Caller, Verdict},
    daemon::{Daemon, Options},
    load::Load,
    process::signal,
    proof::{Table, times},
};

pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = std::env::var_os("LOVABLE_REAL_SERVERS").map(PathBuf::from);
        directory.expect("LOVABLE_REAL_SERVERS names the directory of tests/real-servers/setup.sh")
    })
}

/// The words that a model says, in order.
pub(crate) fn words() -> &'static [String] {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS.get_or_init(|| {
        let text = std::fs::read_to_string(directory().join("models/words.txt")).unwrap();
        text.lines().map(str::to_owned).collect()
    })
}

/// Counts the words of an answer that is a beginning of the list.
pub(crate) fn check(text: &str) -> Result<usize, String> {
    let mut count = 0;
    for (found, wanted) in text.split_ascii_whitespace().zip(words().iter().cycle()) {
        if found != wanted {
            return Err(format!("`{found}` where `{wanted}` belongs"));
        }
        count += 1;
    }
    Ok(count)
}

fn judge(answer: &Answer) -> Verdict {
    answer.verdict_by(check)
}

/// A real server in a process of its own; dropping it kills it.
pub(crate) struct Real {
    kind: &'static str,
    alias: &'static str,
    port: u16,
    child: Child,
}

impl Real {
    /// llama.cpp's server with the model that says some 150 words a second.
    pub(crate) async fn llama(alias: &'static str, port: u16) -> Self {
        Self::llama_with(alias, port, &[]).await
    }

    /// The same, with more arguments.
    pub(crate) async fn llama_with(alias: &'static str, port: u16, args: &[&str]) -> Self {
        Self::llama_of("slow", alias, port, args).await
    }

    /// llama.cpp's server with another model.
    pub(crate) async fn llama_of(model: &str, alias: &'static str, port: u16, args: &[&str]) -> Self {
        let mut command = script("llamacpp", "serve_llamacpp.py");
        let model = directory().join(format!("models/{model}.gguf"));
        command.arg("--model").arg(model).args(["--alias", alias]).args(args);
        Self::start("llamacpp", alias, port, command).await
    }

    pub(crate) async fn vllm(alias: &'static str, port: u16) -> Self {
        Self::vllm_of("slow-v", alias, port, &[]).await
    }

    /// vLLM with another model.
    pub(crate) async fn vllm_of(model: &str, alias: &'static str, port: u16, args: &[&str]) -> Self {
        let mut command = script("vllm", "serve_vllm.py");
        let model = directory().join("models").join(model);
        command.arg("--model").arg(model).args(["--alias", alias]).args(args);
        Self::start("vllm", alias, port, command).await
    }

    /// Starts a script of `tests/real-servers` that says when its server is ready.
    pub(crate) async fn start(
        kind: &'static str,
        alias: &'static str,
        port: u16,
        mut command: Command,
    ) -> Self {
        command.args(["--port", &port.to_string()]);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.starts_with("ready ") {
                    return true;
                }
            }
            false
        };
        let limit = Duration::from_secs(match kind {
            "llamacpp" => 30,
            // It makes its database first, step by step.
            "openwebui" => 600,
            _ => 300,
        });
        assert!(
            timeout(limit, ready).await.expect("it is ready in time"),
            "{kind} ended before it was ready"
        );
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { kind, alias, port, child }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts it again as it was first started, after a kill; returns once it is ready.
    pub(crate) async fn start_again(&mut self) {
        *self = match self.kind {
            "vllm" => Self::vllm(self.alias, self.port).await,
            _ => Self::llama(self.alias, self.port).await,
        };
    }

    /// Stops it with SIGSTOP.
    pub(crate) fn freeze(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// How many requests it is working on, by its own word.
    async fn busy(&self) -> usize {
        match self.kind {
            "llamacpp" => {
                let slots = Caller::port(self.port).get("/slots").await.json();
                slots.as_array().unwrap().iter().filter(|slot| slot["is_processing"] == true).count()
            }
            _ => {
                let metrics = Caller::port(self.port).get("/metrics").await.text();
                let running = metrics.lines().find(|line| line.starts_with("vllm:num_requests_running"));
                running
                    .and_then(|line| line.rsplit(' ').next())
                    .map_or(0, |it| it.parse::<f64>().unwrap() as usize)
            }
        }
    }

    /// How many tokens it has said since it was started.
    pub(crate) async fn said(&self) -> u64 {
        let metrics = Caller::port(self.port).get("/metrics").await.text();
        let said = metrics.lines().find_map(|line| line.strip_prefix("llamacpp:tokens_predicted_total "));
        said.unwrap().trim().parse().unwrap()
    }

    async fn until_busy(&self, wanted: usize) -> Duration {
        let start = Instant::now();
        while self.busy().await != wanted {
            assert!(start.elapsed() < Duration::from_secs(20), "{} is not at {wanted} requests", self.kind);
            sleep(Duration::from_millis(5)).await;
        }
        start.elapsed()
    }
}

/// A script of `tests/real-servers`, with the Python of an environment that was set up there.
pub(crate) fn script(environment: &str, name: &str) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real-servers");
    let mut command = Command::new(directory().join(environment).join("bin/python"));
    command.arg(scripts.join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    command
}

/// A free port that is no usual one of any kind, and below those that the system gives to
/// connections: nobody takes it while the server there is started again.
pub(crate) async fn odd_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7) + (std::process::id() % 9000) as u16;
        let port = 20_000 + turn % 9000;
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

fn body(model: &str, stream: bool, max_tokens: usize) -> Value {
    json!({
        "model": model, "stream": stream, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Count for me."}],
    })
}

pub(crate) async fn until_found(daemon: &Daemon, ports: &[u16]) -> Vec<Value> {
    daemon
        .until("every real server is found and up", |servers| {
            ports.iter().all(|port| {
                let end = format!(":{port}");
                servers.iter().any(|it| {
                    it["url"].as_str().is_some_and(|url| url.ends_with(&end)) && it["standing"] == "up"
                })
            })
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn two_real_servers_on_odd_ports_are_named_with_all_that_is_known_of_them() {
    let ports = [odd_port().await, odd_port().await];
    let first = Real::llama("real-named", ports[0]).await;
    let _second = Real::llama("real-named", ports[1]).await;
    let daemon = Options::looking().start().await;
    until_found(&daemon, &ports).await;
    let output = daemon.ctl(&["servers", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    for port in ports {
        let url = format!("http://127.0.0.1:{port}");
        let servers = listed["servers"].as_array().unwrap();
        let server = servers.iter().find(|it| it["url"] == url.as_str()).unwrap();
        assert_eq!(server["kind"], first.kind, "{server}");
        assert!(server["version"].is_string(), "{server}");
        assert_eq!(server["models"], json!([first.alias]), "{server}");
        assert_eq!(server["found_by"], json!(["socket-table"]), "{server}");
        assert_eq!(server["simulated"], false, "{server}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn a_new_server_is_in_the_registry_within_a_second_and_a_gone_one_leaves_within_two() {
    let daemon = Options::looking().start().await;
    let port = odd_port().await;
    let mut server = Real::llama("real-come", port).await;
    let start = Instant::now();
    until_found(&daemon, &[port]).await;
    let found = start.elapsed();
    server.kill().await;
    let start = Instant::now();
    let url = format!("http://127.0.0.1:{port}");
    daemon
        .until("a killed server is out of routing", |servers| {
            !servers.iter().any(|it| it["url"] == url.as_str() && it["standing"] == "up")
        })
        .await;
    let gone = start.elapsed();
    let mut table = Table::new("Coming and going", &["what", "took", "limit"]);
    table.row(&[&"in the registry", &format!("{} ms", found.as_millis()), &"1000 ms"]);
    table.row(&[&"out of routing", &format!("{} ms", gone.as_millis()), &"2000 ms"]);
    table.show();
    assert!(found < Duration::from_secs(1), "{found:?}");
    assert!(gone < Duration::from_secs(2), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn traffic_goes_on_while_one_of_two_servers_is_killed_again_and_again() {
    let requests = times(120, 1000);
    let ports = [odd_port().await, odd_port().await];
    let _steady = Real::llama("real-traffic", ports[0]).await;
    let mut shaky = Real::llama("real-traffic", ports[1]).await;
    let daemon = Options::looking().start().await;
    until_found(&daemon, &ports).await;

    let stop = Arc::new(Notify::new());
    let stopped = stop.clone();
    let killer = tokio::spawn(async move {
        let mut kills = 0;
        loop {
            tokio::select! {
                () = sleep(Duration::from_millis(2000)) => {}
                () = stopped.notified() => return kills,
            }
            shaky.kill().await;
            kills += 1;
            sleep(Duration::from_millis(500)).await;
            shaky = Real::llama("real-traffic", shaky.port).await;
        }
    });
    let load = |stream| Load {
        caller: daemon.caller(),
        body: body("real-traffic", stream, 40),
        requests,
        at_once: 8,
        words: Some(40),
        judge,
    };
    let (plain, streamed) = (load(false).run().await, load(true).run().await);
    stop.notify_one();
    let kills = killer.await.unwrap();
    let columns = ["requests", "whole", "ended in an error", "failures"];
    let mut table = Table::new(&format!("Real llama.cpp, one of two killed {kills} times"), &columns);
    for (name, tally) in [("plain", &plain), ("streamed", &streamed)] {
        table.row(&[&name, &tally.whole, &tally.broken_off, &tally.failures()]);
    }
    table.show();
    assert_eq!(plain.whole, requests, "{plain:?}");
    assert_eq!(streamed.whole, requests, "{streamed:?}");
    assert!(kills > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn a_caller_who_leaves_llama_cpp_frees_its_slot_within_half_a_second() {
    let port = odd_port().await;
    cancelled(&Real::llama("real-leave", port).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real vLLM; tests/prove sets it up"]
async fn vllm_is_found_recognised_streamed_and_cancelled() {
    let server = Real::vllm("real-vllm", odd_port().await).await;
    let daemon = Options::looking().start().await;
    let servers = until_found(&daemon, &[server.port]).await;
    assert!(servers.iter().any(|it| it["kind"] == "vllm"), "{servers:#?}");
    for stream in [true, false] {
        let answer = daemon.caller().post("/v1/chat/completions", &body("real-vllm", stream, 30)).await;
        assert_eq!(judge(&answer), Verdict::Whole(30), "{}", answer.text());
    }
    cancelled(&server).await;
}

/// Leaves streamed and plain requests, each over a daemon, and watches the server's own count.
async fn cancelled(server: &Real) {
    let daemon = Options::looking().start().await;
    until_found(&daemon, &[server.port]).await;
    let mut table = Table::new(&format!("Leaving {}", server.kind), &["request", "free again after"]);
    let limit = Duration::from_millis(500);
    for stream in [true, false] {
        let caller = daemon.caller();
        let body = body(server.alias, stream, 3000);
        let request = tokio::spawn(async move { caller.try_post("/v1/chat/completions", &body).await });
        server.until_busy(1).await;
        sleep(Duration::from_millis(200)).await;
        assert_eq!(server.busy().await, 1, "it is still at it");
        request.abort();
        let took = server.until_busy(0).await;
        let name = if stream { "streamed" } else { "plain" };
        table.row(&[&name, &format!("{} ms", took.as_millis())]);
        assert!(took < limit, "{name}: {took:?}");
    }
    table.show();
}
