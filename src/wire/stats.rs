//! Sums over outcomes as they are shown: `GET /lovable/v1/stats`.

use serde::{Deserialize, Serialize};

use super::{LoadView, Percentiles, Spread};

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsList {
    /// One row per value of the grouping key.
    pub rows: Vec<StatsRow>,
}

/// The grouping key of a row: one field, named by what is grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// By server; such a row counts attempts.
    Server(Option<String>),
    /// By model.
    Model(Option<String>),
    /// By kind of server; such a row counts attempts.
    Kind(Option<String>),
    /// By where the answer came from.
    Zone(Option<String>),
    /// By the language of the caller.
    Dialect(Option<String>),
    /// By the program that asked.
    Caller(Option<String>),
    /// By hour, as the moment when it began.
    Hour(Option<String>),
    /// By day, as the moment when it began.
    Day(Option<String>),
}

impl Group {
    /// What can be grouped by.
    pub const NAMES: [&str; 8] = ["server", "model", "kind", "zone", "dialect", "caller", "hour", "day"];

    /// The key of a row that is grouped by `name`, if one can group by that.
    pub fn new(name: &str, value: Option<String>) -> Option<Self> {
        Some(match name {
            "server" => Self::Server(value),
            "model" => Self::Model(value),
            "kind" => Self::Kind(value),
            "zone" => Self::Zone(value),
            "dialect" => Self::Dialect(value),
            "caller" => Self::Caller(value),
            "hour" => Self::Hour(value),
            "day" => Self::Day(value),
            _ => return None,
        })
    }

    /// What it is grouped by.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Server(_) => "server",
            Self::Model(_) => "model",
            Self::Kind(_) => "kind",
            Self::Zone(_) => "zone",
            Self::Dialect(_) => "dialect",
            Self::Caller(_) => "caller",
            Self::Hour(_) => "hour",
            Self::Day(_) => "day",
        }
    }

    /// The value; `None` where the requests of this row have none.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Server(it)
            | Self::Model(it)
            | Self::Kind(it)
            | Self::Zone(it)
            | Self::Dialect(it)
            | Self::Caller(it)
            | Self::Hour(it)
            | Self::Day(it) => it.as_deref(),
        }
    }
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsRow {
    /// The grouping key; none in a total.
    #[serde(flatten)]
    pub group: Option<Group>,
    /// All that ended.
    pub requests: u64,
    /// Whole answers of one server.
    pub delivered: u64,
    /// Whole answers of more than one server.
    pub resumed: u64,
    /// Begun and not finished.
    pub cut_short: u64,
    /// Turned down.
    pub refused: u64,
    /// Every candidate failed.
    pub exhausted: u64,
    /// Out of time.
    pub out_of_time: u64,
    /// The caller left.
    pub caller_gone: u64,
    /// Delivered or resumed, of all but caller gone and refused for the caller's own fault.
    pub success_rate: Option<f64>,
    /// Faults that the caller did not notice.
    pub failed_over: u64,
    /// From arrival to the first content.
    pub first_token_ms: Spread,
    /// From arrival to the end.
    pub total_ms: Spread,
    /// Tokens of answers per second, once they come.
    pub tokens_per_second: Percentiles,
    /// Tokens of prompts; `null` when no answer told.
    pub input_tokens: Option<u64>,
    /// Tokens of answers; `null` when no answer told.
    pub output_tokens: Option<u64>,
    /// Answers that did not tell their token counts.
    pub usage_absent: u64,
    /// How good generated code was.
    pub quality: Quality,
    /// What it cost.
    pub cost_usd: Option<f64>,
    /// Between the pieces of answers.
    #[serde(default)]
    pub gap_ms: Spread,
    /// How many waited for a place at a server.
    #[serde(default)]
    pub queued: u64,
    /// How long those waited.
    #[serde(default)]
    pub queued_ms: Spread,
    /// How busy the machine was meanwhile; `null` where that was not seen.
    #[serde(default)]
    pub hardware: Option<LoadView>,
}

/// How good generated code was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Mean score.
    pub mean: Option<f64>,
    /// How many answers were scored.
    pub scored: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grouping_key_is_a_field_named_by_the_grouping() {
        for name in Group::NAMES {
            let row = StatsRow { group: Group::new(name, Some("x".into())), ..StatsRow::default() };
            let json = serde_json::to_value(&row).unwrap();
            assert_eq!(json[name], "x", "{json}");
            assert_eq!(serde_json::from_value::<StatsRow>(json).unwrap(), row);
        }
    }

    #[test]
    fn a_total_has_no_grouping_key() {
        let row = StatsRow { requests: 3, ..StatsRow::default() };
        let json = serde_json::to_value(&row).unwrap();
        assert!(Group::NAMES.iter().all(|name| json.get(name).is_none()));
        assert_eq!(serde_json::from_value::<StatsRow>(json).unwrap(), row);
    }

    #[test]
    fn a_group_without_a_value_is_null_and_not_a_total() {
        let row = StatsRow { group: Some(Group::Zone(None)), ..StatsRow::default() };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json.get("zone"), Some(&serde_json::Value::Null));
        assert_eq!(serde_json::from_value::<StatsRow>(json).unwrap(), row);
    }
}
