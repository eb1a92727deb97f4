//! Answers that go on from another server: for each place at which one can be cut, what the
//! caller has is what it would have had.

mod other;
mod thinking;

use std::{collections::BTreeSet, time::Duration};

use lovable::simulate::{Fault, Offer, Plan, Script, Shape, Simulated};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    caller::{Answer, Verdict, request},
    daemon::{Daemon, Options},
    scripted::{STREAM, Scripted},
};

pub(crate) const PATHS: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
];

/// A question in the language of the path; `more` as OpenAI calls it.
pub(crate) fn question(path: &str, stream: bool, more: &Value) -> Value {
    let mut body = json!({"model": "sim", "stream": stream});
    let turns = json!([{"role": "user", "content": "Count for me."}]);
    match path {
        "/v1/completions" | "/api/generate" => body["prompt"] = "Count for me.".into(),
        "/v1/responses" => body["input"] = turns,
        _ => body["messages"] = turns,
    }
    if path == "/v1/messages" {
        body["max_tokens"] = 100.into();
    }
    if path.ends_with("completions") && stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    for (name, value) in more.as_object().into_iter().flatten() {
        match (path, name.as_str()) {
            ("/v1/responses", "max_tokens") => body["max_output_tokens"] = value.clone(),
            ("/v1/responses", "stop") => return Value::Null,
            ("/v1/messages", "stop") => body["stop_sequences"] = json!([value]),
            ("/api/chat" | "/api/generate", "max_tokens") => body["options"]["num_predict"] = value.clone(),
            ("/api/chat" | "/api/generate", "stop") => body["options"]["stop"] = json!([value]),
            ("/api/chat" | "/api/generate", name) => body["options"][name] = value.clone(),
            (_, name) => body[name] = value.clone(),
        }
    }
    body
}

/// What a caller has of an answer, whatever its language.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Got {
    text: String,
    thinking: String,
    reasons: Vec<String>,
    usage: Vec<u64>,
    roles: usize,
    ids: usize,
    end: String,
}

fn got(answer: &Answer) -> Got {
    let shown = answer.text();
    assert_eq!((answer.status, answer.clean), (200, true), "{shown}");
    let lines =
        shown.lines().filter(|it| !it.is_empty() && !it.starts_with(':') && !it.starts_with("event:"));
    let data: Vec<&str> = lines.map(|it| it.strip_prefix("data: ").unwrap_or(it)).collect();
    let mut got = Got {
        end: data.last().copied().filter(|it| *it == "[DONE]").unwrap_or_default().to_owned(),
        ..Got::default()
    };
    let (mut ids, mut named, mut blocks) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for one in data.iter().filter(|it| **it != "[DONE]") {
        let one: Value = serde_json::from_str(one).unwrap_or_else(|error| panic!("{error} in {shown}"));
        assert!(one["error"].is_null() && one["type"] != "error", "{shown}");
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let choice = &one["choices"][0];
        let said = match one["type"].as_str() {
            Some("response.output_text.delta") => text(&one["delta"]),
            Some("message") => parts(&one["content"], "text"),
            _ if one["object"] == "response" => {
                let outputs = one["output"].as_array().into_iter().flatten();
                outputs.filter(|it| it["type"] == "message").map(|it| parts(&it["content"], "text")).collect()
            }
            _ => [
                &choice["delta"]["content"],
                &choice["message"]["content"],
                &choice["text"],
                &one["delta"]["text"],
                &one["message"]["content"],
                &one["response"],
            ]
            .map(text)
            .concat(),
        };
        got.text += &said;
        let outputs = one["output"].as_array().into_iter().flatten().filter(|it| it["type"] == "reasoning");
        let thought = |it: &Value| parts(&it["content"], "text") + &parts(&it["summary"], "text");
        got.thinking += &outputs.map(thought).collect::<String>();
        if one["type"]
            .as_str()
            .is_some_and(|it| it.starts_with("response.reasoning") && it.ends_with("delta"))
        {
            got.thinking += &text(&one["delta"]);
        }
        // llama.cpp and vLLM call it differently, and a stream calls it by one name.
        let is = |name: &str| choice["delta"][name].is_string();
        named.extend(["reasoning", "reasoning_content"].into_iter().filter(|it| is(it)));
        got.thinking += &[
            &choice["delta"]["reasoning"],
            &choice["delta"]["reasoning_content"],
            &choice["message"]["reasoning"],
            &choice["message"]["reasoning_content"],
            &one["delta"]["thinking"],
            &one["message"]["thinking"],
            &one["thinking"],
        ]
        .map(text)
        .concat();
        got.thinking += &parts(&one["content"], "thinking");
        if matches!(one["type"].as_str(), Some("content_block_start" | "response.output_item.added")) {
            let place = one["index"].as_u64().or(one["output_index"].as_u64());
            assert!(blocks.insert(place), "a block begins twice: {shown}");
        }
        got.roles += usize::from(
            choice["delta"]["role"].is_string()
                || one["type"] == "message_start"
                || one["type"] == "response.created",
        );
        let reasons = [
            &choice["finish_reason"],
            &one["delta"]["stop_reason"],
            &one["stop_reason"],
            &one["done_reason"],
            &one["response"]["incomplete_details"]["reason"],
        ];
        got.reasons.extend(reasons.iter().filter_map(|it| it.as_str()).map(str::to_owned));
        let usage = [&one["usage"], &one["response"]["usage"]].into_iter().find(|it| it.is_object());
        let counts = |it: &Value| {
            ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"]
                .iter()
                .filter_map(|name| it[name].as_u64())
                .collect()
        };
        if let Some(usage) = usage {
            got.usage = counts(usage);
        } else if one["eval_count"].is_u64() {
            got.usage =
                ["prompt_eval_count", "eval_count"].iter().filter_map(|it| one[it].as_u64()).collect();
        }
        ids.extend(
            [&one["id"], &one["response"]["id"], &one["message"]["id"]]
                .iter()
                .filter_map(|it| it.as_str())
                .map(str::to_owned),
        );
    }
    assert!(named.len() <= 1, "{named:?} in {shown}");
    got.ids = ids.len();
    got
}

