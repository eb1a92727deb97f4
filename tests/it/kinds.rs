//! Real servers of the other kinds: found, named rightly, used, and killed in the middle of an
//! answer, which a llama.cpp with a model of the same name goes on with. Gateways have their zone
//! in the configuration, and behind them a llama.cpp whose model has another name.

use std::{path::Path, sync::Arc, time::Duration};

use lovable::server::Endpoint;
use memchr::memmem;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use crate::{
    caller::{Answer, Verdict, request, watched},
    daemon::{Daemon, Options},
    proof::Table,
    real::{Real, check, directory, odd_port, script, until_found},
};

/// One of them, as `serve_other.py` starts it.
struct Other {
    kind: &'static str,
    /// Where its packages are.
    environment: &'static str,
    /// What it calls its model.
    model: Called,
    /// What it runs, below the folder of models; none for a gateway.
    file: Option<&'static str>,
    /// How many tokens more than it said the one who goes on counts: mlx-lm (0.32) leaves out the
    /// blank before the first word, which is a token with it and several without.
    recounted: usize,
}

/// How a server calls a model.
enum Called {
    /// As it is told to.
    So(&'static str),
    /// By the path of its file.
    ByPath,
}

const LLAMA_CPP_PYTHON: Other = Other {
    kind: "llamacpppython",
    environment: "llamacpppython",
    model: Called::So("other"),
    file: Some("slow.gguf"),
    recounted: 0,
};

/// The others that a package index has and that run here.
const OTHERS: [Other; 5] = [
    Other {
        kind: "transformers",
        environment: "vllm",
        model: Called::So("tests/other"),
        file: Some("slow-v"),
        recounted: 0,
    },
    Other { kind: "mlxlm", environment: "mlxlm", model: Called::ByPath, file: Some("slow-v"), recounted: 3 },
    Other { kind: "litellm", environment: "litellm", model: Called::So("other"), file: None, recounted: 0 },
    // It lists what it does not know the name of.
    Other {
        kind: "sglangrouter",
        environment: "sglangrouter",
        model: Called::So("unknown"),
        file: None,
        recounted: 0,
    },
    // It lists what is behind it by the name that it has there.
    Other {
        kind: "openwebui",
        environment: "openwebui",
        model: Called::So(BEHIND),
        file: None,
        recounted: 0,
    },
];

/// What the model behind a gateway is called.
const BEHIND: &str = "behind";

/// How many words an answer has that is broken off, and after how many.
const WORDS: usize = 240;
const KILLED_AFTER: usize = 12;

impl Other {
    fn model(&self) -> String {
        match (&self.model, self.file) {
            (Called::ByPath, Some(file)) => directory().join("models").join(file).display().to_string(),
            (Called::ByPath, None) => unreachable!("a gateway has no file"),
            (Called::So(name), _) => (*name).to_owned(),
        }
    }

