//! What an answer is worth in each language: whole, broken off, refused, or what nobody
//! should ever see.

use lovable::simulate;
use serde_json::Value;

use crate::caller::{Answer, Verdict};

/// What an answer of numbered words at this path is worth.
pub(crate) fn verdict(path: &str, answer: &Answer) -> Verdict {
    if path.ends_with("completions") {
        return answer.verdict();
    }
    let events = match documents(path, answer) {
        Ok(events) => events,
        Err(why) => return Verdict::Wrong(format!("{why} in {:?}", answer.text())),
    };
    let wrong = |why: &str| Verdict::Wrong(format!("{why} in {:?}", answer.text()));
    let Some((last, before)) = events.split_last() else { return wrong("nothing") };
    let failed = |it: &Value| match path {
        "/v1/messages" => it["type"] == "error" && it["error"]["message"].is_string(),
        "/v1/responses" if answer.status == 200 => {
            it["type"] == "response.failed" && it["response"]["error"]["message"].is_string()
        }
        "/v1/responses" => it["error"]["message"].is_string(),
        _ => it["error"].is_string(),
    };
    if before.iter().any(failed) {
        return wrong("something after the error");
    }
    if answer.status != 200 {
        return if failed(last) && answer.clean && before.is_empty() {
            Verdict::Refused(answer.status)
        } else {
            wrong("a refusal without an error")
        };
    }
    let said: String = events.iter().map(words).collect();
    let count = match simulate::check(&said) {
        Ok(count) => count,
        Err(why) => return wrong(&why),
    };
    match (failed(last), is_end(path, last), ends(path, &events), answer.clean) {
        (true, false, 0, _) => Verdict::BrokenOff(count),
        (false, true, 1, true) => Verdict::Whole(count),
        (failed, end, ends, clean) => {
            wrong(&format!("error {failed}, end {end}, {ends} finish reasons, clean end {clean}"))
        }
    }
}

/// The events, lines or the one document of an answer.
fn documents(path: &str, answer: &Answer) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(&answer.body).map_err(|error| error.to_string())?;
    let kind = answer.header("content-type").unwrap_or_default();
    let parse = |it: &str| serde_json::from_str(it).map_err(|error| error.to_string());
    if kind.starts_with("text/event-stream") {
        let events = text.strip_suffix("\n\n").ok_or("a torn event")?.split("\n\n");
        let data = |it: &str| {
            let (name, data) = it.split_once("\ndata: ").ok_or_else(|| format!("no event: {it:?}"))?;
            let value: Value = parse(data)?;
            let named = name.strip_prefix("event: ").is_some_and(|it| value["type"] == it);
            named.then_some(value).ok_or_else(|| format!("another name: {it:?}"))
        };
        let events = events.filter(|it| !it.starts_with(':')).map(data).collect::<Result<Vec<_>, _>>()?;
        return Ok(events.into_iter().filter(|it| it["type"] != "ping").collect());
    }
    if kind.starts_with("application/x-ndjson") {
        return text.strip_suffix('\n').ok_or("a torn line")?.split('\n').map(parse).collect();
    }
    let _ = path;
    Ok(vec![parse(text)?])
}

/// The text of one event, line or document.
fn words(it: &Value) -> String {
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    match it["type"].as_str() {
        Some("response.output_text.delta") => text(&it["delta"]),
        Some("content_block_delta") => text(&it["delta"]["text"]),
        Some("message") => text(&it["content"][0]["text"]),
        Some(_) => String::new(),
        None if it["object"] == "response" => text(&it["output"][0]["content"][0]["text"]),
        None => text(&it["message"]["content"]) + &text(&it["response"]),
    }
}

/// Whether this is how a whole answer ends.
fn is_end(path: &str, it: &Value) -> bool {
    match path {
        "/v1/messages" => it["type"] == "message_stop" || it["stop_reason"].is_string(),
        "/v1/responses" => {
            matches!(it["type"].as_str(), Some("response.completed" | "response.incomplete"))
                || matches!(it["status"].as_str(), Some("completed" | "incomplete"))
        }
        _ => it["done"] == true && it["done_reason"].is_string(),
    }
}

/// How often a reason for the end is given.
fn ends(path: &str, events: &[Value]) -> usize {
    let reason = |it: &&Value| match path {
        "/v1/messages" => it["delta"]["stop_reason"].is_string() || it["stop_reason"].is_string(),
        _ => is_end(path, it),
    };
    events.iter().filter(reason).count()
}
