//! Clients that other people wrote, unchanged, against the daemon with servers of every kind
//! behind it. `tests/clients` has a script for each, and what is installed.

mod docs;
mod scene;
mod script;

use std::{process::Stdio, sync::Arc};

use lovable::simulate::{Shape, text};
use serde_json::Value;
use tokio::{process::Command, sync::Semaphore, task::JoinSet};

use self::{
    scene::{FEATURES, REAL_FEATURES, SHAPES, Scene, model},
    script::{Row, SCRIPTS, Script, judge, node, python},
};
use crate::{caller::chat, daemon::Options, proof};

/// How many scripts run at once: they mostly wait, for processes to start and for servers that fail.
const AT_ONCE: usize = 4;

#[tokio::test]
async fn curl_gets_an_answer_over_the_socket_streamed_and_not() {
    let scene = Scene::start(&[Shape::OpenAi], Options::alone()).await;
    for stream in [true, false] {
        let body = chat(&model(Shape::OpenAi.kind(), "chat"), stream, "x").to_string();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--no-buffer", "--max-time", "10", "--unix-socket"])
            .arg(scene.daemon.socket())
            .args(["http://lovable/v1/chat/completions", "--json", &body])
            .stdin(Stdio::null())
            .output()
            .await
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if stream {
            assert!(said.trim_end().ends_with("data: [DONE]"), "{said}");
        } else {
            let body: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(body["choices"][0]["message"]["content"], text(12), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn every_client_works_with_every_kind_over_the_socket_and_over_tcp() {
    let scene = Scene::start(shapes(), Options::alone()).await;
    let rows = run_all(SCRIPTS, &[], &[], scene.told(&["socket", "tcp"], FEATURES)).await;
    judge("Clients, with simulated servers", &rows, FEATURES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients and llama.cpp; tests/run sets them up"]
async fn every_client_works_with_the_real_llama_cpp() {
    let scene = Scene::real().await;
    let rows = run_all(SCRIPTS, &[], &[], scene.told(&["socket", "tcp"], REAL_FEATURES)).await;
    judge("Clients, with llama.cpp", &rows, REAL_FEATURES);
}

/// The scripts whose client is told by its own variables where to call.
const BY_VARIABLES: &[Script] = &[
    python("openai_python.py"),
    node("openai_node.mjs", "current"),
    python("anthropic_python.py"),
    node("anthropic_node.mjs", "current"),
    python("ollama_python.py"),
    python("litellm_python.py"),
    python("langchain_python.py"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn exec_brings_programs_here_that_read_variables_and_refuses_those_without_its_key() {
    let scene = Scene::start(&[Shape::Vllm], Options::alone()).await;
    let socket = scene.daemon.socket();
    let exec = ["--socket", socket.to_str().unwrap(), "exec", "--"];
    let exec: Vec<&str> = [env!("CARGO_BIN_EXE_lovablectl")].into_iter().chain(exec).collect();
    let rows = run_all(BY_VARIABLES, &exec, &[], scene.told(&["environment"], FEATURES)).await;
    judge("Clients under lovablectl exec", &rows, FEATURES);

    let lost =
        "OPENAI_API_KEY=lost ANTHROPIC_API_KEY=lost OLLAMA_API_KEY=lost OLLAMA_HOST=${OLLAMA_HOST%/*} \"$@\"";
    let keyless: Vec<&str> = exec.into_iter().chain(["sh", "-c", lost, "sh"]).collect();
    let features = &["keyless"];
    let rows = run_all(BY_VARIABLES, &keyless, &[], scene.told(&["environment"], features)).await;
    judge("Clients under lovablectl exec, without its key", &rows, features);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn a_program_that_only_knows_ollama_host_works_when_that_is_where_we_listen() {
    let scene = Scene::start(shapes(), Options::alone()).await;
    let host = format!("127.0.0.1:{}", scene.port);
    let scripts = &[python("ollama_python.py")];
    let told = scene.told(&["environment"], FEATURES);
    let rows = run_all(scripts, &[], &[("OLLAMA_HOST", &host)], told).await;
    judge("A client with OLLAMA_HOST", &rows, FEATURES);
}

/// Open Lovable's calls, with its model ids given to each kind in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn open_lovables_calls_are_answered_under_its_model_ids() {
    let ids = ["gpt-5", "claude-sonnet-4-20250514", "moonshotai/kimi-k2-instruct-0905"];
    let features = &["stream", "object"];
    let mut rows = Vec::new();
    for shape in shapes() {
        let aliases = ids.map(|id| format!("{id:?} = {:?}\n", model(shape.kind(), "chat"))).concat();
        let options = Options::alone().config(&format!("[aliases]\n{aliases}"));
        let scene = Scene::start(&[*shape], options).await;
        let base = format!("{}/v1", scene.address());
        let mut env =
            vec![("OPENAI_BASE_URL", &*base), ("ANTHROPIC_BASE_URL", &base), ("GROQ_BASE_URL", &base)];
        env.extend(["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY"].map(|name| (name, "any")));
        let script = &[node("open_lovable.mjs", "open-lovable")];
        rows.extend(run_all(script, &[], &env, scene.told(&["environment"], features)).await);
    }
    judge("Open Lovable", &rows, features);
}

/// In short form each client meets two kinds: one whose language is another, and one that speaks OpenAI's.
fn shapes() -> &'static [Shape] {
    if proof::is_full() { SHAPES } else { &[Shape::Ollama, Shape::Vllm] }
}

/// Runs scripts, some at once, and returns their rows in the order of the scripts.
/// `LOVABLE_ONLY_CLIENT` picks those whose name has a word in it.
async fn run_all(scripts: &[Script], before: &[&str], env: &[(&str, &str)], told: Value) -> Vec<Row> {
    let only = std::env::var("LOVABLE_ONLY_CLIENT").unwrap_or_default();
    let owned = |it: &&str| (*it).to_owned();
    let shared = Arc::new((
        before.iter().map(owned).collect::<Vec<_>>(),
        env.iter().map(|(name, value)| (owned(name), owned(value))).collect::<Vec<_>>(),
        told,
        Semaphore::new(AT_ONCE),
    ));
    let mut tasks = JoinSet::new();
    for (nth, script) in scripts.iter().copied().enumerate().filter(|it| it.1.name.contains(&only)) {
        let shared = shared.clone();
        tasks.spawn(async move {
            let (before, env, told, places) = &*shared;
            let _place = places.acquire().await.unwrap();
            (nth, script.run(before, env, told).await)
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|it| it.0);
    done.into_iter().flat_map(|it| it.1).collect()
}
