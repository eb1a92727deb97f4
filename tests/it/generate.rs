//! `lovablectl generate` with what stands beside the prompt.

use std::fs;

use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
};

/// A server that says this.
async fn saying(text: &str) -> (Daemon, Scripted) {
    let text = json!(text);
    let server = Scripted::saying(format!(
        "{STREAM}data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n\
         data: {{\"id\":\"c\",\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]}}\n\ndata: [DONE]\n\n"
    ))
    .await;
    let daemon = Options::alone().server(server.endpoint(), "a", 0).start().await;
    (daemon, server)
}

fn asked(server: &Scripted) -> Value {
    serde_json::from_str(&server.posts().last().unwrap().body).unwrap()
}

#[tokio::test]
async fn an_image_is_shown_to_the_model() {
    let (daemon, server) = saying("a cat").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cat");
    fs::write(&path, b"\x89PNG\r\n\x1a\n\0").unwrap();
    let path = path.to_str().unwrap();
    let output = daemon.ctl(&["generate", "-m", "m", "--image", path, "--image", path, "what is it?"]).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a cat", "{output:?}");
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA"}});
    let said = json!([{"type": "text", "text": "what is it?"}, image, image]);
    assert_eq!(asked(&server)["messages"], json!([{"role": "user", "content": said}]));
}

#[tokio::test]
async fn what_is_no_image_or_no_schema_is_never_sent() {
    let (daemon, server) = saying("x").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.json");
    fs::write(&path, "{\"type\": object}").unwrap();
    let path = path.to_str().unwrap();
    for (flag, says) in [("--image", "wrong.json is no image"), ("--schema", "wrong.json:1:")] {
        let output = daemon.ctl(&["generate", "-m", "m", flag, path, "x"]).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{output:?}");
    }
    assert!(server.posts().is_empty());
}

#[tokio::test]
async fn a_schema_is_asked_for_as_it_is_written_and_the_answer_is_json() {
    for (says, code) in [("{\"name\": \"x\"}", 0), ("I would rather not", 1)] {
        let (daemon, server) = saying(says).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("person.json");
        fs::write(&path, "{\"type\":\"object\",\"properties\":{\"z\":{},\"a\":{}}}").unwrap();
        let output = daemon.ctl(&["generate", "-m", "m", "--schema", path.to_str().unwrap(), "who?"]).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), says);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(asked(&server)["response_format"]["json_schema"]["name"], "person");
        let body = &server.posts()[0].body;
        assert!(body.contains("{\"type\":\"object\",\"properties\":{\"z\":{},\"a\":{}}}"), "{body}");
    }
}
