//! `stats compare`: two servers or models, and whether they differ by more than luck.

use super::{
    super::{
        Context, Exit, Trouble,
        out::{Ink, Look},
        say,
        table::{Cell, Column, table},
    },
    Span,
};
use crate::wire::{CompareView, IntervalView, MeasureView, SideView};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A server or a model; `server:NAME` and `model:NAME` leave no doubt
    a: String,
    /// Another one
    b: String,
    #[command(flatten)]
    span: Span,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let [since, until] = args.span.moments()?;
    let reply = context.client.compare(&args.a, &args.b, since.as_deref(), until.as_deref()).await?;
    context.show(&reply, page)?;
    Ok(Exit::Fine)
}

const COLUMNS: [Column; 5] = [
    Column::new("").shrinks(10),
    Column::new("A").shrinks(10),
    Column::new("B").shrinks(10),
    Column::new("A AGAINST B").shrinks(12).leaves(1),
    Column::new("").shrinks(10),
];

fn page(it: &CompareView, look: Look) -> String {
    let counted = if it.by == "server" { "attempt" } else { "request" };
    let mut page = String::new();
    for (letter, name, count) in [("A", &it.a, it.requests_a), ("B", &it.b, it.requests_b)] {
        let name = look.paint(Ink::Bold, &say::clean(name));
        page.push_str(&format!("{letter}  {name}, {}\n", say::plural(count, counted)));
    }
    page.push('\n');
    let rows: Vec<_> = it.measures.iter().map(row).collect();
    page.push_str(&table(&COLUMNS, &rows, look));
    page.push_str(&look.paint(Ink::Dim, "In brackets: between what it lies, with 95 % confidence.\n"));
    page
}

fn row(it: &MeasureView) -> Vec<Cell> {
    let (name, show): (&str, fn(f64) -> String) = match it.measure.as_str() {
        "success_rate" => ("success", say::percent),
        "first_token_ms" => ("first token, median", say::ms),
        "total_ms" => ("total, median", say::ms),
        "tokens_per_second" => ("tokens/s, median", |it| format!("{it:.1}")),
        other => (other, |it| format!("{it:.2}")),
    };
    let side = |it: &SideView| match &it.interval {
        Some(interval) => between(interval, show),
        None => format!("{} only", say::plural(it.count, "value")),
    };
    let apart = match (&it.apart, it.measure.as_str()) {
        (None, _) => say::UNKNOWN.to_owned(),
        (Some(apart), "success_rate") => between(apart, |it| format!("{:+.1} points", it * 100.0)),
        (Some(apart), _) => between(apart, |it| format!("{it:.2} x")),
    };
    let verdict = match (it.enough, it.better.as_deref()) {
        (false, _) => Cell::inked("not enough data", Ink::Dim),
        (true, Some("a")) => Cell::inked("A is better", Ink::Good),
        (true, Some(_)) => Cell::inked("B is better", Ink::Good),
        (true, None) => "no difference shown".into(),
    };
    vec![name.into(), side(&it.a).into(), side(&it.b).into(), apart.into(), verdict]
}

fn between(it: &IntervalView, show: fn(f64) -> String) -> String {
    format!("{} ({} to {})", show(it.value), show(it.low), show(it.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_says_who_is_better_and_where_nothing_can_be_said() {
        let interval = |value: f64| Some(IntervalView { value, low: value * 0.9, high: value * 1.1 });
        let side = |count, value: f64| SideView { count, interval: interval(value).filter(|_| count > 9) };
        let measure = |name: &str, count, better: Option<&str>| MeasureView {
            measure: name.into(),
            a: side(count, 0.6),
            b: side(400, 0.5),
            apart: interval(1.2).filter(|_| count > 9),
            enough: count > 9,
            better: better.map(str::to_owned),
        };
        let view = CompareView {
            by: "server".into(),
            a: "ollama".into(),
            b: "vllm-8001".into(),
            requests_a: 120,
            requests_b: 400,
            confidence: 0.95,
            measures: vec![
                measure("success_rate", 120, None),
                measure("first_token_ms", 120, Some("b")),
                measure("tokens_per_second", 3, None),
            ],
        };
        insta::assert_snapshot!("compare", page(&view, Look { width: Some(120), color: false }));
    }
}
