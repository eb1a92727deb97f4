//! `status`: one pleasant page, and a health check.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Context, Exit, Trouble, hint,
    out::{Ink, Look},
    say, servers,
};
use crate::{
    client::STATUS_PATIENCE,
    wire::{CloudView, Health, PostgresView, ServerList, ServerView, Status},
};

/// How often a watched page is drawn anew, and a daemon that is waited for is asked.
const AGAIN: Duration = Duration::from_secs(1);
const WAITING: Duration = Duration::from_millis(100);

/// Without a limit, `--wait` waits as long as it takes.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show it again every second
    #[arg(long)]
    watch: bool,
    /// Return when the daemon is ready, or after DURATION
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = super::duration, conflicts_with = "watch")]
    wait: Option<Option<Duration>>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    match (args.watch, args.wait) {
        (true, _) => watch(context).await,
        (false, Some(limit)) => wait(limit, context).await,
        (false, None) => once(context).await,
    }
}

async fn once(context: &mut Context) -> Result<Exit, Trouble> {
    let reply = context.client.status().await?;
    let status = reply.read()?;
    if context.json {
        context.out.json(reply.raw())?;
    } else {
        let servers = list(context).await;
        let page = page(&status, &servers, context.out.look);
        context.out.text(&page)?;
        if status.servers.total() == 0 {
            context.talk.text(&format!("\n{}", hint::no_server()))?;
        }
    }
    Ok(exit(&status))
}

/// The servers for the page, which is useful without them as well.
async fn list(context: &Context) -> Vec<ServerView> {
    let asked = tokio::time::timeout(STATUS_PATIENCE, context.client.servers()).await;
    let list = asked.ok().and_then(Result::ok).and_then(|it| it.read().ok());
    list.map(|ServerList { servers }| servers).unwrap_or_default()
}

fn exit(status: &Status) -> Exit {
    if status.ready { Exit::Fine } else { Exit::Unusable }
}

async fn watch(context: &mut Context) -> Result<Exit, Trouble> {
    loop {
        let page = match context.client.status().await {
            Ok(reply) if context.json => {
                context.out.json_line(reply.raw())?;
                None
            }
            Ok(reply) => {
                let servers = list(context).await;
                Some(page(&reply.read()?, &servers, context.out.look))
            }
            // It may come back, and that is what one watches for.
            Err(error) if context.json => {
                context.talk.line(error.to_string())?;
                None
            }
            Err(error) => Some(format!("{error}\n")),
        };
        if let Some(page) = page {
            // On a terminal the page stays in its place.
            let home = if context.out.terminal { "\x1b[H\x1b[2J" } else { "" };
            context.out.text(&format!("{home}{page}"))?;
        }
        sleep(AGAIN).await;
    }
}

async fn wait(limit: Option<Duration>, context: &mut Context) -> Result<Exit, Trouble> {
    let ready = async {
        loop {
            let reply = context.client.status().await;
            if reply.is_ok_and(|it| it.read().is_ok_and(|status| status.ready)) {
                return;
            }
            sleep(WAITING).await;
        }
    };
    match limit {
        None => ready.await,
        Some(limit) => {
            if timeout_at(Instant::now() + limit, ready).await.is_err() {
                context.talk.line(format!("not ready after {}", say::ms(limit.as_secs_f64() * 1000.0)))?;
            }
        }
    }
    once(context).await
}

/// The page: health, then servers, models, traffic and store.
pub(super) fn page(status: &Status, servers: &[ServerView], look: Look) -> String {
    let mut page = headline(status, look);
    for reason in &status.reasons {
        page.push_str(&format!("  {} {}\n", look.paint(Ink::Warn, "!"), say::clean(reason)));
    }
    let mut line = |title: &str, text: &str| {
        let title = look.paint(Ink::Dim, &format!("{title:<9}"));
        page.push_str(&format!("{title} {text}\n"));
    };
    let up = say::seconds(status.uptime_seconds);
    line("running", &format!("for {up}, process {}", status.pid));
    line("socket", &say::clean(&status.socket));
    if let Some(listen) = &status.listen {
        line("listens", &format!("on {}", say::clean(listen)));
    }
    line("requests", &requests(status));
    line("store", &store(status));
    if let Some(shared) = &status.postgres {
        line("postgres", &postgres(shared));
    }
    if let Some(cloud) = &status.cloud {
        line("cloud", &spent(cloud));
    }
    if let Some(otlp) = status.otlp.as_ref().filter(|it| !it.ok || it.dropped > 0) {
        let how = if otlp.ok { "the collector takes traces" } else { "the collector takes no traces" };
        line(
            "otlp",
            &format!("{how}; {} waiting, {} lost", say::count(otlp.waiting), say::count(otlp.dropped)),
        );
    }
    for (title, text) in hardware(status) {
        line(title, &text);
    }
    line("models", &format!("{} available, {} loaded", status.models.available, status.models.loaded));
    line("servers", &counts(status));
    if !servers.is_empty() {
        page.push('\n');
        page.push_str(&servers::brief(servers, look));
    }
    page
}

