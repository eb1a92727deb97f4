//! `stats`: how requests went, summed up.

use clap_complete::engine::ArgValueCandidates;

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

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to group by
    #[arg(long, default_value = "server", value_parser = clap::builder::PossibleValuesParser::new(Group::NAMES))]
    by: String,
    /// Not before this: 24h ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "T", value_parser = moment)]
    since: Option<u64>,
    /// Before this: 1h ago, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "T", value_parser = moment)]
    until: Option<u64>,
    /// Only this server
    #[arg(long, value_name = "ID", add = ArgValueCandidates::new(complete::servers))]
    server: Option<String>,
    /// Only this model
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::models))]
    model: Option<String>,
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
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since >= until
    {
        return Err(Trouble::Usage("--since is not before --until".to_owned()));
    }
    let query = StatsQuery {
        by: Some(args.by.clone()),
        since: args.since.map(rfc3339),
        until: args.until.map(rfc3339),
        server: args.server,
        model: args.model,
    };
    let reply = context.client.stats(&query).await?;
    if !context.json && reply.read()?.rows.is_empty() {
        context.talk.line("No request is recorded for this.")?;
        return Ok(Exit::Fine);
    }
    context.show(&reply, |StatsList { rows }, look| page(&args.by, rows, look))?;
    Ok(Exit::Fine)
}

fn columns(by: &str) -> [Column; 12] {
    let title = match by {
        "server" => "SERVER",
        "model" => "MODEL",
        "kind" => "KIND",
        "zone" => "ZONE",
        "dialect" => "DIALECT",
        "hour" => "HOUR",
        _ => "DAY",
    };
    // Rows of servers and kinds count attempts.
    let counted = if matches!(by, "server" | "kind") { "ATTEMPTS" } else { "REQUESTS" };
    [
        Column::new(title).shrinks(10),
        Column::new(counted).right(),
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

fn page(by: &str, rows: &[StatsRow], look: Look) -> String {
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
    table(&columns(by), &rows, look)
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
