//! What is written in each language, read again by other means than our own readers.

use serde_json::{Value, json};

use super::{
    answer::Voice,
    ask::{Gate, read},
    http::Request,
    pieces::{Pieces, text},
    script::Script,
    shape::Shape,
};

const GATES: [(&str, Shape); 14] = [
    ("/v1/chat/completions", Shape::Ollama),
    ("/v1/chat/completions", Shape::Vllm),
    ("/v1/chat/completions", Shape::LmStudio),
    ("/v1/chat/completions", Shape::LlamaCpp),
    ("/v1/chat/completions", Shape::OpenAi),
    ("/v1/completions", Shape::Vllm),
    ("/v1/completions", Shape::LlamaCpp),
    ("/v1/responses", Shape::Vllm),
    ("/v1/responses", Shape::LmStudio),
    ("/v1/messages", Shape::Vllm),
    ("/v1/messages", Shape::LmStudio),
    ("/v1/messages", Shape::LlamaCpp),
    ("/api/chat", Shape::Ollama),
    ("/api/generate", Shape::Ollama),
];

/// What was understood of an answer: text, thoughts, calls, reason, tokens of the answer.
#[derive(Debug, Default, PartialEq)]
struct Got {
    text: String,
    thoughts: String,
    calls: Vec<(String, String)>,
    reason: String,
    tokens: Option<u64>,
}

/// The stream and the whole answer to a request.
fn answers(path: &str, shape: Shape, body: Value) -> (String, String) {
    let gate = Gate::at(shape, path).unwrap();
    let request = Request::post(path, body.to_string());
    let Ok(ask) = read(shape, gate, &request) else { panic!("{path} {shape:?} {body}") };
    let script = Script::default();
    let pieces = Pieces::of(&script, &ask, 1);
    let voice = Voice { shape, ask: &ask, model: "m", pieces, number: 1, created: 2, context: 1 << 20 };
    let writes = voice.writes();
    let mut stream = writes.opening(&voice).unwrap_or_default();
    let count = voice.pieces.count();
    for index in 0..count {
        stream += &writes.piece(&voice, index, index + 1 == count);
    }
    stream += &writes.ending(&voice).concat();
    (stream, writes.whole(&voice, true))
}

/// A request of this sort, in the language of the path.
fn request(path: &str, prompt: &str, more: Value) -> Value {
    let tool = |name: &str| json!({"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}});
    let wants = |name: &str| more[name] == true;
    let mut body = json!({"model": "m", "stream": true});
    let turns = json!([{"role": "user", "content": prompt}]);
    let tools = [tool("weather"), tool("time")];
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    match path {
        "/v1/completions" | "/api/generate" => body["prompt"] = prompt.into(),
        "/v1/responses" => body["input"] = turns,
        _ => body["messages"] = turns,
    }
    match path {
        "/v1/messages" => body["max_tokens"] = json!(more["limit"].as_u64().unwrap_or(100)),
        "/v1/responses" => body["max_output_tokens"] = more["limit"].clone(),
        "/api/chat" | "/api/generate" => body["options"] = json!({"num_predict": more["limit"]}),
        _ => {
            body["max_tokens"] = more["limit"].clone();
            body["stream_options"] = json!({"include_usage": true});
        }
    }
    if wants("tools") {
        let wrapped: Vec<_> = tools.iter().map(|it| json!({"type": "function", "function": it})).collect();
        body["tools"] = match path {
            "/v1/responses" => json!(tools),
            "/v1/messages" => {
                json!(
                    tools.each_ref().map(|it| json!({"name": it["name"], "input_schema": it["parameters"]}))
                )
            }
            _ => json!(wrapped),
        };
    }
    if wants("schema") {
        match path {
            "/v1/responses" => body["text"] = json!({"format": {"type": "json_schema", "schema": schema}}),
            "/v1/messages" => {
                body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
            }
            "/api/chat" | "/api/generate" => body["format"] = schema,
            _ => body["response_format"] = json!({"type": "json_schema", "json_schema": {"schema": schema}}),
        }
    }
    if wants("thinks") {
        match path {
            "/v1/responses" => body["reasoning"] = json!({"effort": "low"}),
            "/v1/messages" => body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024}),
            "/api/chat" | "/api/generate" => body["think"] = true.into(),
            _ => body["reasoning_effort"] = "low".into(),
        }
    }
    body
}

