//! What is different where answers are sold: the limit has another name with one of them, and
//! there is one wherever an answer without end would cost money without end.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::{Door, Sold, json};

const OLDER: &str = "max_tokens";
const NEWER: &str = "max_completion_tokens";

/// The same request, with its limit under the name that is wanted.
pub(super) fn limit(door: Door, body: Bytes, sold: Sold) -> Bytes {
    if door == Door::OpenAiEmbed {
        return body;
    }
    let (mut older, mut newer) = (None, None);
    let walked = json::walk(&body, |name, written, value| {
        match name {
            OLDER => older = Some((json::span(&body, written), value)),
            NEWER => newer = Some(value),
            _ => {}
        }
        Ok(())
    });
    if walked.is_err() {
        return body;
    }
    let given = newer.and_then(number).or(older.as_ref().and_then(|it| number(it.1)));
    let Some(wanted) = given.or(sold.at_most) else { return body };
    // Texts to be continued have only the older name.
    let wants_newer = sold.newer && door == Door::OpenAiChat;
    let number = wanted.to_string();
    match (older, newer) {
        (Some((name, value)), None) if wants_newer => {
            let value = json::span(&body, value);
            let edits = [(name, json::quote(NEWER)), (value, number)];
            json::splice(&body, &edits)
        }
        (Some(_), Some(_)) if wants_newer => json::set(&body, &[(OLDER, "null"), (NEWER, &number)]),
        (None, _) if wants_newer => json::set(&body, &[(NEWER, &number)]),
        _ if given.is_none() => json::set(&body, &[(OLDER, &number)]),
        _ => body,
    }
}

/// A limit; less than nothing, and nothing at all, are no limits.
fn number(value: &RawValue) -> Option<u64> {
    value.get().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sold: Sold, body: &str, expected: &str) {
        let limited = limit(Door::OpenAiChat, Bytes::copy_from_slice(body.as_bytes()), sold);
        assert_eq!(limited, expected, "{body}");
    }

    #[test]
    fn a_limit_has_the_name_that_is_wanted_and_is_there_where_it_must_be() {
        let newer = Sold { newer: true, strict: true, at_most: None };
        check(newer, r#"{"a":1}"#, r#"{"a":1}"#);
        check(newer, r#"{"max_tokens": 5}"#, r#"{"max_completion_tokens": 5}"#);
        check(newer, r#"{"max_completion_tokens":5}"#, r#"{"max_completion_tokens":5}"#);
        let both = r#"{"max_tokens":9,"max_completion_tokens":5}"#;
        check(newer, both, r#"{"max_tokens":null,"max_completion_tokens":5}"#);
        let bounded = Sold { at_most: Some(7), ..newer };
        check(bounded, r#"{"a":1}"#, r#"{"max_completion_tokens":7,"a":1}"#);
        check(bounded, r#"{"max_tokens":null}"#, r#"{"max_completion_tokens":7}"#);
        check(bounded, r#"{"max_completion_tokens":null}"#, r#"{"max_completion_tokens":7}"#);
        check(bounded, r#"{"max_tokens":-1}"#, r#"{"max_completion_tokens":7}"#);
        check(bounded, r#"{"max_tokens":5}"#, r#"{"max_completion_tokens":5}"#);
        let older = Sold { newer: false, ..bounded };
        check(older, r#"{"a":1}"#, r#"{"max_tokens":7,"a":1}"#);
        check(older, r#"{"max_tokens":-1}"#, r#"{"max_tokens":7}"#);
        check(older, r#"{"max_completion_tokens":5}"#, r#"{"max_completion_tokens":5}"#);
    }
}
