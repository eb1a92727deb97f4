//! Prompts and contexts, through the whole daemon: what surely does not fit is not sent.

use lovable::simulate::{Offer, Script, Shape, Simulated};
use serde_json::{Value, json};

use crate::{
    caller::{Answer, chat, request},
    daemon::{Daemon, Options},
};

async fn server(shape: Shape, context: u64) -> Simulated {
    let offer = Offer { context, ..Offer::named("m:1b") };
    Simulated::start(shape, Script { models: vec![offer], ..Script::default() }).await.unwrap()
}

async fn daemon(servers: &[&Simulated]) -> Daemon {
    let mut options = Options::alone();
    for (at, server) in servers.iter().enumerate() {
        options = options.simulated(server, ["a", "b"][at], at as i32);
    }
    options.start().await
}

fn words(count: usize) -> String {
    "word ".repeat(count)
}

async fn ask(daemon: &Daemon, path: &str, body: &Value) -> Answer {
    daemon.caller().send(request("POST", path, body.to_string().into(), &[])).await.unwrap()
}

#[tokio::test]
async fn a_long_prompt_goes_to_the_server_where_it_fits() {
    let (small, large) = (server(Shape::LlamaCpp, 1000).await, server(Shape::Vllm, 9000).await);
    let daemon = daemon(&[&small, &large]).await;
    for (count, expected) in [(10, "a"), (3000, "b")] {
        let answer = ask(&daemon, "/v1/chat/completions", &chat("m:1b", true, &words(count))).await;
        assert_eq!((answer.status, answer.header("x-lovable-server")), (200, Some(expected)));
    }
    assert_eq!((small.counts().received, large.counts().received), (1, 1));
}

#[tokio::test]
async fn a_prompt_that_fits_nowhere_is_refused_in_every_language_with_both_numbers() {
    let (one, other) = (server(Shape::LlamaCpp, 1000).await, server(Shape::Ollama, 1200).await);
    let daemon = daemon(&[&one, &other]).await;
    let long = words(3000);
    let turns = json!([{"role": "user", "content": long}]);
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "m:1b", "messages": turns, "stream": true})),
        ("/v1/completions", json!({"model": "m:1b", "prompt": long})),
        ("/v1/responses", json!({"model": "m:1b", "input": long})),
        ("/v1/messages", json!({"model": "m:1b", "max_tokens": 50, "messages": turns})),
        ("/api/chat", json!({"model": "m:1b", "messages": turns})),
        ("/api/generate", json!({"model": "m:1b", "prompt": long})),
    ] {
        let answer = ask(&daemon, path, &body).await;
        let told = answer.json();
        let message = told["error"]["message"].as_str().or(told["error"].as_str()).unwrap();
        assert_eq!(answer.status, 400, "{path}: {told}");
        let estimate = message.split_ascii_whitespace().find_map(|it| it.parse::<u64>().ok()).unwrap();
        assert!((3000..4500).contains(&estimate), "{path}: {message}");
        assert!(
            message.starts_with("prompt is too long") && message.contains(" > 1200 maximum"),
            "{message}"
        );
    }
    let answer = ask(&daemon, "/v1/chat/completions", &chat("m:1b", false, &long)).await;
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
    let id = answer.header("x-lovable-request-id").unwrap();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    let why = told["candidates"][0]["excluded"].as_str().unwrap();
    assert!(why.contains("has a context of 1000 tokens, too small for a prompt of about 3"), "{told}");
    assert_eq!(told["ending"], "refused", "{told}");
    assert_eq!((one.counts().received, other.counts().received), (0, 0), "nobody was asked");
}

#[tokio::test]
async fn near_the_limit_a_tokenizer_counts_where_there_is_one() {
    for shape in [Shape::LlamaCpp, Shape::Vllm] {
        let server = server(shape, 1000).await;
        let daemon = daemon(&[&server]).await;
        // By the estimate 950 and some; the tokenizer takes a token for each four bytes.
        let answer = ask(&daemon, "/v1/chat/completions", &chat("m:1b", true, &words(950))).await;
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 400, "{message}");
        let count = message.split_ascii_whitespace().find_map(|it| it.parse::<u64>().ok()).unwrap();
        assert!((1180..1300).contains(&count), "{shape:?}: {message}");
        assert_eq!(server.counts().received, 0, "{shape:?}: it was not sent");
    }
}

#[tokio::test]
async fn near_the_limit_a_server_without_a_tokenizer_for_callers_counts_for_itself() {
    let (one, other) = (server(Shape::LmStudio, 1000).await, server(Shape::Ollama, 1000).await);
    let daemon = daemon(&[&one, &other]).await;
    // It takes a token for each four bytes, so this is a few too many.
    let answer = ask(&daemon, "/v1/chat/completions", &chat("m:1b", true, &words(950))).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!((one.counts().refused, other.counts().refused), (1, 1), "each was asked");
    for server in daemon.servers().await {
        assert_eq!(server["standing"], "up", "{server}");
    }
}

#[tokio::test]
async fn a_context_is_never_asked_for_that_the_caller_did_not_ask_for() {
    let ollama = crate::scripted::Scripted::saying("HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}").await;
    let entry = format!("[[servers]]\nurl = \"{}\"\nkind = \"ollama\"\nname = \"a\"\n", ollama.endpoint());
    let daemon = Options::alone().config(&entry).start().await;
    let until = daemon.until("it is seen", |servers| servers.iter().any(|it| it["kind"] == "ollama"));
    until.await;
    ask(&daemon, "/v1/chat/completions", &chat("m", false, "hello")).await;
    ask(
        &daemon,
        "/api/chat",
        &json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "options": {"num_ctx": 512}}),
    )
    .await;
    let bodies: Vec<String> = ollama.posts().iter().map(|it| it.body.clone()).collect();
    let ours = bodies.iter().filter(|it| it.contains("hello"));
    assert!(ours.clone().count() > 0, "{bodies:?}");
    assert!(
        ours.clone().all(|it| !it.contains("num_ctx") && it.contains("\"truncate\":false")),
        "{bodies:?}"
    );
    assert!(bodies.iter().any(|it| it.contains("\"num_ctx\":512")), "{bodies:?}");
}
