//! Requests as a flat table: one list of columns for CSV, SQLite and Parquet.

use serde::Serialize;

use super::{LoadView, RequestView};

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Text.
    Text,
    /// A moment, as text in RFC 3339.
    Time,
    /// A whole number.
    Int,
    /// Any number.
    Real,
    /// True or false.
    Bool,
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing that is known.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Any number.
    Real(f64),
    /// True or false.
    Bool(bool),
}

/// The columns, in their order. New ones come at the end.
pub const COLUMNS: [(&str, Column); 46] = [
    ("request_id", Column::Text),
    ("at", Column::Time),
    ("caller", Column::Text),
    ("uid", Column::Int),
    ("dialect", Column::Text),
    ("operation", Column::Text),
    ("asked", Column::Text),
    ("stream", Column::Bool),
    ("ending", Column::Text),
    ("status", Column::Int),
    ("failure", Column::Text),
    ("callers_fault", Column::Bool),
    ("server", Column::Text),
    ("kind", Column::Text),
    ("model", Column::Text),
    ("zone", Column::Text),
    ("substituted", Column::Text),
    ("attempts", Column::Int),
    ("queued_ms", Column::Real),
    ("first_token_ms", Column::Real),
    ("total_ms", Column::Real),
    ("gap_mean_ms", Column::Real),
    ("gap_p50_ms", Column::Real),
    ("gap_p95_ms", Column::Real),
    ("tokens_per_second", Column::Real),
    ("input_tokens", Column::Int),
    ("output_tokens", Column::Int),
    ("cached_tokens", Column::Int),
    ("reasoning_tokens", Column::Int),
    ("usage_estimated", Column::Bool),
    ("reason", Column::Text),
    ("sent_bytes", Column::Int),
    ("cost_usd", Column::Real),
    ("cost_is_bound", Column::Bool),
    ("processor_start_percent", Column::Real),
    ("processor_peak_percent", Column::Real),
    ("memory_used_start_bytes", Column::Int),
    ("memory_used_peak_bytes", Column::Int),
    ("gpu_start_percent", Column::Real),
    ("gpu_peak_percent", Column::Real),
    ("gpu_memory_used_start_bytes", Column::Int),
    ("gpu_memory_used_peak_bytes", Column::Int),
    ("gpu_temperature_start_celsius", Column::Real),
    ("gpu_temperature_peak_celsius", Column::Real),
    ("gpu_power_start_watts", Column::Real),
    ("gpu_power_peak_watts", Column::Real),
];

/// What stands in the columns for a request. Server, kind and model are those that answered,
/// or were asked last.
pub fn flat(it: &RequestView) -> [Value; COLUMNS.len()] {
    let last = it.attempts.last();
    let LoadView { start, peak } = it.hardware.unwrap_or_default();
    [
        text(Some(&it.request_id)),
        text(Some(&it.at)),
        text(it.caller.as_deref()),
        int(it.uid),
        text(Some(&it.dialect)),
        word(Some(it.operation)),
        text(Some(&it.asked)),
        Value::Bool(it.stream),
        word(Some(it.ending)),
        int(it.status),
        text(it.failure.as_deref()),
        Value::Bool(it.callers_fault),
        text(last.map(|it| it.server.as_str())),
        text(last.map(|it| it.kind.as_str())),
        text(last.map(|it| it.model.as_str())),
        word(it.zone),
        word(Some(it.substituted)),
        int(Some(it.attempts.len() as u64)),
        Value::Real(it.queued_ms),
        real(it.first_token_ms),
        Value::Real(it.total_ms),
        real(it.gap_ms.mean),
        real(it.gap_ms.p50),
        real(it.gap_ms.p95),
        real(it.tokens_per_second),
        int(it.usage.input_tokens),
        int(it.usage.output_tokens),
        int(it.usage.cached_tokens),
        int(it.usage.reasoning_tokens),
        Value::Bool(it.usage_estimated),
        word(it.reason),
        int(Some(it.sent_bytes)),
        real(it.cost_usd),
        Value::Bool(it.cost_is_bound),
        real(start.processor_percent),
        real(peak.processor_percent),
        int(start.memory_used_bytes),
        int(peak.memory_used_bytes),
        real(start.gpu_percent),
        real(peak.gpu_percent),
        int(start.gpu_memory_used_bytes),
        int(peak.gpu_memory_used_bytes),
        real(start.gpu_temperature_celsius),
        real(peak.gpu_temperature_celsius),
        real(start.gpu_power_watts),
        real(peak.gpu_power_watts),
    ]
}

/// The first line of a table in CSV.
pub fn csv_head() -> String {
    let mut line = COLUMNS.map(|(name, _)| name).join(",");
    line.push_str("\r\n");
    line
}

/// A line of a table in CSV (RFC 4180).
pub fn csv_line(it: &RequestView) -> String {
    let mut line = String::new();
    for (at, value) in flat(it).iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        match value {
            Value::Null => {}
            Value::Text(text) => field(&mut line, text),
            Value::Int(number) => line.push_str(&number.to_string()),
            Value::Real(number) => line.push_str(&number.to_string()),
            Value::Bool(it) => line.push_str(if *it { "true" } else { "false" }),
        }
    }
    line.push_str("\r\n");
    line
}

fn field(line: &mut String, text: &str) {
    if text.contains([',', '"', '\r', '\n']) {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}

fn text(it: Option<&str>) -> Value {
    it.map_or(Value::Null, |it| Value::Text(it.to_owned()))
}

/// A word of the API, as it stands in JSON.
fn word(it: Option<impl Serialize>) -> Value {
    let json = it.and_then(|it| serde_json::to_value(it).ok());
    json.and_then(|it| it.as_str().map(str::to_owned)).map_or(Value::Null, Value::Text)
}

fn int(it: Option<impl Into<u64>>) -> Value {
    it.map_or(Value::Null, |it| Value::Int(i64::try_from(it.into()).unwrap_or(i64::MAX)))
}

fn real(it: Option<f64>) -> Value {
    it.map_or(Value::Null, Value::Real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_has_to_be() {
        for (text, written) in
            [("a b", "a b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\"")]
        {
            let mut line = String::new();
            field(&mut line, text);
            assert_eq!(line, written);
        }
    }
}