/// The texts of such parts.
fn parts(all: &Value, name: &str) -> String {
    all.as_array().into_iter().flatten().filter_map(|it| it[name].as_str()).collect()
}

/// Two servers with one model, of which the first dies when it is told to.
struct Twins {
    daemon: Daemon,
    first: Simulated,
    second: Simulated,
}

impl Twins {
    async fn start(first: Shape, second: Shape, script: impl Fn() -> Script) -> Self {
        let script = || Script { models: vec![Offer::named("sim")], ..script() };
        let first = Simulated::start(first, script()).await.unwrap();
        let second = Simulated::start(second, script()).await.unwrap();
        let daemon =
            Options::alone().simulated(&first, "first", 0).simulated(&second, "second", 10).start().await;
        Self { daemon, first, second }
    }

    async fn ask(&self, path: &str, body: &Value) -> Answer {
        self.daemon.caller().send(request("POST", path, body.to_string().into(), &[])).await.unwrap()
    }

    /// The answer of the first server alone; its strikes are forgiven by it.
    async fn uncut(&self, path: &str, body: &Value) -> Got {
        self.first.change(|it| it.plan = Plan::Never);
        let answer = self.ask(path, body).await;
        assert_eq!(answer.header("x-lovable-server"), Some("first"), "{}", answer.text());
        got(&answer)
    }

    /// The first server dies after so many pieces, and the second must be asked.
    async fn cut(&self, path: &str, body: &Value, after: usize, fault: Fault) -> Answer {
        let before = self.second.counts().received;
        let answer = self.struck(path, body, after, fault).await;
        assert!(self.second.counts().received > before, "{path} {after}: {}", answer.text());
        answer
    }

    /// The first server dies after so many pieces.
    async fn struck(&self, path: &str, body: &Value, after: usize, fault: Fault) -> Answer {
        self.first.change(|it| {
            it.plan = Plan::Always(fault);
            it.after = after;
        });
        let answer = self.ask(path, body).await;
        let mut pinned = body.clone();
        pinned["model"] = "sim@first".into();
        self.first.change(|it| it.plan = Plan::Never);
        self.ask(path, &pinned).await;
        answer
    }
}

