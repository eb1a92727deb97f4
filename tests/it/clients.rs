//! Clients that other people wrote: curl and the official `openai` package.

use std::{path::Path, process::Stdio};

use lovable::simulate::{Offer, Script, Shape, Simulated, text};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    caller::chat,
    daemon::{Daemon, Options},
};

async fn daemon() -> (Daemon, Simulated) {
    let embedder = Offer { embeds: true, ..Offer::named("sim-embed") };
    let script = Script { models: vec![Offer::named("sim"), embedder], words: 12, ..Script::default() };
    let server = Simulated::start(Shape::OpenAi, script).await.unwrap();
    let daemon = Options::alone().simulated(&server, "sim", 0).start().await;
    (daemon, server)
}

#[tokio::test]
async fn curl_gets_an_answer_over_the_socket_streamed_and_not() {
    let (daemon, _server) = daemon().await;
    for stream in [true, false] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--no-buffer", "--max-time", "10", "--unix-socket"])
            .arg(daemon.socket())
            .args(["http://lovable/v1/chat/completions", "--json", &chat("sim", stream, "x").to_string()])
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

#[tokio::test]
#[ignore = "needs the openai package; tests/run sets it up"]
async fn the_openai_package_works_over_the_socket_streamed_and_not() {
    let (daemon, _server) = daemon().await;
    let directory = std::env::var_os("LOVABLE_REAL_SERVERS").expect("the directory of setup.sh");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real-servers");
    let output = Command::new(Path::new(&directory).join("clients/bin/python"))
        .arg(scripts.join("talk_openai.py"))
        .arg(daemon.socket())
        .args(["--model", "sim", "--embedder", "sim-embed", "--expect", &text(12)])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
