//! `stats`: how requests went, summed up.

use clap_complete::engine::ArgValueCandidates;

use self::chart::{Step, charts};
use super::{
    Context, Exit, Trouble, complete, now_ms,
    out::Look,
    say,
    table::{Cell, Column, table},
};
use crate::{
    client::StatsQuery,
    wire::{Group, StatsList, StatsRow, from_rfc3339, rfc3339},
};

mod chart;
mod compare;
mod export;
mod parquet;
mod sqlite;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    rows: Rows,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put two servers or two models side by side
    Compare(compare::Args),
    /// Write all requests to a file
    Export(export::Args),
    /// Forget all requests and statistics
    Clear,
}

#[derive(Debug, clap::Args)]
struct Rows {
    /// What to group by
    #[arg(long, default_value = "server", value_parser = clap::builder::PossibleValuesParser::new(Group::NAMES))]
    by: String,
    #[command(flatten)]
    which: Which,
}

/// Which requests are meant.
#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    span: Span,
    /// Only this server
    #[arg(long, value_name = "ID", add = ArgValueCandidates::new(complete::servers))]
    server: Option<String>,
    /// Only this model
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::models))]
    model: Option<String>,
    /// Only this program
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
}

/// When they arrived.
#[derive(Debug, clap::Args)]
struct Span {
    /// Not before this: 24h ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "T", value_parser = moment)]
    since: Option<u64>,
    /// Before this: 1h ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "T", value_parser = moment)]
    until: Option<u64>,
}

impl Span {
    /// As the API takes it: the beginning and the end.
    fn moments(&self) -> Result<[Option<String>; 2], Trouble> {
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Trouble::Usage("--since is not before --until".to_owned()));
        }
        Ok([self.since.map(rfc3339), self.until.map(rfc3339)])
    }
}

impl Which {
    fn query(self, by: Option<String>) -> Result<StatsQuery, Trouble> {
        let [since, until] = self.span.moments()?;
        Ok(StatsQuery { by, since, until, server: self.server, model: self.model, caller: self.caller })
    }
}

