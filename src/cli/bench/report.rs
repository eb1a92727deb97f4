//! What was measured, for people and for programs.

use serde::Serialize;

use super::{
    super::{
        Exit,
        out::{Ink, Look},
        say,
        table::{Cell as Shown, Column, table},
    },
    measure::{Aim, Cell, Measured},
    plan::LeftOut,
};
use crate::{
    server::{KindId, ModelName, ServerId},
    wire::{HardwareView, Percentiles},
};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Whole,
    Interrupted,
    OutOfTime,
}

/// Everything, as `--json` has it. Nothing in it says whose machine it is.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    ended: Ended,
    hardware: Option<HardwareView>,
    rows: Vec<Row>,
    left_out: Vec<LeftOut>,
}

/// One model on one server, with prompts of one length and so many requests at once.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    server: ServerId,
    kind: KindId,
    model: ModelName,
    /// Whether it was in memory; where not, loading is in the first token.
    warm: bool,
    /// About how long the prompts were to be.
    prompt_tokens: u32,
    /// How long they were by the server's count, in the middle.
    input_tokens: Option<f64>,
    at_once: u32,
    requests: u32,
    failed: u32,
    first_token_ms: Percentiles,
    /// Of each answer by itself.
    tokens_per_second: Percentiles,
    /// Of all answers together.
    total_tokens_per_second: Option<f64>,
    /// Why the first that failed did so.
    fault: Option<String>,
}

impl Row {
    pub(super) fn of(it: &Cell) -> Self {
        let spread = |of: fn(&Measured) -> Option<f64>| {
            let mut all: Vec<f64> = it.measured.iter().filter_map(of).collect();
            all.sort_by(f64::total_cmp);
            Percentiles { p50: percentile(&all, 0.5), p95: percentile(&all, 0.95) }
        };
        let tokens: Option<u64> = it.measured.iter().map(|it| it.output_tokens).sum();
        let took = it.took.as_secs_f64();
        let count = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        Self {
            server: it.target.server.clone(),
            kind: it.target.kind.clone(),
            model: it.target.model.clone(),
            warm: it.aim != Aim::Load,
            prompt_tokens: it.prompt,
            input_tokens: spread(|it| it.input_tokens.map(|it| it as f64)).p50,
            at_once: it.at_once,
            requests: count(it.measured.len() + it.failed.len()),
            failed: count(it.failed.len()),
            first_token_ms: spread(|it| it.first_token_ms),
            tokens_per_second: spread(|it| it.tokens_per_second),
            // What loading takes is not what a model gives.
            total_tokens_per_second: tokens
                .filter(|it| *it > 0 && took > 0.0)
                .map(|it| it as f64 / took)
                .filter(|_| it.aim == Aim::Measure),
            fault: it.failed.first().cloned(),
        }
    }
}

/// The value below which that share lies; of few values one that there is.
fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

const COLUMNS: [Column; 10] = [
    Column::new("MODEL").shrinks(10),
    Column::new("SERVER").shrinks(8),
    Column::new(""),
    Column::new("PROMPT").right(),
    Column::new("AT ONCE").right(),
    Column::new("FIRST p50").right(),
    Column::new("p95").right().leaves(4),
    Column::new("TOK/S").right(),
    Column::new("ALL TOK/S").right().leaves(1),
    Column::new("FAILED").right().leaves(2),
];

impl Report {
    pub(super) fn of(
        rows: Vec<Row>,
        left_out: Vec<LeftOut>,
        ended: Ended,
        hardware: Option<HardwareView>,
    ) -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), ended, hardware, rows, left_out }
    }

    /// Fine when something was measured.
    pub(super) fn exit(&self) -> Exit {
        if self.rows.iter().any(|it| it.requests > it.failed) { Exit::Fine } else { Exit::Failed }
    }

    pub(super) fn page(&self, look: Look) -> String {
        if self.rows.is_empty() {
            return "Nothing was measured.\n".to_owned();
        }
        let rows: Vec<_> = self.rows.iter().map(shown).collect();
        let mut page = table(&COLUMNS, &rows, look);
        for it in &self.rows {
            if let Some(fault) = &it.fault {
                let (model, server) = (say::clean(it.model.as_str()), say::clean(it.server.as_str()));
                page.push_str(&format!(
                    "{} {model} on {server}: {}\n",
                    look.paint(Ink::Warn, "!"),
                    say::clean(fault)
                ));
            }
        }
        page
    }
}

fn shown(it: &Row) -> Vec<Shown> {
    let time = |ms: Option<f64>| Shown::from(say::or_dash(ms.map(say::ms)));
    let speed = |it: Option<f64>| Shown::from(say::or_dash(it.map(|it| format!("{it:.1}"))));
    let failed = match it.failed {
        0 => Shown::from("0"),
        some => Shown::inked(say::count(some.into()), Ink::Warn),
    };
    vec![
        say::clean(it.model.as_str()).into(),
        say::clean(it.server.as_str()).into(),
        if it.warm { "warm".into() } else { Shown::inked("cold", Ink::Dim) },
        it.input_tokens.map_or_else(|| format!("~{}", it.prompt_tokens), |it| format!("{it:.0}")).into(),
        it.at_once.to_string().into(),
        time(it.first_token_ms.p50),
        time(it.first_token_ms.p95),
        speed(it.tokens_per_second.p50),
        speed(it.total_tokens_per_second),
        failed,
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::plan::Target, *};

    fn cell(aim: Aim, at_once: u32, first: f64, failed: usize) -> Cell {
        let measured = |at: u32| Measured {
            first_token_ms: Some(first * f64::from(at)),
            tokens_per_second: Some(80.0 / f64::from(at)),
            input_tokens: Some(520),
            output_tokens: Some(64),
        };
        Cell {
            target: Target {
                server: "ollama".into(),
                kind: "ollama".into(),
                model: "qwen3:8b".into(),
                is_cold: true,
                context: Some(4096),
                size_bytes: None,
            },
            aim,
            prompt: 512,
            at_once,
            measured: (1..=3 * at_once).map(measured).collect(),
            failed: vec!["the server said no".to_owned(); failed],
            took: Duration::from_secs(4),
        }
    }

    fn report() -> Report {
        let cells =
            [cell(Aim::Load, 1, 2_100.0, 0), cell(Aim::Measure, 1, 41.0, 0), cell(Aim::Measure, 4, 47.0, 2)];
        let left_out = vec![LeftOut { name: "llama3 on ollama".to_owned(), why: "not in memory" }];
        Report::of(cells.iter().map(Row::of).collect(), left_out, Ended::OutOfTime, None)
    }

    #[test]
    fn the_table_fits_60_and_120_cells() {
        for width in [60, 120] {
            let page = report().page(Look { width: Some(width), color: false });
            insta::assert_snapshot!(format!("bench_{width}"), page);
        }
    }

    #[test]
    fn programs_get_everything() {
        insta::assert_json_snapshot!("bench_json", report());
    }

    #[test]
    fn percentiles_of_few_are_values_that_there_are() {
        let all = [1.0, 2.0, 3.0, 4.0];
        assert_eq!([0.5, 0.95].map(|it| percentile(&all, it)), [Some(2.0), Some(4.0)]);
        assert_eq!(percentile(&[7.0], 0.5), Some(7.0));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn nothing_but_failures_is_a_failure() {
        assert_eq!(report().exit(), Exit::Fine);
        let mut bad = cell(Aim::Measure, 1, 1.0, 3);
        bad.measured.clear();
        assert_eq!(Report::of(vec![Row::of(&bad)], Vec::new(), Ended::Whole, None).exit(), Exit::Failed);
    }
}
