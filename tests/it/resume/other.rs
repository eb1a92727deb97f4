//! Answers that are more than text: calls are held until they are whole, and what cannot be
//! gone on with is begun anew or broken off.

use lovable::simulate::{Fault, Plan, Script, Shape};
use serde_json::{Value, json};

use super::{Twins, got, of, question, word};
use crate::caller::Answer;

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
        // A stream of this language says each item again when it is whole, and all at its end.
        let item = Some(&one["item"]).filter(|_| one["type"] == "response.output_item.done");
        let items = one["output"].as_array().into_iter().flatten().chain(item);
        for item in items.filter(|it| it["type"] == "function_call") {
            calls.push((
                item["name"].as_str().unwrap().to_owned(),
                item["arguments"].as_str().unwrap().to_owned(),
            ));
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
        for (path, stream) in ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"]
            .iter()
            .flat_map(|path| [(path, true), (path, false)])
        {
            let mut body = question(path, stream, &Value::Null);
            body["model"] = if second == Shape::Ollama { "sim:latest" } else { "sim" }.into();
            let turns = if *path == "/v1/responses" { "input" } else { "messages" };
            body[turns][0]["content"] = "Use weather and time.".into();
            let tool = |name: &str| match *path {
                "/v1/responses" => json!({"type": "function", "name": name, "parameters": schema}),
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
                assert!(!answer.text().contains("\"error\":{"), "{}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn what_was_said_before_a_call_is_not_said_again() {
    let call = |more: &str| {
        format!(
            "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,{more}}}]}}}}]}}\n\n"
        )
    };
    let begun = call("\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}");
    let half = call("\"function\":{\"arguments\":\"{\\\"a\\\":\"}");
    let rest = call("\"function\":{\"arguments\":\"1}\"}");
    let said = word("Let me look.");
    let answer =
        of(&format!("{said}{begun}{half}"), &format!("{said}{begun}{half}{rest}"), &Value::Null).await;
    assert_eq!(got(&answer).text, "Let me look.", "{}", answer.text());
    assert_eq!(calls(&answer), [("f".to_owned(), "{\"a\":1}".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_gone_on_with_is_begun_anew_or_broken_off_in_the_callers_language() {
    let schema = json!({"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "a", "schema": schema});
    let nameless = json!({"type": "json_schema", "schema": schema});
    let twins = Twins::start(Shape::Vllm, Shape::LlamaCpp, Script::default).await;
    for (path, more) in [
        ("/v1/chat/completions", json!({"response_format": {"type": "json_object"}})),
        ("/v1/chat/completions", json!({"n": 2})),
        ("/v1/chat/completions", json!({"logprobs": true})),
        ("/v1/completions", json!({"n": 2})),
        ("/v1/completions", json!({"logprobs": 1})),
        ("/v1/responses", json!({"text": {"format": format}})),
        ("/v1/responses", json!({"include": ["message.output_text.logprobs"]})),
        ("/v1/messages", json!({"output_config": {"format": nameless}})),
        ("/api/chat", json!({"format": "json"})),
        ("/api/chat", json!({"logprobs": true})),
        ("/api/generate", json!({"format": schema})),
    ] {
        for stream in [true, false] {
            let mut body = question(path, stream, &Value::Null);
            for (name, value) in more.as_object().unwrap() {
                body[name] = value.clone();
            }
            let uncut = twins.uncut(path, &body).await;
            for after in [0, 1, 2] {
                let answer = twins.struck(path, &body, after, Fault::DieMidStream).await;
                let shown = answer.text();
                if !stream || after == 0 {
                    assert_eq!(got(&answer).text, uncut.text, "{path} {more} {stream} {after}: {shown}");
                    continue;
                }
                let broken = match path {
                    "/v1/responses" => "\"type\":\"response.failed\"",
                    "/v1/messages" => "event: error\n",
                    "/api/chat" | "/api/generate" => "{\"error\":",
                    _ => "data: {\"error\":",
                };
                assert!(shown.contains(broken), "{path} {more} {after}: {shown}");
                let ends = ["[DONE]", "response.completed", "message_stop", "\"done\":true"];
                assert!(!ends.iter().any(|it| shown.contains(it)), "{path} {more} {after}: {shown}");
                let reasons = ["\"finish_reason\":\"", "\"stop_reason\":\"", "\"done_reason\""];
                assert!(!reasons.iter().any(|it| shown.contains(it)), "{path} {more} {after}: {shown}");
            }
        }
    }
}
