//! Numbers the calls of a stream whose server does not, or gives all of them one number.
//!
//! Clients put the pieces of a call together by its number. Whoever leaves it out sends each
//! call whole, so a piece with a name or an id is the next call.

use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;

/// How many calls have come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbering(u64);

impl Numbering {
    /// The data of a frame with its calls numbered; `None` where nothing has to be different.
    pub fn mend(&mut self, data: &[u8]) -> Option<Bytes> {
        memmem::find(data, b"\"tool_calls\"")?;
        let mut chunk: Value = serde_json::from_slice(data).ok()?;
        let mut is_other = false;
        for choice in chunk["choices"].as_array_mut()? {
            let calls = choice.get_mut("delta").and_then(|it| it.get_mut("tool_calls"));
            for call in calls.and_then(Value::as_array_mut).into_iter().flatten() {
                let says = |it: &Value| it.as_str().is_some_and(|it| !it.is_empty());
                if says(&call["id"]) || says(&call["function"]["name"]) {
                    self.0 += 1;
                }
                let number = Value::from(self.0.saturating_sub(1));
                is_other |= call["index"] != number;
                call["index"] = number;
            }
        }
        is_other.then(|| chunk.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_are_numbered_as_they_come() {
        let mut numbering = Numbering::default();
        let mut numbers = |calls: Value| {
            let data = json!({"choices": [{"delta": {"tool_calls": calls}}]}).to_string();
            let mended = numbering.mend(data.as_bytes()).unwrap_or_else(|| data.into());
            let chunk: Value = serde_json::from_slice(&mended).unwrap();
            let calls = chunk["choices"][0]["delta"]["tool_calls"].as_array().unwrap().clone();
            calls.iter().map(|it| it["index"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let call =
            |name: &str| json!({"id": "", "type": "function", "function": {"name": name, "arguments": "{}"}});
        assert_eq!(numbers(json!([call("a"), call("b")])), [0, 1]);
        let mut third = call("c");
        third["index"] = 0.into();
        assert_eq!(numbers(json!([third])), [2]);
        assert_eq!(numbers(json!([{"function": {"arguments": "{}"}}])), [2], "more of the same");
        assert_eq!(Numbering::default().mend(br#"{"choices":[{"delta":{"content":"x"}}]}"#), None);
    }
}