fn events(stream: &str) -> Vec<Value> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn said(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read_stream(path: &str, stream: &str) -> Got {
    let mut got = Got::default();
    match path {
        "/api/chat" | "/api/generate" => {
            for line in stream.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let message = if path == "/api/chat" { &line["message"] } else { &line };
                got.text += &said(&message["content"]);
                got.text += &said(&message["response"]);
                got.thoughts += &said(&message["thinking"]);
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let function = &call["function"];
                    got.calls.push((said(&function["name"]), function["arguments"].to_string()));
                }
                if line["done"] == true {
                    got.reason = said(&line["done_reason"]);
                    got.tokens = line["eval_count"].as_u64();
                }
            }
        }
        "/v1/messages" => {
            let mut open = None;
            let events = events(stream);
            assert_eq!(events[0]["type"], "message_start");
            assert_eq!(events.last().unwrap()["type"], "message_stop");
            for event in &events {
                match event["type"].as_str().unwrap() {
                    "content_block_start" => {
                        assert_eq!(open, None, "{stream}");
                        open = event["index"].as_u64();
                        if event["content_block"]["type"] == "tool_use" {
                            got.calls.push((said(&event["content_block"]["name"]), String::new()));
                        }
                    }
                    "content_block_delta" => {
                        assert_eq!(open, event["index"].as_u64(), "{stream}");
                        got.text += &said(&event["delta"]["text"]);
                        got.thoughts += &said(&event["delta"]["thinking"]);
                        if let Some((_, arguments)) = got.calls.last_mut() {
                            *arguments += &said(&event["delta"]["partial_json"]);
                        }
                    }
                    "content_block_stop" => assert_eq!(open.take(), event["index"].as_u64(), "{stream}"),
                    "message_delta" => {
                        got.reason = said(&event["delta"]["stop_reason"]);
                        got.tokens = event["usage"]["output_tokens"].as_u64();
                    }
                    _ => {}
                }
            }
        }
        "/v1/responses" => {
            let events = events(stream);
            let numbers: Vec<_> = events.iter().map(|it| it["sequence_number"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
            for event in &events {
                match event["type"].as_str().unwrap() {
                    "response.output_text.delta" => got.text += &said(&event["delta"]),
                    "response.reasoning_text.delta" => got.thoughts += &said(&event["delta"]),
                    "response.output_item.added" if event["item"]["type"] == "function_call" => {
                        got.calls.push((said(&event["item"]["name"]), String::new()));
                    }
                    "response.function_call_arguments.delta" => {
                        got.calls.last_mut().unwrap().1 += &said(&event["delta"]);
                    }
                    "response.completed" | "response.incomplete" => {
                        let whole = read_whole(path, &event["response"].to_string());
                        got.reason = whole.reason.clone();
                        got.tokens = whole.tokens;
                        assert_eq!(got, whole, "the last event says all of it again");
                    }
                    _ => {}
                }
            }
        }
        _ => {
            assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
            for event in events(stream) {
                let choice = &event["choices"][0];
                let delta = &choice["delta"];
                got.text += &said(&delta["content"]);
                got.text += &said(&choice["text"]);
                got.thoughts += &said(&delta["reasoning"]);
                got.thoughts += &said(&delta["reasoning_content"]);
                for call in delta["tool_calls"].as_array().into_iter().flatten() {
                    let index = call["index"].as_u64().unwrap() as usize;
                    if index == got.calls.len() {
                        assert!(call["id"].is_string(), "{event}");
                        got.calls.push((said(&call["function"]["name"]), String::new()));
                    }
                    got.calls[index].1 += &said(&call["function"]["arguments"]);
                }
                if choice["finish_reason"].is_string() {
                    assert_eq!(got.reason, "", "only one reason");
                    got.reason = said(&choice["finish_reason"]);
                }
                got.tokens = event["usage"]["completion_tokens"].as_u64().or(got.tokens);
            }
        }
    }
    got
}

fn read_whole(path: &str, body: &str) -> Got {
    let body: Value = serde_json::from_str(body).unwrap();
    let mut got = Got::default();
    match path {
        "/v1/messages" => {
            for part in body["content"].as_array().unwrap() {
                got.text += &said(&part["text"]);
                got.thoughts += &said(&part["thinking"]);
                if part["type"] == "tool_use" {
                    got.calls.push((said(&part["name"]), part["input"].to_string()));
                }
            }
            got.reason = said(&body["stop_reason"]);
            got.tokens = body["usage"]["output_tokens"].as_u64();
        }
        "/v1/responses" => {
            for item in body["output"].as_array().unwrap() {
                let content = said(&item["content"][0]["text"]);
                match item["type"].as_str().unwrap() {
                    "reasoning" => got.thoughts += &content,
                    "message" => got.text += &content,
                    _ => got.calls.push((said(&item["name"]), said(&item["arguments"]))),
                }
            }
            got.reason = said(&body["status"]);
            got.tokens = body["usage"]["output_tokens"].as_u64();
        }
        "/api/chat" | "/api/generate" => got = read_stream(path, &body.to_string()),
        _ => {
            let choice = &body["choices"][0];
            let message = &choice["message"];
            got.text = said(&message["content"]) + &said(&choice["text"]);
            got.thoughts = said(&message["reasoning"]) + &said(&message["reasoning_content"]);
            for call in message["tool_calls"].as_array().into_iter().flatten() {
                got.calls.push((said(&call["function"]["name"]), said(&call["function"]["arguments"])));
            }
            got.reason = said(&choice["finish_reason"]);
            got.tokens = body["usage"]["completion_tokens"].as_u64();
        }
    }
    got
}

/// Streamed and plain say the same, and that is told.
fn got(path: &str, shape: Shape, prompt: &str, more: Value) -> Got {
    let (stream, whole) = answers(path, shape, request(path, prompt, more));
    let got = read_stream(path, &stream);
    assert_eq!(got, read_whole(path, &whole), "{path} {shape:?}: {stream}\n{whole}");
    got
}

#[test]
fn every_gate_says_the_words_one_reason_and_the_counts() {
    for (path, shape) in GATES {
        let all = got(path, shape, "x", json!({}));
        assert_eq!((all.text.as_str(), all.tokens), (text(8).as_str(), Some(8)), "{path} {shape:?}");
        assert!(["stop", "end_turn", "completed"].contains(&all.reason.as_str()), "{path} {all:?}");
        let cut = got(path, shape, "x", json!({"limit": 3}));
        assert_eq!((cut.text.as_str(), cut.tokens), (text(3).as_str(), Some(3)), "{path} {shape:?}");
        assert!(["length", "max_tokens", "incomplete"].contains(&cut.reason.as_str()), "{path} {cut:?}");
    }
}

#[test]
fn tools_that_are_mentioned_are_called_all_at_once() {
    for (path, shape) in GATES {
        if path == "/v1/completions" || path == "/api/generate" {
            continue;
        }
        let got = got(path, shape, "use weather and time, please", json!({"tools": true}));
        let arguments = "{\"city\":\"w1\"}".to_owned();
        let calls = ["weather", "time"].map(|it| (it.to_owned(), arguments.clone()));
        assert_eq!((got.calls, got.text.as_str()), (calls.to_vec(), ""), "{path} {shape:?}");
        assert!(["tool_calls", "tool_use", "completed", "stop"].contains(&got.reason.as_str()), "{path}");
    }
}

#[test]
fn tools_that_are_not_mentioned_are_not_called() {
    for (path, shape) in GATES {
        let got = got(path, shape, "sometime weathered", json!({"tools": true}));
        assert_eq!((got.calls.len(), got.text), (0, text(8)), "{path} {shape:?}");
    }
}

#[test]
fn a_schema_is_answered_in_json_that_fits() {
    for (path, shape) in GATES {
        let got = got(path, shape, "x", json!({"schema": true}));
        assert_eq!(got.text, "{\"a\":1}", "{path} {shape:?}");
    }
}

#[test]
fn thoughts_come_first_and_only_when_asked_for() {
    for (path, shape) in GATES {
        if path == "/v1/completions" {
            continue;
        }
        let got = got(path, shape, "x", json!({"thinks": true}));
        assert_eq!((got.thoughts.as_str(), got.text), ("t1 t2", text(8)), "{path} {shape:?}");
    }
}

#[test]
fn a_call_that_must_be_is_made_and_one_that_must_not_is_not() {
    for (choice, expected) in [
        (json!("required"), vec!["weather"]),
        (json!({"type": "function", "function": {"name": "time"}}), vec!["time"]),
        (json!("none"), vec![]),
    ] {
        let mut body = request("/v1/chat/completions", "x", json!({"tools": true}));
        body["tool_choice"] = choice.clone();
        let (stream, _) = answers("/v1/chat/completions", Shape::Vllm, body);
        let called = read_stream("/v1/chat/completions", &stream).calls;
        assert_eq!(called.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected, "{choice}");
    }
    let mut body = request("/v1/messages", "use weather and time", json!({"tools": true}));
    body["tool_choice"] = json!({"type": "any", "disable_parallel_tool_use": true});
    let (stream, _) = answers("/v1/messages", Shape::Vllm, body);
    assert_eq!(read_stream("/v1/messages", &stream).calls.len(), 1);
}

#[test]
fn an_image_is_told_by_its_size_in_each_language() {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";
    let url = format!("data:image/png;base64,{png}");
    for (path, shape, turn) in [
        (
            "/v1/chat/completions",
            Shape::Vllm,
            json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}),
        ),
        (
            "/v1/responses",
            Shape::Vllm,
            json!({"role": "user", "content": [{"type": "input_image", "image_url": url}]}),
        ),
        (
            "/v1/messages",
            Shape::Vllm,
            json!({"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}]}),
        ),
        ("/api/chat", Shape::Ollama, json!({"role": "user", "content": "x", "images": [png]})),
    ] {
        let mut body = request(path, "x", json!({}));
        body[if path == "/v1/responses" { "input" } else { "messages" }] = json!([turn]);
        let (stream, _) = answers(path, shape, body);
        assert_eq!(read_stream(path, &stream).text, "image 1: 1x1 pixels in 69 bytes", "{path}");
    }
}

#[test]
fn log_probabilities_fall_by_an_eighth() {
    for (path, shape) in [("/v1/chat/completions", Shape::Vllm), ("/api/chat", Shape::Ollama)] {
        let mut body = request(path, "x", json!({"limit": 2}));
        body["logprobs"] = true.into();
        body["top_logprobs"] = 2.into();
        let (stream, whole) = answers(path, shape, body);
        let whole: Value = serde_json::from_str(&whole).unwrap();
        let all = if path == "/api/chat" {
            &whole["logprobs"]
        } else {
            &whole["choices"][0]["logprobs"]["content"]
        };
        let numbers: Vec<_> =
            all.as_array().unwrap().iter().map(|it| it["logprob"].as_f64().unwrap()).collect();
        assert_eq!(numbers, [-0.125, -0.25], "{path}");
        assert_eq!(all[0]["top_logprobs"].as_array().unwrap().len(), 2);
        assert_eq!(stream.matches("top_logprobs").count(), 2, "{stream}");
    }
}

#[test]
fn usage_comes_only_when_asked_for() {
    for shape in Shape::ALL.iter().copied() {
        let mut body = request("/v1/chat/completions", "x", json!({}));
        body["stream_options"] = Value::Null;
        let (stream, _) = answers("/v1/chat/completions", shape, body);
        assert!(!stream.contains("\"usage\""), "{shape:?}");
    }
}

#[test]
fn nothing_to_answer_only_loads_at_ollama() {
    let (_, whole) = answers("/api/chat", Shape::Ollama, json!({"model": "m", "messages": []}));
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!((&whole["done_reason"], &whole["message"]["content"]), (&json!("load"), &json!("")));
    let body = json!({"model": "m", "prompt": "", "keep_alive": 0});
    let (_, whole) = answers("/api/generate", Shape::Ollama, body);
    assert!(whole.contains("\"unload\""), "{whole}");
}
