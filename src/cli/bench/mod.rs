//! `bench`: how soon and how fast the models of this machine answer.
//!
//! Requests go through the daemon, each to one model on one server and to no other in its place.
//! `plan` says what is measured, `measure` does it, `report` tells of it. Whatever ends it early,
//! what has been measured by then is told.

use std::{io::IsTerminal, time::Duration};

use clap_complete::engine::ArgValueCandidates;

use self::{
    measure::Measuring,
    plan::{Plan, Target},
    report::{Ended, Report},
};
use super::{Context, Exit, Trouble, complete, duration, say};

mod measure;
mod plan;
mod report;

/// Nothing is loaded without being asked for: what is not in memory is measured only when you
/// say so, or with --yes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Measure this model; without it all of this machine
    #[arg(short, long = "model", value_name = "MODEL", add = ArgValueCandidates::new(complete::models))]
    models: Vec<String>,
    /// Measure on this server; without it on all of this machine
    #[arg(long = "server", value_name = "ID", add = ArgValueCandidates::new(complete::servers))]
    servers: Vec<String>,
    /// About how long prompts are, in tokens
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [64, 512, 2048],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    prompts: Vec<u32>,
    /// How many requests run at once
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 4],
        value_parser = clap::value_parser!(u32).range(1..=256))]
    at_once: Vec<u32>,
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many tokens an answer has at the most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    tokens: u32,
    /// End after this long with what there is by then
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    within: Duration,
    /// Have models loaded that are not in memory
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let models = context.client.models().await?.read()?.models;
    let hardware = context.client.status().await?.read()?.hardware;
    let mut plan = Plan::of(&models, &args.models, &args.servers).map_err(Trouble::Usage)?;
    if !args.yes && !plan.to_load().is_empty() && !may_load(&plan, context).await? {
        plan.leave_out_what_is_not_loaded();
    }
    for left in &plan.left_out {
        context.talk.line(format!("{} is left out: {}", say::clean(&left.name), left.why))?;
    }
    if plan.targets.is_empty() {
        context.talk.line("lovablectl: there is no model to measure")?;
        return Ok(Exit::Unusable);
    }
    let mut measuring = Measuring::new(&args, plan.targets, &context.client);
    let ended = tokio::select! {
        // What is through is through, even when the key came meanwhile.
        biased;
        done = measuring.run(&mut context.talk) => done.map(|()| Ended::Whole)?,
        _ = tokio::signal::ctrl_c() => Ended::Interrupted,
        () = tokio::time::sleep(args.within) => Ended::OutOfTime,
    };
    if context.talk.terminal {
        context.talk.text("\r\x1b[K")?;
    }
    for left in &measuring.skipped {
        context.talk.line(format!("{} is left out: {}", say::clean(&left.name), left.why))?;
    }
    let left_out = [plan.left_out, measuring.skipped.clone()].concat();
    let report = Report::of(measuring.rows(), left_out, ended, hardware);
    if context.json {
        let json = serde_json::to_vec(&report).map_err(|error| Trouble::Failed(error.to_string()))?;
        context.out.json(&json)?;
    } else {
        let page = report.page(context.out.look);
        context.out.page(&page)?;
    }
    match ended {
        Ended::Interrupted => Ok(Exit::Interrupted),
        Ended::OutOfTime => {
            context.talk.line(format!(
                "lovablectl: the time is over ({}); --within gives it more",
                say::seconds(args.within.as_secs())
            ))?;
            Ok(report.exit())
        }
        Ended::Whole => Ok(report.exit()),
    }
}

/// Asks the person, where there is one. Scripts say --yes.
async fn may_load(plan: &Plan, context: &mut Context) -> Result<bool, Trouble> {
    if context.json || !context.talk.terminal || !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let name = |it: &&Target| {
        let size = it.size_bytes.map_or(String::new(), |it| format!(", {}", say::bytes(it)));
        format!("  {} on {}{size}\n", say::clean(it.model.as_str()), say::clean(it.server.as_str()))
    };
    let names: String = plan.to_load().iter().map(name).collect();
    context.talk.text(&format!(
        "Not in memory:\n{names}Have them loaded, one after the other? Others may have to go for that. [y/N] "
    ))?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = tokio::select! {
        answer = answer => answer.ok().and_then(Result::ok).unwrap_or_default(),
        _ = tokio::signal::ctrl_c() => String::new(),
    };
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
