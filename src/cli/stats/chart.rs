//! Small charts in the terminal: a bar for a share, a line of blocks for what changes with time.

use super::super::{
    out::{Ink, Look},
    say,
};
use crate::wire::{StatsRow, from_rfc3339, rfc3339};

/// From an eighth to a whole, upwards and to the right.
const UPWARDS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const SIDEWAYS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// More moments are not told apart any more.
const MOST: usize = 72;
/// Without a terminal there is no width; this fits everywhere.
const USUAL: usize = 80;
/// What stands beside a line: its name before it, its highest or lowest value behind it.
const NAME: usize = 13;
const NOTE: usize = 18;

/// What is drawn of a row.
type Measure = fn(&StatsRow) -> Option<f64>;

/// How long one moment of a chart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hour,
    Day,
}

impl Step {
    /// What the API calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    fn ms(self) -> u64 {
        match self {
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }

    /// The beginning of a moment, as short as it may be.
    fn show(self, number: u64) -> String {
        let text = rfc3339(number * self.ms());
        let (day, time) = text.split_at_checked(10).unwrap_or((&text, ""));
        match self {
            Self::Hour => format!("{day} {}", time.get(1..6).unwrap_or_default()),
            Self::Day => day.to_owned(),
        }
    }
}

/// A bar of so many cells, filled up to that share. What is more than nothing shows.
pub(super) fn bar(share: f64, cells: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let mut bar = "█".repeat(eighths / 8);
    if let Some(rest) = (eighths % 8).checked_sub(1) {
        bar.push(SIDEWAYS[rest]);
    }
    bar
}

/// One block for each value, from nothing up to the highest; a blank where there is none. Only
/// what is the highest is a whole block.
fn line(values: &[Option<f64>], highest: f64) -> String {
    let block = |value: f64| {
        let share = if highest > 0.0 { (value / highest).clamp(0.0, 1.0) } else { 0.0 };
        UPWARDS[((share * 7.0).floor() as usize).min(7)]
    };
    values.iter().map(|it| it.map_or(' ', block)).collect()
}

/// What happened by and by, one line for each measure; nothing where there is no by and by.
pub(super) fn charts(rows: &[StatsRow], step: Step, look: Look) -> String {
    let number = |it: &StatsRow| Some(from_rfc3339(it.group.as_ref()?.value()?)? / step.ms());
    let numbered: Vec<_> = rows.iter().filter_map(|it| Some((number(it)?, it))).collect();
    let (Some(first), Some(last)) =
        (numbered.iter().map(|it| it.0).min(), numbered.iter().map(|it| it.0).max())
    else {
        return String::new();
    };
    let room = look.width.unwrap_or(USUAL).saturating_sub(NAME + NOTE).clamp(1, MOST) as u64;
    let first = first.max((last + 1).saturating_sub(room));
    if first == last {
        return String::new();
    }
    let series = |of: Measure| -> Vec<Option<f64>> {
        (first..=last).map(|at| numbered.iter().find(|it| it.0 == at).and_then(|it| of(it.1))).collect()
    };
    let head = format!("By {}, {} to {} UTC", step.name(), step.show(first), step.show(last));
    let mut text = format!("{}\n", look.paint(Ink::Dim, &head));
    let mut draw = |name: &str, values: Vec<Option<f64>>, highest: f64, note: String| {
        if values.iter().any(Option::is_some) {
            let name = look.paint(Ink::Dim, &format!("{name:<NAME$}"));
            text.push_str(&format!("{name}{}  {note}\n", line(&values, highest)));
        }
    };
    let most = |values: &[Option<f64>]| values.iter().flatten().copied().fold(0.0, f64::max);
    let measures: [(&str, Measure, fn(f64) -> String); 4] = [
        ("requests", |it| Some(it.requests as f64), |it| say::count(it as u64)),
        ("first token", |it| it.first_token_ms.p50, say::ms),
        ("tokens/s", |it| it.tokens_per_second.p50, |it| format!("{it:.0}")),
        ("cost", |it| it.cost_usd, say::usd),
    ];
    for (name, of, show) in measures {
        let values = series(of);
        let highest = most(&values);
        draw(name, values, highest, format!("most {}", show(highest)));
        if name == "requests" {
            let values = series(|it| it.success_rate);
            let least = values.iter().flatten().copied().fold(1.0, f64::min);
            draw("success", values, 1.0, format!("least {}", say::percent(least)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        cli::out::ascii,
        wire::{Group, Percentiles, Spread},
    };

    /// A morning: busy, a break, one failure.
    fn morning() -> Vec<StatsRow> {
        let hour = |at: u64, requests: u64, failed: u64, first: f64| StatsRow {
            group: Some(Group::Hour(Some(rfc3339(1_772_348_400_000 + at * 3_600_000)))),
            requests,
            success_rate: Some((requests - failed) as f64 / requests as f64),
            first_token_ms: Spread { p50: Some(first), ..Spread::default() },
            tokens_per_second: Percentiles { p50: Some(41.0), p95: None },
            ..StatsRow::default()
        };
        vec![hour(0, 3, 0, 180.0), hour(1, 40, 1, 200.0), hour(2, 120, 0, 410.0), hour(5, 64, 32, 190.0)]
    }

    #[test]
    fn a_morning_by_the_hour() {
        let look = Look { width: Some(60), color: false };
        insta::assert_snapshot!("morning", charts(&morning(), Step::Hour, look));
        insta::assert_snapshot!("morning_ascii", ascii(&charts(&morning(), Step::Hour, look)));
        let coloured = charts(&morning(), Step::Hour, Look { width: Some(60), color: true });
        insta::assert_snapshot!("morning_colour", coloured.replace('\x1b', "^"));
    }

    #[test]
    fn one_moment_is_no_chart() {
        let look = Look { width: None, color: false };
        assert_eq!(charts(&morning()[..1], Step::Hour, look), "");
        assert_eq!(charts(&[], Step::Day, look), "");
        assert_eq!(charts(&[StatsRow::default()], Step::Day, look), "");
    }

    #[test]
    fn bars_show_what_is_more_than_nothing() {
        for (share, shown) in
            [(0.0, ""), (0.001, "▏"), (0.5, "██"), (0.56, "██▎"), (1.0, "████"), (7.0, "████")]
        {
            assert_eq!(bar(share, 4), shown, "{share}");
        }
    }

    #[test]
    fn only_the_highest_is_a_whole_block() {
        assert_eq!(line(&[Some(0.0), None, Some(0.999), Some(1.0)], 1.0), "▁ ▇█");
        assert_eq!(line(&[Some(0.0)], 0.0), "▁");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_line_is_wider_than_the_terminal(
            width in 40_usize..160, moments in proptest::collection::btree_set(0_u64..5_000, 0..200), requests: u64,
        ) {
            let row = |at: &u64| StatsRow {
                group: Some(Group::Day(Some(rfc3339(at * 86_400_000)))),
                requests: requests % 1_000_000_000,
                success_rate: Some(0.5),
                ..StatsRow::default()
            };
            let rows: Vec<_> = moments.iter().map(row).collect();
            let text = charts(&rows, Step::Day, Look { width: Some(width), color: false });
            for line in text.lines().skip(1) {
                prop_assert!(say::width(line) <= width, "{}", line);
            }
            prop_assert!(ascii(&text).is_ascii());
        }
    }
}
