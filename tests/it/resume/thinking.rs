//! Answers that think: cut in their thinking they go on in there where the kind can, and no
//! thought is shown twice.

use lovable::simulate::{Fault, Script, Shape};
use serde_json::{Value, json};

use super::{Got, STOP, Twins, got, question, word};
use crate::{
    daemon::Options,
    scripted::{STREAM, Scripted},
};

/// A question that is to be thought about.
fn thoughtful(path: &str, stream: bool, more: &Value) -> Value {
    let mut body = question(path, stream, more);
    match path {
        "/v1/messages" => {
            body["thinking"] = json!({"type": "adaptive"});
            body["output_config"] = json!({"effort": "medium"});
        }
        "/api/chat" | "/api/generate" => body["think"] = true.into(),
        "/v1/responses" => body["reasoning"] = json!({"effort": "high"}),
        _ => body["reasoning_effort"] = "high".into(),
    }
    body
}

const THINKING_PATHS: [&str; 5] =
    ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"];

/// Cuts an answer that has four thoughts and four words at every piece, in every language that
/// thinks; says how many words the second server said that it was told of.
async fn thinks(first: Shape, second: Shape, more: Value) -> u64 {
    let script = || Script { words: 4, thoughts: 4, ..Script::default() };
    let twins = Twins::start(first, second, script).await;
    let mut said_again = 0;
    for (path, stream) in THINKING_PATHS.iter().flat_map(|path| [(path, true), (path, false)]) {
        let body = thoughtful(path, stream, &more);
        let uncut = twins.uncut(path, &body).await;
        assert!(!uncut.thinking.is_empty() && uncut.usage.len() == 2, "{path} {stream}: {uncut:?}");
        let pieces = uncut.usage[1] as usize;
        for after in 0..=pieces {
            let before = twins.second.counts().words;
            let answer = twins.cut(path, &body, after, Fault::DieMidStream).await;
            let (cut, shown) = (got(&answer), answer.text());
            let expected = Got { roles: cut.roles, ..uncut.clone() };
            assert_eq!(cut, expected, "{path} {stream} {more} cut after {after}: {shown}");
            let rest = (pieces - after).max(1);
            said_again += (twins.second.counts().words - before).saturating_sub(rest as u64);
        }
    }
    said_again
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_in_its_thinking_goes_on_in_there() {
    let llama = thinks(Shape::Vllm, Shape::LlamaCpp, Value::Null).await;
    let ollama = thinks(Shape::Vllm, Shape::Ollama, Value::Null).await;
    let back = thinks(Shape::Ollama, Shape::LlamaCpp, Value::Null).await;
    assert_eq!((llama, ollama, back), (0, 0, 0), "all of it was told");
    // The last word is said again, in case that it was cut.
    thinks(Shape::Vllm, Shape::LlamaCpp, json!({"temperature": 0})).await;
    thinks(Shape::LlamaCpp, Shape::Ollama, json!({"temperature": 0})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thoughts_count_against_the_limit() {
    for limit in [3, 6] {
        thinks(Shape::Vllm, Shape::LlamaCpp, json!({"max_tokens": limit})).await;
        thinks(Shape::Vllm, Shape::Ollama, json!({"max_tokens": limit})).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thoughts_are_not_shown_twice_where_a_server_thinks_anew() {
    for second in [Shape::Vllm, Shape::OpenAi, Shape::LmStudio] {
        let again = thinks(Shape::Vllm, second, Value::Null).await;
        assert!(again > 0, "{second:?} was told nothing");
    }
}

#[tokio::test]
async fn an_ollama_whose_template_leaves_thinking_out_thinks_anew() {
    let line = |name: &str, text: &str| {
        json!({"model": "m", "message": {"role": "assistant", "content": "", name: text}, "done": false})
            .to_string()
            + "\n"
    };
    let end = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"});
    let anew =
        line("thinking", "hm") + &line("thinking", ", so") + &line("content", "one") + &format!("{end}\n");
    let rendered = json!({"model": "m", "_debug_info": {"rendered_template": "U: hi A: </end>"}}).to_string();
    let says = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let (anew, rendered) = (says(&anew), says(&rendered));
    let ollama = Scripted::ollama(move |post, mut line| {
        let answer = if post.body.contains("_debug_render_only") { rendered.clone() } else { anew.clone() };
        async move {
            line.say(answer).await;
        }
    })
    .await;
    let thought = |text| word(text).replace("\"content\"", "\"reasoning\"");
    let first = Scripted::saying(format!("{STREAM}{}{}", thought("h"), thought("m"))).await;
    let daemon =
        Options::alone().server(first.endpoint(), "a", 0).server(ollama.endpoint(), "b", 1).start().await;
    let mut body = question("/v1/chat/completions", true, &Value::Null);
    body["model"] = "m".into();
    let answer = daemon.caller().post("/v1/chat/completions", &body).await;
    let got = got(&answer);
    assert_eq!((got.thinking.as_str(), got.text.as_str()), ("hm, so", "one"), "{}", answer.text());
    assert_eq!(ollama.posts().len(), 2);
}

#[tokio::test]
async fn a_llama_cpp_that_does_not_go_on_inside_thinking_thinks_anew() {
    let thought = |text| word(text).replace("\"content\"", "\"reasoning_content\"");
    let anew = format!("{STREAM}{}{}{}{STOP}", thought("hm"), thought(", so"), word("one"));
    let refusal = json!({"error": {"code": 400, "type": "invalid_request_error",
        "message": "Assistant response prefill is incompatible with enable_thinking."}});
    let refusal = format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{refusal}",
        refusal.to_string().len()
    );
    let llama = Scripted::llama_cpp(move |post, mut line| {
        let is_first = !post.head.starts_with("post /v1/chat") || post.body.contains("\"reasoning_content\"");
        let answer = if is_first { refusal.clone() } else { anew.clone() };
        async move {
            line.say(answer).await;
        }
    })
    .await;
    let first = Scripted::saying(format!("{STREAM}{}{}", thought("h"), thought("m"))).await;
    let daemon =
        Options::alone().server(first.endpoint(), "a", 0).server(llama.endpoint(), "b", 1).start().await;
    let mut body = question("/v1/chat/completions", true, &Value::Null);
    body["model"] = "m".into();
    let answer = daemon.caller().post("/v1/chat/completions", &body).await;
    let got = got(&answer);
    assert_eq!((got.thinking.as_str(), got.text.as_str()), ("hm, so", "one"), "{}", answer.text());
    assert!(llama.posts().iter().any(|it| it.body.contains("\"hm\"")), "it was asked to go on");
}