fn headline(status: &Status, look: Look) -> String {
    let (ink, how) = match (status.health, status.ready) {
        (Health::Ok, true) => (Ink::Good, "is ready"),
        (Health::Degraded, true) => (Ink::Warn, "is ready, but something is amiss"),
        (Health::Down, _) | (_, false) => (Ink::Bad, "runs, but cannot answer yet"),
    };
    let name = look.paint(Ink::Bold, &format!("lovable {}", say::clean(&status.version)));
    format!("{name} {}\n", look.paint(ink, how))
}

fn requests(status: &Status) -> String {
    let it = &status.requests;
    let endings = [
        (it.delivered, "delivered"),
        (it.resumed, "resumed"),
        (it.cut_short, "cut short"),
        (it.refused, "refused"),
        (it.exhausted, "failed everywhere"),
        (it.out_of_time, "out of time"),
        (it.caller_gone, "left by the caller"),
        (it.attempts_failed_over, "failed over"),
        (it.in_flight, "in flight"),
        (it.queued, "waiting"),
    ];
    let said = endings.iter().filter(|(number, _)| *number > 0);
    let said: Vec<_> = said.map(|(number, what)| format!("{} {what}", say::count(*number))).collect();
    let total = format!("{} so far", say::count(it.total));
    if said.is_empty() { total } else { format!("{total}: {}", said.join(", ")) }
}

fn store(status: &Status) -> String {
    let it = &status.store;
    let mut parts = Vec::new();
    if !it.ok {
        parts.push("not working: nothing is kept across restarts".to_owned());
    }
    parts.extend(it.bytes.map(say::bytes));
    parts.extend(it.path.as_deref().map(|path| format!("in {}", say::clean(path))));
    if it.dropped > 0 {
        parts.push(format!("{} lost", say::plural(it.dropped, "record")));
    }
    if !status.tracking {
        parts.push("tracking is off".to_owned());
    }
    parts.join(", ")
}

fn postgres(it: &PostgresView) -> String {
    let name = say::clean(&it.database);
    match (it.ok, it.waiting) {
        (true, 0) => format!("{name} has all requests"),
        (true, waiting) => format!("{name} gets all requests, {} on the way", say::count(waiting)),
        (false, waiting) => format!("{name} takes nothing, {} wait", say::count(waiting)),
    }
}

/// The machine, as far as anything of it is known.
fn hardware(status: &Status) -> Vec<(&'static str, String)> {
    let Some(it) = &status.hardware else { return Vec::new() };
    let percent = |it: f64| format!("{it:.0} %");
    let memory = |used: Option<u64>, total: Option<u64>| match (used, total) {
        (Some(used), Some(total)) => Some(format!("{} of {} taken", say::bytes(used), say::bytes(total))),
        (_, total) => total.map(say::bytes),
    };
    let busy = match (it.processor_percent, it.processors) {
        (Some(busy), Some(all)) => {
            Some(format!("{} of {} busy", percent(busy), say::plural(all.into(), "processor")))
        }
        (None, Some(all)) => Some(say::plural(all.into(), "processor")),
        (busy, None) => busy.map(percent),
    };
    let memory_here = memory(it.memory_used_bytes, it.memory_total_bytes).map(|it| format!("memory {it}"));
    let machine: Vec<String> = busy.into_iter().chain(memory_here).collect();
    let mut lines = Vec::new();
    if !machine.is_empty() {
        lines.push(("machine", machine.join(", ")));
    }
    for gpu in &it.gpus {
        let facts = [
            gpu.busy_percent.map(|it| format!("{} busy", percent(it))),
            memory(gpu.memory_used_bytes, gpu.memory_total_bytes),
            gpu.temperature_celsius.map(|it| format!("{it:.0} °C")),
            gpu.power_watts.map(|it| format!("{it:.0} W")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        let name = say::clean(&gpu.name);
        lines.push(("gpu", if facts.is_empty() { name } else { format!("{name}: {}", facts.join(", ")) }));
    }
    lines
}

fn spent(cloud: &CloudView) -> String {
    match cloud.daily_usd {
        Some(daily) => format!("{} of {} spent today", say::usd(cloud.spent_today_usd), say::usd(daily)),
        None => format!("{} spent today, without a limit", say::usd(cloud.spent_today_usd)),
    }
}

fn counts(status: &Status) -> String {
    let it = &status.servers;
    let all = [
        (it.up, "up"),
        (it.suspect, "suspect"),
        (it.down, "down"),
        (it.draining, "draining"),
        (it.untrusted, "untrusted"),
    ];
    let said = all.iter().filter(|(number, _)| *number > 0);
    let said: Vec<_> = said.map(|(number, what)| format!("{number} {what}")).collect();
    if said.is_empty() { "none found".to_owned() } else { said.join(", ") }
}
