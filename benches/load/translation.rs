//! What it costs that a caller and a server speak different languages, beside a
//! caller who speaks the server's own.

use std::time::Instant;

use serde_json::{Value, json};

use crate::{
    Scene, Way,
    client::post,
    measure::median,
    table::{Report, Row},
};

/// The words of a long answer, as the simulated servers' scripts have them.
const WORDS: usize = 2000;

/// A caller's language, and the server that is asked.
struct Pair {
    name: &'static str,
    /// The servers of short and of long answers.
    models: [&'static str; 2],
    path: &'static str,
    ask: fn(model: &str, stream: bool) -> Value,
}

/// The first of each server is passed through, and what the others are measured against.
const PAIRS: [&[Pair]; 2] = [
    &[
        Pair { name: "OpenAI to OpenAI", models: BARE, path: CHAT, ask: chat },
        Pair { name: "Anthropic to OpenAI", models: BARE, path: "/v1/messages", ask: messages },
        Pair { name: "Responses to OpenAI", models: BARE, path: "/v1/responses", ask: responses },
        Pair { name: "Ollama to OpenAI", models: BARE, path: OLLAMA_CHAT, ask: ollama },
    ],
    &[
        Pair { name: "Ollama to Ollama", models: OLLAMA, path: OLLAMA_CHAT, ask: ollama },
        Pair { name: "OpenAI to Ollama", models: OLLAMA, path: CHAT, ask: chat },
        Pair { name: "Anthropic to Ollama", models: OLLAMA, path: "/v1/messages", ask: messages },
    ],
];

const BARE: [&str; 2] = ["bare", "bare-flood"];
const OLLAMA: [&str; 2] = ["ollama", "ollama-flood"];
const CHAT: &str = "/v1/chat/completions";
const OLLAMA_CHAT: &str = "/api/chat";

/// A plain answer is asked for short, so that it comes plain from the server too.
fn most(stream: bool) -> usize {
    if stream { 100_000 } else { 8 }
}

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": most(stream), "messages": [hello()]})
}

fn messages(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_tokens": most(stream), "messages": [hello()]})
}

fn responses(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "max_output_tokens": most(stream), "input": "hello"})
}

fn ollama(model: &str, stream: bool) -> Value {
    json!({"model": model, "stream": stream, "options": {"num_predict": most(stream)}, "messages": [hello()]})
}

fn hello() -> Value {
    json!({"role": "user", "content": "hello"})
}

/// Time per plain request and per event of a stream, on one connection, in turns.
pub(crate) async fn translation(scene: &Scene, report: &mut Report) {
    for pairs in PAIRS {
        let mut requests: Vec<Vec<f64>> = pairs.iter().map(|_| Vec::new()).collect();
        let mut events = requests.clone();
        for _ in 0..scene.pick(4, 30) {
            for (nth, pair) in pairs.iter().enumerate() {
                requests[nth].push(slice(scene, pair, false, 200).await);
                events[nth].push(slice(scene, pair, true, 2).await / WORDS as f64);
            }
        }
        for (what, times) in [("request", requests), ("event", events)] {
            let medians: Vec<f64> = times.into_iter().map(median).collect();
            for (pair, time) in pairs.iter().zip(&medians) {
                let is_first = pair.name == pairs[0].name;
                report.add(Row {
                    name: format!("{}, each {what}{}", pair.name, if is_first { "" } else { ", and added" }),
                    shown: vec![(Way::Lovable, format!("{time:.1} µs"))],
                    figure: (!is_first).then_some(time - medians[0]),
                    unit: " µs",
                    target: None,
                });
            }
        }
    }
}

/// The usual time of one of `count` requests in a row, in µs.
async fn slice(scene: &Scene, pair: &Pair, stream: bool, count: usize) -> f64 {
    let model = pair.models[usize::from(stream)];
    let ask = post(pair.path, &(pair.ask)(model, stream).to_string());
    let mut line = scene.door(Way::Lovable, model).open().await.expect("the daemon is there");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        line.ask(&ask, |_| true).await.expect("every request is answered");
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times)
}
