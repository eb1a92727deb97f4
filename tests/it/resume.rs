//! Answers that go on from another server: for each place at which one can be cut, what the
//! caller has is what it would have had.

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
    let mut ids = BTreeSet::new();
    for one in data.iter().filter(|it| **it != "[DONE]") {
        let one: Value = serde_json::from_str(one).unwrap_or_else(|error| panic!("{error} in {shown}"));
        assert!(one["error"].is_null() && one["type"] != "error", "{shown}");
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let choice = &one["choices"][0];
        let said = match one["type"].as_str() {
            Some("response.output_text.delta") => text(&one["delta"]),
            Some("message") => text(&one["content"][0]["text"]),
            _ if one["object"] == "response" => text(&one["output"][0]["content"][0]["text"]),
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
        got.thinking += &[
            &choice["delta"]["reasoning"],
            &choice["delta"]["reasoning_content"],
            &one["delta"]["thinking"],
            &one["message"]["thinking"],
        ]
        .map(text)
        .concat();
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
    got.ids = ids.len();
    got
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
        self.first.change(|it| {
            it.plan = Plan::Always(fault);
            it.after = after;
        });
        let before = self.second.counts().received;
        let answer = self.ask(path, body).await;
        assert!(self.second.counts().received > before, "{path} {after}: {}", answer.text());
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
            // Where the first word had not gone out, the other server says all of it in its own way.
            let expected = Got { roles: got(&answer).roles, ..uncut.clone() };
            assert_eq!(got(&answer), expected, "{path} {stream} cut after {after}: {}", answer.text());
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
async fn a_stop_string_ends_the_answer_wherever_it_was_cut() {
    let script = || Script { words: 8, ..Script::default() };
    holds(Shape::Vllm, Shape::LlamaCpp, script, 2, json!({"stop": "3 w4"})).await;
}

/// The calls of an answer: names and arguments.
fn calls(answer: &Answer) -> Vec<(String, String)> {
    let shown = answer.text();
    let lines =
        shown.lines().map(|it| it.strip_prefix("data: ").unwrap_or(it)).filter(|it| it.starts_with('{'));
    let mut calls: Vec<(String, String)> = Vec::new();
    for one in lines.map(|it| serde_json::from_str::<Value>(it).unwrap()) {
        let choice = &one["choices"][0];
        let openai =
            [&choice["delta"]["tool_calls"], &choice["message"]["tool_calls"], &one["message"]["tool_calls"]];
        for call in openai.into_iter().filter_map(Value::as_array).flatten() {
            let function = &call["function"];
            if let Some(name) = function["name"].as_str() {
                calls.push((name.to_owned(), String::new()));
            }
            let arguments = &function["arguments"];
            let arguments = arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned);
            calls.last_mut().unwrap().1 += &arguments;
        }
        if one["content_block"]["type"] == "tool_use" {
            calls.push((one["content_block"]["name"].as_str().unwrap().to_owned(), String::new()));
        }
        if let Some(more) = one["delta"]["partial_json"].as_str() {
            calls.last_mut().unwrap().1 += more;
        }
        for part in one["content"].as_array().into_iter().flatten().filter(|it| it["type"] == "tool_use") {
            calls.push((part["name"].as_str().unwrap().to_owned(), part["input"].to_string()));
        }
    }
    // Written with other blanks and in other orders by other languages.
    let parsed = |it: &str| {
        serde_json::from_str::<Value>(it).unwrap_or_else(|error| panic!("{error}: {shown}")).to_string()
    };
    calls.into_iter().map(|(name, it)| (name, parsed(&it))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_cut_at_any_piece_is_a_whole_call() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]});
    for second in [Shape::LlamaCpp, Shape::OpenAi, Shape::Ollama] {
        let twins = Twins::start(Shape::Vllm, second, Script::default).await;
        for (path, stream) in ["/v1/chat/completions", "/v1/messages", "/api/chat"]
            .iter()
            .flat_map(|path| [(path, true), (path, false)])
        {
            let mut body = question(path, stream, &Value::Null);
            body["model"] = if second == Shape::Ollama { "sim:latest" } else { "sim" }.into();
            body["messages"][0]["content"] = "Use weather and time.".into();
            let tool = |name: &str| match *path {
                "/v1/messages" => json!({"name": name, "input_schema": schema}),
                _ => json!({"type": "function", "function": {"name": name, "parameters": schema}}),
            };
            body["tools"] = json!([tool("weather"), tool("time")]);
            twins.first.change(|it| it.plan = Plan::Never);
            let uncut = calls(&twins.ask(path, &body).await);
            assert_eq!(uncut.len(), 2, "{path}: {uncut:?}");
            for after in 0..14 {
                let answer = twins.cut(path, &body, after, Fault::DieMidStream).await;
                assert!(answer.status == 200 && answer.clean, "{}", answer.text());
                assert_eq!(calls(&answer), uncut, "{path} {stream} cut after {after}: {}", answer.text());
                assert!(!answer.text().contains("\"error\""), "{}", answer.text());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thoughts_cut_at_any_word_are_not_shown_twice() {
    let script = || Script { words: 4, thoughts: 4, ..Script::default() };
    for second in [Shape::LlamaCpp, Shape::Vllm, Shape::OpenAi] {
        let twins = Twins::start(Shape::Vllm, second, script).await;
        for (path, stream) in ["/v1/chat/completions", "/v1/messages", "/api/chat"]
            .iter()
            .flat_map(|path| [(path, true), (path, false)])
        {
            let mut body = question(path, stream, &Value::Null);
            match *path {
                "/v1/messages" => body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024}),
                "/api/chat" => body["think"] = true.into(),
                _ => body["reasoning_effort"] = "high".into(),
            }
            if *path == "/v1/messages" {
                body["max_tokens"] = 2000.into();
            }
            let uncut = twins.uncut(path, &body).await;
            assert!(stream != (uncut.thinking.is_empty()) || !stream, "{path}: {uncut:?}");
            for after in 0..=8 {
                let answer = twins.cut(path, &body, after, Fault::DieMidStream).await;
                let (cut, shown) = (got(&answer), answer.text());
                assert_eq!(
                    (&cut.text, &cut.thinking, &cut.reasons),
                    (&uncut.text, &uncut.thinking, &uncut.reasons),
                    "{path} {stream} cut after {after}: {shown}"
                );
            }
        }
    }
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
        assert_eq!(told["usage"]["output_tokens"], 8, "{told}");
        let status = twins.daemon.caller().get("/lovable/v1/status").await.json();
        assert_eq!(status["requests"]["resumed"], at + 1, "{status}");
        assert_eq!(status["requests"]["attempts_failed_over"], at + 1, "{status}");
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

#[tokio::test]
async fn an_answer_in_a_given_form_is_broken_off_once_it_has_begun() {
    for more in
        [json!({"response_format": {"type": "json_object"}}), json!({"logprobs": true}), json!({"n": 2})]
    {
        let answer = of(&word("{"), &word("{}"), &more).await;
        assert!(
            answer.text().contains("\"error\"") && !answer.text().contains("[DONE]"),
            "{}",
            answer.text()
        );
        let answer = of("", &word("{}"), &more).await;
        assert!(answer.text().contains("[DONE]"), "{}", answer.text());
    }
}
