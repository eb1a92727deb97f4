//! `events`: what changes, one line each.
//!
//! The feed tells states, a person wants changes: what a server was before is
//! remembered here, and the line says what is different.

use std::collections::BTreeMap;

use super::{
    Context, Exit, Trouble,
    out::{Ink, Look},
    say, servers,
};
use crate::{
    generate::Ending,
    server::{ModelName, ServerId},
    wire::{BegunView, EventView, RequestView, ServerView},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(Args {}: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let mut feed = context.client.events().await?;
    let mut known = Known::default();
    while let Some(event) = feed.next().await {
        let event = event?;
        if context.json {
            context.out.json_line(event.raw())?;
            continue;
        }
        // An event of a newer daemon that we have no line for is no reason to stop.
        let Ok(event) = event.read() else { continue };
        for line in known.lines(event, context.out.look) {
            context.out.line(line)?;
        }
    }
    Err(Trouble::Failed("lovabled has ended the feed".to_owned()))
}

#[derive(Default)]
struct Known {
    servers: BTreeMap<ServerId, ServerView>,
}

impl Known {
    /// The lines of an event, none where nothing that a person sees has changed.
    fn lines(&mut self, event: EventView, look: Look) -> Vec<String> {
        let at = look.paint(Ink::Dim, &clock(event.at()));
        let said = match event {
            EventView::State { servers, missed, .. } => {
                let missed =
                    missed.map(|it| format!("{} missed; what is different now:", say::plural(it, "change")));
                missed.into_iter().chain(self.all(servers, look)).collect()
            }
            EventView::Server { server, .. } => self.one(*server, look).into_iter().collect(),
            EventView::Forgotten { id, .. } => {
                self.servers.remove(&id);
                vec![format!("{} is forgotten", name(&id))]
            }
            EventView::Begun { request, .. } => vec![begun(&request, look)],
            EventView::Request { request, .. } => vec![told(&request, look)],
            // What models come and go is said with their servers, and nobody reads along how busy
            // the machine is.
            EventView::Model { .. } | EventView::ModelGone { .. } | EventView::Hardware { .. } => Vec::new(),
        };
        said.into_iter().map(|it| format!("{at}  {it}")).collect()
    }

    fn all(&mut self, servers: Vec<ServerView>, look: Look) -> Vec<String> {
        let mut gone = std::mem::take(&mut self.servers);
        let first = gone.is_empty();
        let mut lines = Vec::new();
        if first && servers.is_empty() {
            lines.push("no server is known".to_owned());
        }
        for server in servers {
            if let Some(before) = gone.remove(&server.id) {
                self.servers.insert(before.id.clone(), before);
            }
            lines.extend(self.one(server, look));
        }
        lines.extend(gone.into_keys().map(|it| format!("{} is forgotten", name(&it))));
        lines
    }

    fn one(&mut self, server: ServerView, look: Look) -> Option<String> {
        let line = match self.servers.get(&server.id) {
            None => Some(format!(
                "{} {}: {} at {}, {}",
                name(&server.id),
                servers::is(&server, look),
                say::clean(server.kind.as_str()),
                say::clean(&server.url),
                say::plural(server.models.len() as u64, "model"),
            )),
            Some(before) => difference(before, &server, look),
        };
        self.servers.insert(server.id.clone(), server);
        line
    }
}

fn difference(before: &ServerView, server: &ServerView, look: Look) -> Option<String> {
    let mut parts = Vec::new();
    if before.state() != server.state() {
        let mut part = format!("{}, was {}", servers::is(server, look), before.state());
        if let Some(fault) = server.last_fault.as_ref().filter(|_| server.state() != "up") {
            part.push_str(&format!(" ({})", say::clean(&fault.message)));
        }
        parts.push(part);
    }
    if before.url != server.url {
        parts.push(format!("is now at {}", say::clean(&server.url)));
    }
    if before.version != server.version {
        parts.push(format!("is now version {}", say::or_dash(server.version.as_ref())));
    }
    parts.extend(names("has", &server.models, &before.models));
    parts.extend(names("lost", &before.models, &server.models));
    let (warm, was_warm) =
        (server.loaded.as_deref().unwrap_or_default(), before.loaded.as_deref().unwrap_or_default());
    parts.extend(names("loaded", warm, was_warm));
    parts.extend(names("unloaded", was_warm, warm));
    (!parts.is_empty()).then(|| format!("{} {}", name(&server.id), parts.join("; ")))
}

/// The names that one list has and the other has not, after a verb.
fn names(verb: &str, these: &[ModelName], those: &[ModelName]) -> Option<String> {
    let more = these.iter().filter(|it| !those.contains(it));
    let more: Vec<_> = more.map(|it| say::clean(it.as_str())).collect();
    (!more.is_empty()).then(|| format!("{verb} {}", more.join(", ")))
}

fn begun(request: &BegunView, look: Look) -> String {
    let who = request.caller.as_deref().map(|it| format!(" of {}", say::clean(it))).unwrap_or_default();
    let (id, asked) = (say::clean(&request.request_id), say::clean(&request.asked));
    look.paint(Ink::Dim, &format!("request {id}{who} for {asked} has begun"))
}

fn told(request: &RequestView, look: Look) -> String {
    let (ink, how) = match request.ending {
        Ending::Delivered => (Ink::Good, "delivered"),
        Ending::Resumed => (Ink::Good, "resumed"),
        Ending::CutShort => (Ink::Bad, "cut short"),
        Ending::Refused => (Ink::Warn, "refused"),
        Ending::Exhausted => (Ink::Bad, "failed everywhere"),
        Ending::OutOfTime => (Ink::Bad, "out of time"),
        Ending::CallerGone => (Ink::Dim, "left by the caller"),
    };
    let mut line =
        format!("request {} for {}: ", say::clean(&request.request_id), say::clean(&request.asked));
    line.push_str(&look.paint(ink, how));
    if let Some(last) = request.attempts.last() {
        line.push_str(&format!(" by {}", name(&last.server)));
    }
    line.push_str(&format!(" in {}", say::ms(request.total_ms)));
    if let Some(cost) = request.cost_usd {
        let bound = if request.cost_is_bound { "up to " } else { "" };
        line.push_str(&format!(" for {bound}{}", say::usd(cost)));
    }
    let faults = request.attempts.iter().filter_map(|it| Some((it, it.fault.as_ref()?)));
    let faults: Vec<_> =
        faults.map(|(it, fault)| format!("{} {}", name(&it.server), say::clean(&fault.message))).collect();
    if !faults.is_empty() {
        line.push_str(&format!(" ({})", faults.join("; ")));
    }
    line
}

fn name(id: &ServerId) -> String {
    say::clean(id.as_str())
}

/// The time of day of a moment, in UTC as the API has it.
fn clock(moment: &str) -> String {
    match crate::wire::from_rfc3339(moment) {
        Some(ms) => {
            let day = ms / 1000 % 86_400;
            format!("{:02}:{:02}:{:02}Z", day / 3600, day / 60 % 60, day % 60)
        }
        None => say::clean(moment),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};
    use crate::{registry::Standing, wire::rfc3339};

    fn at() -> String {
        rfc3339(sample::NOW_MS)
    }

    fn state(servers: Vec<ServerView>, missed: Option<u64>) -> EventView {
        EventView::State {
            at: at(),
            missed,
            servers,
            models: Vec::new(),
            requests: Vec::new(),
            hardware: None,
        }
    }

    #[test]
    fn the_feed_is_told_as_changes() {
        let mut known = Known::default();
        let look = Look { width: None, color: false };
        let mut lines = known.lines(state(sample::servers(), None), look);
        let mut changed = sample::servers().remove(0);
        changed.models.push("new:1b".into());
        changed.standing = Standing::Down;
        let again = changed.clone();
        lines.extend(known.lines(EventView::Server { at: at(), server: Box::new(changed) }, look));
        // Seen again unchanged: no line.
        lines.extend(known.lines(EventView::Server { at: at(), server: Box::new(again) }, look));
        let begun = BegunView {
            request_id: "req-7".into(),
            at: at(),
            caller: Some("curl".into()),
            uid: Some(1000),
            dialect: "openai".into(),
            operation: crate::generate::Operation::Chat,
            asked: "qwen3:8b".into(),
            stream: true,
        };
        lines.extend(known.lines(EventView::Begun { at: at(), request: Box::new(begun) }, look));
        lines
            .extend(known.lines(EventView::Request { at: at(), request: Box::new(sample::request()) }, look));
        lines.extend(known.lines(EventView::Forgotten { at: at(), id: "vllm-8001".into() }, look));
        insta::assert_snapshot!("events", lines.join("\n"));
    }

    #[test]
    fn a_state_that_comes_again_tells_what_was_missed() {
        let mut known = Known::default();
        let look = Look { width: None, color: false };
        known.lines(state(sample::servers(), None), look);
        let left = sample::servers().into_iter().take(1).collect();
        let lines = known.lines(state(left, Some(300)), look);
        assert_eq!(lines.len(), sample::servers().len(), "{lines:?}");
        assert!(lines[0].ends_with("300 changes missed; what is different now:"), "{lines:?}");
        assert!(lines[1..].iter().all(|it| it.ends_with("is forgotten")), "{lines:?}");
    }
}