    async fn start(&self, port: u16, behind: Option<&Real>, key_file: &Path) -> Real {
        let mut command = script(self.environment, "serve_other.py");
        command.arg(self.kind).args(["--alias", &self.model()]);
        if let Some(file) = self.file {
            command.arg("--model").arg(directory().join("models").join(file));
        }
        if let Some(behind) = behind {
            command.args(["--behind", &format!("http://127.0.0.1:{}", behind.port())]);
            command.args(["--behind-alias", BEHIND]).arg("--key-file").arg(key_file);
        }
        Real::start(self.kind, "other", port, command).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/run sets them up"]
async fn llama_cpp_python_is_found_recognised_used_and_stood_in_for() {
    let mut table = table("llama-cpp-python");
    tried(&mut table, &LLAMA_CPP_PYTHON).await;
    table.show();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs real servers; tests/prove sets them up"]
async fn every_kind_beside_vllm_is_found_recognised_used_and_stood_in_for() {
    let mut table = table("Real servers of other kinds");
    for other in &OTHERS {
        tried(&mut table, other).await;
    }
    table.show();
}

fn table(title: &str) -> Table {
    Table::new(
        title,
        &["kind", "version", "zone", "first found after", "plain", "streamed", "killed in mid-stream"],
    )
}

/// One server through all of it: one row.
async fn tried(table: &mut Table, other: &Other) {
    let ports = [odd_port().await, odd_port().await, odd_port().await];
    let model = other.model();
    let behind = match other.file {
        Some(_) => None,
        None => Some(Real::llama(BEHIND, ports[1]).await),
    };
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    let mut server = other.start(ports[0], behind.as_ref(), &key_file).await;
    let twin = Real::llama(String::leak(model.clone()), ports[2]).await;

    // What stands behind a gateway is none of this daemon's servers.
    let hidden = format!("skip_ports = [{}]\n", ports[1]);
    let mut options = Options::looking().discovery(&hidden).server(&at(twin.port()), "twin", 50);
    if behind.is_some() {
        options = options.server(&at(ports[0]), other.kind, 1).config("zone = \"machine\"");
    }
    if key_file.exists() {
        options = options.config(&format!("key_file = \"{}\"", key_file.display()));
    }
    let start = Instant::now();
    let daemon = options.start().await;
    let servers = until_found(&daemon, &ports[..1]).await;
    let found = start.elapsed();
    let url = format!("http://127.0.0.1:{}", ports[0]);
    let seen = servers.iter().find(|it| it["url"] == url.as_str()).unwrap();
    assert_eq!(seen["kind"], other.kind, "{seen}");
    assert_eq!(seen["zone"], "machine", "{seen}");
    assert!(seen["models"].as_array().unwrap().contains(&json!(model)), "{seen}");
    let id = seen["id"].as_str().unwrap();
    let plain = used(&daemon, &model, id, false).await;
    let streamed = used(&daemon, &model, id, true).await;
    let (answer, silence) = killed(&daemon, &model, &mut server).await;
    let words = WORDS - other.recounted;
    assert_eq!(answer.verdict_by(check), Verdict::Whole(words), "{}: {}", other.kind, answer.text());
    let told = answer.header("x-lovable-request-id").unwrap();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{told}")).await.json();
    assert_eq!(told["ending"], "resumed", "{}: {told}", other.kind);
    table.row(&[
        &other.kind,
        &seen["version"].as_str().unwrap_or("-"),
        &seen["zone"].as_str().unwrap_or_default(),
        &format!("{} ms", found.as_millis()),
        &format!("{plain} words"),
        &format!("{streamed} words"),
        &format!("{words} words, resumed, whole {} ms after", silence.as_millis()),
    ]);
}

fn at(port: u16) -> Endpoint {
    Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap()
}

/// Asks for a few words, which have to come from this server.
async fn used(daemon: &Daemon, model: &str, id: &str, stream: bool) -> usize {
    let answer = daemon.caller().post("/v1/chat/completions", &body(model, stream, 12)).await;
    assert_eq!(answer.header("x-lovable-server"), Some(id), "{}", answer.text());
    match answer.verdict_by(check) {
        Verdict::Whole(words) => words,
        other => panic!("{id}: {other:?}: {}", answer.text()),
    }
}

/// Asks for a stream and kills the server once it has said some words; how long the rest took.
async fn killed(daemon: &Daemon, model: &str, server: &mut Real) -> (Answer, Duration) {
    let begun = Arc::new(Notify::new());
    let task = tokio::spawn({
        let (caller, begun) = (daemon.caller(), begun.clone());
        let body = body(model, true, WORDS).to_string().into();
        async move {
            let mut connection = caller.connect().await.unwrap();
            let asked = request("POST", "/v1/chat/completions", body, &[]);
            let watch = |said: &[u8]| {
                if memmem::find_iter(said, b"data: ").count() > KILLED_AFTER {
                    begun.notify_one();
                }
            };
            watched(&mut connection, asked, watch).await.unwrap()
        }
    });
    begun.notified().await;
    server.kill().await;
    let start = Instant::now();
    (task.await.unwrap(), start.elapsed())
}

fn body(model: &str, stream: bool, max_tokens: usize) -> Value {
    json!({
        "model": model, "stream": stream, "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Count for me."}],
    })
}
