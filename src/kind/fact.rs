//! Facts as servers write them, made fit to be kept and shown.
//!
//! Whatever a server says ends up in headers, tables and records. What is
//! empty, endless or not printable is no fact.

use serde_json::Value;

use super::Answer;
use crate::server::Endpoint;

/// Longer names than any server has; a header still holds them.
const LONGEST_NAME: usize = 512;
const LONGEST_TEXT: usize = 128;

/// Whether this can be a model's name.
pub(super) fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control)
}

/// A short text.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    (is_name(text) && text.len() <= LONGEST_TEXT).then(|| text.to_owned())
}

/// A short text that says something: Ollama writes `unknown` where it does not know.
pub(super) fn known(value: &Value) -> Option<String> {
    text(value).filter(|it| it != "unknown")
}

/// A number that counts something; zero stands for "not known" everywhere.
pub(super) fn count(value: &Value) -> Option<u64> {
    value.as_u64().filter(|it| *it > 0)
}

/// The port of a server on this machine, by its address.
pub(super) fn port_here(value: &Value) -> Option<u16> {
    let endpoint = Endpoint::parse(value.as_str()?).ok()?;
    endpoint.port().filter(|_| endpoint.is_local())
}

/// A parameter count as people write it: `8.2B`.
pub(super) fn parameters(count: u64) -> String {
    let of = |unit: u64| {
        let tenths = count.saturating_mul(10).saturating_add(unit / 2) / unit;
        if tenths < 1000 && !tenths.is_multiple_of(10) {
            format!("{}.{}", tenths / 10, tenths % 10)
        } else {
            format!("{}", count.saturating_add(unit / 2) / unit)
        }
    };
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}K", of(1_000)),
        1_000_000..1_000_000_000 => format!("{}M", of(1_000_000)),
        _ => format!("{}B", of(1_000_000_000)),
    }
}

/// The version in `{"version": "…"}`, where nothing else is in it: llama-swap
/// and Open WebUI say more than that under the same path.
pub(super) fn only_version(answer: &Answer) -> Option<String> {
    let value = answer.success()?;
    if value.as_object()?.len() != 1 {
        return None;
    }
    text(&value["version"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_written_as_people_do() {
        for (count, expected) in [
            (0, "0"),
            (651_904, "652K"),
            (10_830_000, "10.8M"),
            (494_000_000, "494M"),
            (8_190_735_360, "8.2B"),
            (7_000_000_000, "7B"),
            (70_553_706_496, "70.6B"),
            (671_026_419_200, "671B"),
            (u64::MAX, "18446744073B"),
        ] {
            assert_eq!(parameters(count), expected);
        }
    }

    #[test]
    fn what_cannot_be_shown_is_no_fact() {
        assert_eq!(text(&json!("  0.32.0\n")), Some("0.32.0".into()));
        for bad in [json!(""), json!("\u{1b}[31mred"), json!("a\r\nb"), json!("x".repeat(200)), json!(7)] {
            assert_eq!(text(&bad), None, "{bad}");
        }
        assert!(!is_name(&"x".repeat(513)));
        assert_eq!(count(&json!(-4)), None);
        assert_eq!(count(&json!(0)), None);
    }
}
