//! A caller that sees when each piece of a streamed chat came, and holds it to every promise
//! of a whole answer: numbered words, one id, one model, one role, one finish reason, one
//! right usage, one terminator, in that order.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, client::conn::http1};
use serde_json::{Value, json};

/// What was seen of one answer.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// How many words it has, and the tokens of the prompt that it tells; else what is wrong with it.
    pub(crate) whole: Result<(usize, u64), Wrong>,
    /// Until the first word.
    pub(crate) first: Duration,
    /// Until its end.
    pub(crate) total: Duration,
    /// The longest time without a word: before the first, between two, before the end.
    pub(crate) silence: Duration,
}

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It failed, and says so.
    Failed(String),
    /// It claims to be whole, or is torn, and is not right.
    Corrupted(String),
}

/// The body of a streamed chat whose usage is told.
pub(crate) fn question(model: &str, prompt: &str) -> Value {
    json!({
        "model": model, "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": prompt}],
    })
}

/// Sends a question on an open connection and sees its answer to the end. `check` counts the
/// words of a right text.
pub(crate) async fn see(
    connection: &mut http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    check: impl Fn(&str) -> Result<usize, String>,
) -> Seen {
    let begun = Instant::now();
    let mut seen = Seen {
        whole: Err(Wrong::Failed("no answer".into())),
        first: Duration::ZERO,
        total: Duration::ZERO,
        silence: Duration::ZERO,
    };
    let mut last = begun;
    let mut heard = |seen: &mut Seen| {
        let now = Instant::now();
        seen.silence = seen.silence.max(now - last);
        last = now;
    };
    let response = match connection.send_request(request).await {
        Ok(response) => response,
        Err(error) => {
            seen.whole = Err(Wrong::Failed(format!("no answer: {error}")));
            heard(&mut seen);
            return seen;
        }
    };
    let (parts, mut body) = response.into_parts();
    let (mut text, mut looked, mut torn) = (Vec::new(), 0, None);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..])),
            Err(error) => {
                torn = Some(error);
                break;
            }
        }
        if memchr::memmem::find(&text[looked..], b"\"content\":\"").is_some() {
            looked = text.len();
            if seen.first.is_zero() {
                seen.first = begun.elapsed();
            }
            heard(&mut seen);
        }
    }
    heard(&mut seen);
    seen.total = begun.elapsed();
    let text = String::from_utf8_lossy(&text);
    seen.whole = match torn {
        None if parts.status == 200 => judge(&text, check),
        None => Err(Wrong::Failed(format!("{} {text}", parts.status))),
        Some(error) => Err(Wrong::Corrupted(format!("{error} after {text:?}"))),
    };
    seen
}

/// How many words a whole answer has, and how many tokens of the prompt it tells.
fn judge(text: &str, check: impl Fn(&str) -> Result<usize, String>) -> Result<(usize, u64), Wrong> {
    let wrong = |why: &str| Err(Wrong::Corrupted(format!("{why} in {text}")));
    let Some(text) = text.strip_suffix("\n\n") else { return wrong("a torn event") };
    let mut events: Vec<Value> = Vec::new();
    let mut done = false;
    for event in text.split("\n\n").filter(|it| !it.starts_with(':')) {
        let Some(data) = event.strip_prefix("data: ").filter(|_| !done) else { return wrong(event) };
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let Ok(value) = serde_json::from_str::<Value>(data) else { return wrong(data) };
        events.push(value);
    }
    if let Some(error) = events.iter().find(|it| it["error"].is_object()) {
        return match done {
            true => wrong("an error and [DONE]"),
            false => Err(Wrong::Failed(error["error"]["message"].as_str().unwrap_or("no words").to_owned())),
        };
    }
    if !done {
        return wrong("no [DONE]");
    }
    for name in ["id", "model", "object"] {
        let all: BTreeSet<_> = events.iter().map(|it| it[name].as_str()).collect();
        if all.len() != 1 || all.contains(&None) {
            return wrong(&format!("{name} {all:?}"));
        }
    }
    // What comes in this order is of one sort after the other.
    let (mut said, mut roles, mut reasons, mut usages) = (String::new(), 0, 0, Vec::new());
    for event in &events {
        let choice = &event["choices"][0];
        let word = choice["delta"]["content"].as_str().unwrap_or_default();
        if !word.is_empty() && (reasons > 0 || !usages.is_empty()) {
            return wrong("words after the finish reason");
        }
        said += word;
        if choice["delta"]["role"].is_string() {
            roles += 1;
            if said.len() > word.len() {
                return wrong("a role inside the answer");
            }
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            reasons += 1;
            if !matches!(reason, "stop" | "length") {
                return wrong("an odd finish reason");
            }
        }
        if event["usage"].is_object() {
            usages.push(&event["usage"]);
        }
    }
    let words = match check(&said) {
        Ok(words) => words,
        Err(why) => return wrong(&why),
    };
    let [usage] = usages[..] else { return wrong("not one usage") };
    let (prompt, completion) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
    match (roles, reasons, prompt) {
        (1, 1, Some(prompt)) if completion == Some(words as u64) => Ok((words, prompt)),
        _ => wrong(&format!(
            "{roles} roles, {reasons} finish reasons, {completion:?} tokens for {words} words"
        )),
    }
}

#[cfg(test)]
mod tests {
    use lovable::simulate::{check, word};

    use super::*;

    fn event(more: Value) -> String {
        let mut event = json!({"id": "a", "object": "chat.completion.chunk", "model": "m"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("data: {event}\n\n")
    }

    fn delta(delta: Value) -> String {
        event(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
    }

    fn parts() -> Vec<String> {
        vec![
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({"content": word(1)})),
            delta(json!({"content": word(2)})),
            event(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
            event(json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})),
            "data: [DONE]\n\n".to_owned(),
        ]
    }

    #[test]
    fn a_whole_answer_is_whole_also_after_a_wait() {
        assert_eq!(judge(&parts().concat(), check), Ok((2, 5)));
        assert_eq!(judge(&format!(": wait\n\n{}", parts().concat()), check), Ok((2, 5)));
    }

    #[test]
    fn an_answer_that_lacks_or_repeats_any_part_is_not() {
        for at in 0..parts().len() {
            let (mut lacking, mut repeating) = (parts(), parts());
            lacking.remove(at);
            repeating.insert(at, parts()[at].clone());
            for wrong in [lacking, repeating] {
                assert!(matches!(judge(&wrong.concat(), check), Err(Wrong::Corrupted(_))), "{wrong:?}");
            }
        }
        for (from, to) in [("\"id\":\"a\"", "\"id\":\"b\""), ("\"model\":\"m\"", "\"model\":\"n\"")] {
            let mut two = parts();
            two[2] = two[2].replace(from, to);
            assert!(judge(&two.concat(), check).is_err(), "{two:?}");
        }
    }

    #[test]
    fn an_error_is_a_failure_and_one_that_ends_like_an_answer_is_worse() {
        let error = "data: {\"error\":{\"message\":\"gone\"}}\n\n";
        let half = parts()[..2].concat();
        assert_eq!(judge(&format!("{half}{error}"), check), Err(Wrong::Failed("gone".into())));
        let dressed = format!("{half}{error}data: [DONE]\n\n");
        assert!(matches!(judge(&dressed, check), Err(Wrong::Corrupted(_))));
        assert!(matches!(judge(&half, check), Err(Wrong::Corrupted(_))));
    }
}