/// A moment in milliseconds since 1970: a duration back from now, a day, or a time with its zone.
fn moment(text: &str) -> Result<u64, String> {
    if let Some(moment) = from_rfc3339(text).or_else(|| from_rfc3339(&format!("{text}T00:00:00Z"))) {
        return Ok(moment);
    }
    let ago = super::duration(text)
        .map_err(|_| "write how long ago (24h, 7d), a day (2026-03-01) or a time (2026-03-01T12:00:00Z)")?;
    Ok(now_ms().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    match args.command {
        None => rows(args.rows, context).await,
        Some(Command::Compare(args)) => compare::run(args, context).await,
        Some(Command::Export(args)) => export::run(args, context).await,
        Some(Command::Clear) => {
            let reply = context.client.clear_stats().await?;
            context.show(&reply, |_, _| "All requests and statistics are forgotten.\n".to_owned())?;
            Ok(Exit::Fine)
        }
    }
}

async fn rows(Rows { by, which }: Rows, context: &mut Context) -> Result<Exit, Trouble> {
    let since = which.span.since;
    let query = which.query(Some(by.clone()))?;
    let reply = context.client.stats(&query).await?;
    if context.json {
        context.out.json(reply.raw())?;
        return Ok(Exit::Fine);
    }
    if reply.read()?.rows.is_empty() {
        context.talk.line("No request is recorded for this.")?;
        return Ok(Exit::Fine);
    }
    let (step, by_time) = by_and_by(since, query, context).await?;
    context.show(&reply, |StatsList { rows }, look| {
        let (table, charts) = (page(&by, rows, look), charts(&by_time, step, look));
        if charts.is_empty() { table } else { format!("{table}\n{charts}") }
    })?;
    Ok(Exit::Fine)
}

/// The same requests by the hour or by the day, whichever shows more.
async fn by_and_by(
    since: Option<u64>,
    query: StatsQuery,
    context: &Context,
) -> Result<(Step, Vec<StatsRow>), Trouble> {
    let asked = async |step: Step| -> Result<Vec<StatsRow>, Trouble> {
        let query = StatsQuery { by: Some(step.name().to_owned()), ..query.clone() };
        Ok(context.client.stats(&query).await?.read()?.rows)
    };
    if since.is_none_or(|it| now_ms().saturating_sub(it) > FEW_DAYS_MS) {
        let days = asked(Step::Day).await?;
        if days.len() > 3 {
            return Ok((Step::Day, days));
        }
    }
    Ok((Step::Hour, asked(Step::Hour).await?))
}

/// As many hours as a line has room for.
const FEW_DAYS_MS: u64 = 3 * 24 * 3_600_000;

fn columns(by: &str) -> [Column; 13] {
    let title = match by {
        "server" => "SERVER",
        "model" => "MODEL",
        "kind" => "KIND",
        "zone" => "ZONE",
        "dialect" => "DIALECT",
        "caller" => "CALLER",
        "hour" => "HOUR",
        _ => "DAY",
    };
    // Rows of servers and kinds count attempts.
    let counted = if matches!(by, "server" | "kind") { "ATTEMPTS" } else { "REQUESTS" };
    [
        Column::new(title).shrinks(10),
        Column::new(counted).right(),
        // How many that is beside the others.
        Column::new("").leaves(8),
        Column::new("SUCCESS").right(),
        Column::new("FAILED").right().leaves(5),
        Column::new("FIRST p50").right().leaves(1),
        Column::new("p95").right().leaves(4),
        Column::new("TOTAL p50").right().leaves(2),
        Column::new("p95").right().leaves(4),
        Column::new("TOK/S").right().leaves(3),
        Column::new("IN").right().leaves(6),
        Column::new("OUT").right().leaves(6),
        Column::new("COST").right().leaves(7),
    ]
}

/// How many cells the longest bar has.
const BAR: usize = 8;

fn page(by: &str, rows: &[StatsRow], look: Look) -> String {
    let most = rows.iter().map(|it| it.requests).max().unwrap_or(0).max(1);
    let busy = say::peak(rows.iter().filter_map(|it| it.hardware.as_ref()).map(|it| &it.peak));
    let rows: Vec<_> = rows
        .iter()
        .map(|it| {
            let key = match &it.group {
                Some(group) => say::or_dash(group.value()),
                None => "all".to_owned(),
            };
            let failed = it.cut_short + it.exhausted + it.out_of_time;
            let time = |ms: Option<f64>| Cell::from(say::or_dash(ms.map(say::ms)));
            vec![
                Cell::from(key),
                say::count(it.requests).into(),
                chart::bar(it.requests as f64 / most as f64, BAR).into(),
                say::or_dash(it.success_rate.map(say::percent)).into(),
                say::count(failed).into(),
                time(it.first_token_ms.p50),
                time(it.first_token_ms.p95),
                time(it.total_ms.p50),
                time(it.total_ms.p95),
                say::or_dash(it.tokens_per_second.p50.map(|it| format!("{it:.0}"))).into(),
                say::or_dash(it.input_tokens.map(say::count)).into(),
                say::or_dash(it.output_tokens.map(say::count)).into(),
                say::or_dash(it.cost_usd.map(say::usd)).into(),
            ]
        })
        .collect();
    let mut page = table(&columns(by), &rows, look);
    if let Some(busy) = say::reading(&busy) {
        page.push_str(&format!("\nThis machine meanwhile, at the most: {busy}\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn the_table_fits_60_and_120_cells() {
        for width in [60, 120] {
            let page = page("server", &sample::stats(), Look { width: Some(width), color: false });
            insta::assert_snapshot!(format!("stats_{width}"), page);
        }
    }

    #[test]
    fn a_moment_is_a_time_a_day_or_a_while_ago() {
        assert_eq!(moment("2026-03-01T12:00:00Z"), Ok(1_772_366_400_000));
        assert_eq!(moment("2026-03-01T14:00:00+02:00"), Ok(1_772_366_400_000));
        assert_eq!(moment("2026-03-01"), Ok(1_772_323_200_000));
        let hour_ago = now_ms() - 3_600_000;
        assert!(moment("1h").unwrap().abs_diff(hour_ago) < 10_000);
        for wrong in ["yesterday", "24", ""] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
