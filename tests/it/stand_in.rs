//! Which models answer in place of the one that was asked for, through the whole daemon.

use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated};
use serde_json::json;

use crate::{
    caller::{Answer, Verdict, chat, request},
    daemon::{Daemon, Options},
};

const WORDS: usize = 6;

async fn server(shape: Shape, model: &str) -> Simulated {
    let size = if model.to_lowercase().contains("14b") { "14.8B" } else { "8.2B" };
    let offer = Offer { family: "qwen3".into(), parameters: size.into(), ..Offer::named(model) };
    Simulated::start(shape, Script { words: WORDS, models: vec![offer], ..Script::default() }).await.unwrap()
}

/// An Ollama and a vLLM that call one model differently, and an LM Studio with a larger one.
async fn three(config: &str) -> (Daemon, [Simulated; 3]) {
    let servers = [
        server(Shape::Ollama, "qwen3:8b").await,
        server(Shape::Vllm, "Qwen/Qwen3-8B").await,
        server(Shape::LmStudio, "qwen3-14b").await,
    ];
    let mut options = Options::alone().config(config);
    for (server, (name, priority)) in servers.iter().zip([("a", 0), ("b", 1), ("c", 2)]) {
        options = options.simulated(server, name, priority);
    }
    (options.start().await, servers)
}

async fn ask(daemon: &Daemon, model: &str, stream: bool, fallback: &str) -> Answer {
    let mut headers = vec![];
    if !fallback.is_empty() {
        headers.push(("x-lovable-fallback", fallback));
    }
    let body = chat(model, stream, "Count for me.").to_string();
    daemon.caller().send(request("POST", "/v1/chat/completions", body.into(), &headers)).await.unwrap()
}

/// Who answered, with what, and how far that was from what was asked: as headers and body say it.
fn who(answer: &Answer) -> String {
    if answer.status != 200 {
        return format!("{} {}", answer.status, answer.json()["error"]["message"].as_str().unwrap());
    }
    assert_eq!(answer.verdict(), Verdict::Whole(WORDS), "{}", answer.text());
    let header = |name: &str| answer.header(name).unwrap();
    let model = header("x-lovable-model");
    let said = format!("\"model\":\"{model}\"");
    assert!(answer.text().replace("\": \"", "\":\"").contains(&said), "{model}: {}", answer.text());
    format!("{} {model} {}", header("x-lovable-server"), header("x-lovable-substituted"))
}

fn fails(server: &Simulated) {
    server.change(|script| script.plan = Plan::Always(Fault::ServerError));
}

#[tokio::test]
async fn the_same_model_under_another_name_answers_when_its_server_cannot() {
    let (daemon, servers) = three("").await;
    for stream in [true, false] {
        assert_eq!(who(&ask(&daemon, "qwen3:8b", stream, "").await), "a qwen3:8b no");
        assert_eq!(who(&ask(&daemon, "Qwen/Qwen3-8B", stream, "").await), "b Qwen/Qwen3-8B no");
    }
    fails(&servers[0]);
    for stream in [true, false] {
        let answer = ask(&daemon, "qwen3:8b", stream, "").await;
        assert_eq!(who(&answer), "b Qwen/Qwen3-8B equivalent");
    }
    let id = ask(&daemon, "qwen3:8b", false, "same").await.header("x-lovable-request-id").unwrap().to_owned();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    assert_eq!((&told["substituted"], &told["asked"]), (&json!("equivalent"), &json!("qwen3:8b")), "{told}");
}

#[tokio::test]
async fn no_other_model_answers_unless_the_caller_or_the_person_says_so() {
    let (daemon, servers) = three("").await;
    fails(&servers[0]);
    assert!(who(&ask(&daemon, "qwen3:8b", false, "none").await).starts_with("50"));
    assert!(who(&ask(&daemon, "qwen3:8b@a", false, "").await).starts_with("50"), "a pin");
    assert_eq!(who(&ask(&daemon, "qwen3:8b@a", false, "same").await), "b Qwen/Qwen3-8B equivalent");
    fails(&servers[1]);
    assert!(who(&ask(&daemon, "qwen3:8b", false, "").await).starts_with("50"));
    for stream in [true, false] {
        assert_eq!(who(&ask(&daemon, "qwen3:8b", stream, "local").await), "c qwen3-14b alternative");
        assert_eq!(who(&ask(&daemon, "qwen3:8b", stream, "cloud").await), "c qwen3-14b alternative");
    }
    assert_eq!(who(&ask(&daemon, "auto", false, "").await), "c qwen3-14b no", "the choice was ours");
    assert!(who(&ask(&daemon, "qwen3:9b", false, "local").await).starts_with("404"), "a typo");
}

#[tokio::test]
async fn another_model_answers_anew_where_nothing_of_a_half_answer_has_gone_out() {
    let (daemon, servers) = three("").await;
    for server in &servers[..2] {
        server.change(|script| script.plan = Plan::Always(Fault::DieMidStream));
    }
    assert_eq!(who(&ask(&daemon, "qwen3:8b", false, "local").await), "c qwen3-14b alternative");
    let begun = ask(&daemon, "qwen3:8b", true, "local").await;
    assert!(matches!(begun.verdict(), Verdict::BrokenOff(3..)), "{}", begun.text());
    assert_eq!(servers[2].counts().received, 1, "it cannot go on with the words of another model");
}

#[tokio::test]
async fn nothing_goes_beyond_the_limit() {
    let (daemon, servers) = three("[fallback]\ndefault = \"local\"\nlimit = \"same\"\n").await;
    fails(&servers[0]);
    assert_eq!(who(&ask(&daemon, "qwen3:8b", false, "cloud").await), "b Qwen/Qwen3-8B equivalent");
    fails(&servers[1]);
    for fallback in ["", "local", "cloud"] {
        assert!(who(&ask(&daemon, "qwen3:8b", false, fallback).await).starts_with("50"), "{fallback}");
    }
    assert_eq!(servers[2].counts().received, 0);
}

#[tokio::test]
async fn the_chain_of_the_configuration_is_followed_in_its_order() {
    let chains = "[fallback]\ndefault = \"local\"\nchains = { \"big\" = [\"qwen3:32b\", \"qwen3-14b\", \"qwen3:8b\"] }\n";
    let (daemon, servers) = three(chains).await;
    assert_eq!(who(&ask(&daemon, "big", true, "").await), "c qwen3-14b alternative");
    assert!(who(&ask(&daemon, "big", true, "same").await).starts_with("503 "), "a chain is an alternative");
    fails(&servers[2]);
    assert_eq!(who(&ask(&daemon, "big", true, "").await), "a qwen3:8b alternative");
    fails(&servers[0]);
    assert_eq!(who(&ask(&daemon, "big", false, "").await), "b Qwen/Qwen3-8B alternative");
}
