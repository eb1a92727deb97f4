//! Clients that other people wrote, unchanged, against the daemon with servers of every kind
//! behind it. `tests/clients` has a script for each, and what is installed.

mod scene;
mod script;

use std::process::Stdio;

use lovable::simulate::{Shape, text};
use serde_json::Value;
use tokio::process::Command;

use self::{
    scene::{FEATURES, SHAPES, Scene, model},
    script::{Row, SCRIPTS, judge},
};
use crate::{caller::chat, daemon::Options, proof};

#[tokio::test]
async fn curl_gets_an_answer_over_the_socket_streamed_and_not() {
    let scene = Scene::start(&[Shape::OpenAi], Options::alone()).await;
    for stream in [true, false] {
        let body = chat(&model(Shape::OpenAi, "chat"), stream, "x").to_string();
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

/// In short form each client meets two kinds: one whose language is another, and one that speaks OpenAI's.
fn shapes() -> &'static [Shape] {
    if proof::is_full() { SHAPES } else { &[Shape::Ollama, Shape::Vllm] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the clients; tests/run sets them up"]
async fn every_client_works_with_every_kind_over_the_socket_and_over_tcp() {
    let scene = Scene::start(shapes(), Options::alone()).await;
    let told = scene.told(&["socket", "tcp"], FEATURES);
    let only = std::env::var("LOVABLE_ONLY_CLIENT").unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for script in SCRIPTS.iter().filter(|it| it.name.contains(&only)) {
        rows.extend(script.run(&[], &[], &told).await);
    }
    judge("Clients, with simulated servers", &rows, FEATURES);
}