/// Cuts an answer at every piece, in every language, streamed and plain.
async fn holds(first: Shape, second: Shape, script: impl Fn() -> Script, pieces: usize, more: Value) {
    let twins = Twins::start(first, second, script).await;
    for (path, stream) in PATHS.iter().flat_map(|path| [(path, true), (path, false)]) {
        let body = question(path, stream, &more);
        if body.is_null() {
            continue;
        }
        let uncut = twins.uncut(path, &body).await;
        assert!(!uncut.text.is_empty() && uncut.usage.len() == 2, "{path}: {uncut:?}");
        for after in 0..=pieces {
            let answer = twins.cut(path, &body, after, Fault::DieMidStream).await;
            let mut cut = got(&answer);
            if twins.first.script().sentence.is_some() {
                // The blank of a word that was said without it is a token of its own.
                assert!(cut.usage.iter().zip(&uncut.usage).all(|(a, b)| a.abs_diff(*b) <= 1), "{cut:?}");
                cut.usage.clone_from(&uncut.usage);
            }
            // Where the first word had not gone out, the other server says all of it in its own way.
            let expected = Got { roles: cut.roles, ..uncut.clone() };
            assert_eq!(cut, expected, "{path} {stream} cut after {after}: {}", answer.text());
            assert!(
                got(&answer).roles <= 1 || second == Shape::LmStudio || second == Shape::Ollama,
                "{}",
                answer.text()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_at_any_word_is_the_uncut_answer() {
    for second in [Shape::LlamaCpp, Shape::Vllm, Shape::OpenAi] {
        holds(Shape::Vllm, second, || Script { words: 6, ..Script::default() }, 6, Value::Null).await;
    }
    for (first, second) in
        [(Shape::LlamaCpp, Shape::Vllm), (Shape::Vllm, Shape::Ollama), (Shape::Ollama, Shape::Vllm)]
    {
        holds(first, second, || Script { words: 6, ..Script::default() }, 6, Value::Null).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_counts_against_the_limit() {
    let script = || Script { words: 9, ..Script::default() };
    holds(Shape::Vllm, Shape::LlamaCpp, script, 6, json!({"max_tokens": 6})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_may_be_cut_is_said_again_where_it_is_the_same() {
    let script = || Script { words: 6, ..Script::default() };
    holds(Shape::Vllm, Shape::LlamaCpp, script, 6, json!({"temperature": 0, "max_tokens": 5})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blanks_and_long_characters_are_sewn_rightly() {
    // Each piece ends with the blanks before the next.
    let said = "Größe: 🙂 zwei  Leerzeichen\n\n日本語 und ein Ende.";
    let script = || Script { sentence: Some(said.to_owned()), ..Script::default() };
    holds(Shape::Vllm, Shape::LlamaCpp, script, 6, Value::Null).await;
    holds(Shape::Vllm, Shape::LlamaCpp, script, 6, json!({"temperature": 0})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_of_which_half_came_is_said_whole() {
    let said = "Größe 🙂 日本語 ü";
    let script = || Script { sentence: Some(said.to_owned()), ..Script::default() };
    let twins = Twins::start(Shape::Vllm, Shape::LlamaCpp, script).await;
    for (path, stream) in PATHS.iter().flat_map(|path| [(path, true), (path, false)]) {
        let body = question(path, stream, &Value::Null);
        for after in 0..4 {
            let answer = twins.cut(path, &body, after, Fault::HalfCharacter).await;
            assert_eq!(got(&answer).text, said, "{path} {stream} cut after {after}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_string_ends_the_answer_wherever_it_was_cut() {
    let script = || Script { words: 8, ..Script::default() };
    holds(Shape::Vllm, Shape::LlamaCpp, script, 2, json!({"stop": "3 w4"})).await;
}

#[tokio::test]
async fn what_happened_is_told_as_it_was() {
    let twins = Twins::start(Shape::Vllm, Shape::LlamaCpp, Script::default).await;
    for (at, stream) in [true, false].into_iter().enumerate() {
        let answer =
            twins.cut(PATHS[0], &question(PATHS[0], stream, &Value::Null), 3, Fault::ResetMidStream).await;
        let id = answer.header("x-lovable-request-id").unwrap();
        let told = twins.daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
        assert_eq!((&told["ending"], &told["status"]), (&json!("resumed"), &json!(200)), "{told}");
        let attempts = told["attempts"].as_array().unwrap();
        let one =
            |at: usize| (attempts[at]["server"].as_str().unwrap(), attempts[at]["fault"]["cause"].as_str());
        assert_eq!(
            (one(0), one(1), attempts.len()),
            (("first", Some("reset")), ("second", None), 2),
            "{told}"
        );
        assert_eq!((&told["usage"]["output_tokens"], &told["usage_estimated"]), (&json!(8), &json!(false)));
        let status = twins.daemon.caller().get("/lovable/v1/status").await.json();
        assert_eq!(status["requests"]["resumed"], at + 1, "{status}");
        assert_eq!(status["requests"]["attempts_failed_over"], at + 1, "{status}");
    }
}

#[tokio::test]
async fn counts_are_an_estimate_where_nobody_counts() {
    for (second, expected) in [
        (Shape::LlamaCpp, false),
        (Shape::Vllm, false),
        (Shape::LmStudio, true),
        (Shape::Ollama, true),
        (Shape::OpenAi, false),
    ] {
        let twins = Twins::start(Shape::Vllm, second, Script::default).await;
        let answer =
            twins.cut(PATHS[0], &question(PATHS[0], true, &Value::Null), 3, Fault::DieMidStream).await;
        let id = answer.header("x-lovable-request-id").unwrap();
        let told = twins.daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
        // Who says all of it again counts all of it.
        assert_eq!(told["usage_estimated"], expected, "{second:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_three_seconds_for_a_server_that_is_frozen() {
    for (fault, after) in [(Fault::StallInMiddle, 3), (Fault::StallAfterHead, 0), (Fault::StallBeforeHead, 0)]
    {
        let twins = Twins::start(Shape::Vllm, Shape::LlamaCpp, Script::default).await;
        let before = Instant::now();
        let freezing = async {
            while twins.first.counts().received == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            twins.first.change(|it| it.frozen = true);
        };
        twins.first.change(|it| (it.plan, it.after) = (Plan::Always(fault), after));
        let body = question(PATHS[0], true, &Value::Null);
        let (answer, ()) = tokio::join!(twins.ask(PATHS[0], &body), freezing);
        assert_eq!(answer.verdict(), Verdict::Whole(8), "{fault}: {}", answer.text());
        assert!(before.elapsed() < Duration::from_secs(3), "{fault}: {:?}", before.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_a_frozen_server_waits_for_a_busy_one_and_does_not_go_back() {
    let slow = || Script { slots: 1, between: Duration::from_millis(500), ..Script::default() };
    let twins = Twins::start(Shape::LlamaCpp, Shape::LlamaCpp, slow).await;
    twins.first.change(|it| (it.plan, it.after) = (Plan::Always(Fault::StallInMiddle), 1));
    let freezing = async {
        while twins.first.counts().received == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        twins.first.change(|it| it.frozen = true);
    };
    let body = question(PATHS[0], true, &Value::Null);
    let mut of_second = body.clone();
    of_second["model"] = "sim@second".into();
    let (answer, busy, ()) =
        tokio::join!(twins.ask(PATHS[0], &body), twins.ask(PATHS[0], &of_second), freezing);
    for answer in [&answer, &busy] {
        assert_eq!(answer.verdict(), Verdict::Whole(8), "{}", answer.text());
    }
    let id = answer.header("x-lovable-request-id").unwrap();
    let told = twins.daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    let servers: Vec<_> = told["attempts"].as_array().unwrap().iter().map(|it| &it["server"]).collect();
    assert_eq!(servers, ["first", "second"], "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_on_the_side_is_waited_for() {
    let twins = Twins::start(Shape::Vllm, Shape::LlamaCpp, || Script {
        before: Duration::from_secs(3),
        ..Script::default()
    })
    .await;
    let answer = twins.ask(PATHS[0], &question(PATHS[0], true, &Value::Null)).await;
    assert_eq!((answer.verdict(), answer.header("x-lovable-server")), (Verdict::Whole(8), Some("first")));
}

fn word(text: &str) -> String {
    let text = json!(text);
    format!(
        "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{text}}}}}]}}\n\n"
    )
}

const STOP: &str = "data: {\"id\":\"d\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

/// What a caller has whose first server says this and dies, and whose second says that.
async fn of(first: &str, second: &str, more: &Value) -> Answer {
    let first = Scripted::saying(format!("{STREAM}{first}")).await;
    let second = Scripted::saying(format!("{STREAM}{second}{STOP}")).await;
    let daemon =
        Options::alone().server(first.endpoint(), "a", 0).server(second.endpoint(), "b", 1).start().await;
    let mut body = question("/v1/chat/completions", true, more);
    body["model"] = "m".into();
    daemon.caller().post("/v1/chat/completions", &body).await
}

#[tokio::test]
async fn a_server_that_can_only_start_again_must_say_the_same() {
    let answer = of(&word("one two"), &format!("{}{}", word("one "), word("two three")), &Value::Null).await;
    assert_eq!((got(&answer).text.as_str(), got(&answer).ids), ("one two three", 1), "{}", answer.text());
    let answer = of(&word("one two"), &word("Sure! One, two"), &Value::Null).await;
    assert!(answer.text().contains("error") && !answer.text().contains("Sure"), "{}", answer.text());
    assert!(!answer.text().contains("[DONE]"), "{}", answer.text());
}

#[tokio::test]
async fn an_ollama_that_does_not_render_is_asked_from_the_start() {
    let lines = |text: &[&str]| -> String {
        let line = |it: &&str| {
            json!({"model": "m", "message": {"role": "assistant", "content": it}, "done": false}).to_string()
                + "\n"
        };
        let end = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"});
        text.iter().map(line).collect::<String>() + &end.to_string() + "\n"
    };
    let says = |body: String| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let ollama = Scripted::ollama(move |post, mut line| {
        let body = if post.body.contains("_debug_render_only") {
            lines(&[]).trim_end().to_owned()
        } else {
            lines(&["one", " two", " three"])
        };
        async move {
            line.say(says(body)).await;
        }
    })
    .await;
    let first = Scripted::saying(format!("{STREAM}{}{}", word("one"), word(" two"))).await;
    let daemon =
        Options::alone().server(first.endpoint(), "a", 0).server(ollama.endpoint(), "b", 1).start().await;
    let mut body = question("/v1/chat/completions", true, &Value::Null);
    body["model"] = "m".into();
    let answer = daemon.caller().post("/v1/chat/completions", &body).await;
    assert_eq!((got(&answer).text.as_str(), ollama.posts().len()), ("one two three", 2), "{}", answer.text());
    let id = answer.header("x-lovable-request-id").unwrap();
    let told = daemon.caller().get(&format!("/lovable/v1/requests/{id}")).await.json();
    assert_eq!(told["attempts"].as_array().unwrap().len(), 2, "both questions are one attempt: {told}");
}

#[tokio::test]
async fn a_stop_string_of_which_the_caller_has_the_beginning_ends_the_answer() {
    let word = |text: &str| word(text).replace("\"delta\":{\"content\"", "\"text\"").replace("}}]}", "}]}");
    let first = Scripted::saying(format!("{STREAM}{}", word("one EN"))).await;
    let second = Scripted::saying(format!("{STREAM}{}{}", word("D of "), word("it"))).await;
    let daemon =
        Options::alone().server(first.endpoint(), "a", 0).server(second.endpoint(), "b", 1).start().await;
    let body = json!({"model": "m", "prompt": "Count: ", "stream": true, "max_tokens": 7, "stop": ["END"]});
    let got = got(&daemon.caller().post("/v1/completions", &body).await);
    assert_eq!((got.text.as_str(), got.reasons[0].as_str(), got.end.as_str()), ("one EN", "stop", "[DONE]"));
    let asked: Value = serde_json::from_str(&second.posts()[0].body).unwrap();
    assert_eq!((&asked["prompt"], &asked["max_tokens"]), (&json!("Count: one EN"), &json!(6)));
}
