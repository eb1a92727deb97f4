//! `why`: how a request was decided, as a story.

use super::{
    Context, Exit, Trouble,
    out::{Ink, Look},
    say,
};
use crate::{
    generate::{Ending, Operation, Substitution},
    wire::{AttemptView, CandidateView, RequestView},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The id of a request, as `x-lovable-request-id` had it, or `last`
    #[arg(default_value = "last", value_name = "ID|last")]
    id: String,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let id = match args.id.as_str() {
        "last" => {
            let last = context.client.requests(1).await?.read()?.requests.into_iter().next();
            let Some(last) = last else {
                return Err(Trouble::Failed("no request is known that is over".to_owned()));
            };
            last.request_id
        }
        id => id.to_owned(),
    };
    let reply = context.client.request(&id).await?;
    context.show(&reply, story)?;
    Ok(Exit::Fine)
}

fn story(it: &RequestView, look: Look) -> String {
    let mut story = Story { text: String::new(), look };
    story.line(0, &look.paint(Ink::Bold, &say::clean(&it.request_id)));
    story.line(0, &asked(it));
    story.line(0, &ended(it, look));
    if it.queued_ms > 0.0 {
        story.line(0, &format!("It waited {} for a place at a server.", say::ms(it.queued_ms)));
    }
    for (attempt, number) in it.attempts.iter().zip(1..) {
        story.text.push('\n');
        story.attempt(number, attempt);
    }
    if it.attempts.is_empty() {
        story.text.push('\n');
        match it.candidates.is_empty() {
            true => story.line(0, "Nobody was asked, and there was nobody to choose from."),
            false => story.line(0, "Nobody was asked:"),
        }
        story.candidates(&it.candidates);
    } else if it.attempts.last().is_some_and(|last| last.candidates != it.candidates) {
        story.text.push('\n');
        story.line(0, "After that nobody was chosen:");
        story.candidates(&it.candidates);
    }
    story.text.push('\n');
    story.figures(it);
    story.text
}

/// What was wanted, and by whom.
fn asked(it: &RequestView) -> String {
    let what = match it.operation {
        Operation::Chat => "a chat",
        Operation::Complete => "a completion",
        Operation::Embed => "an embedding",
    };
    let how = if it.stream { ", as a stream" } else { "" };
    let user = it.uid.map(|it| format!(" of user {it}")).unwrap_or_default();
    let who = it.caller.as_deref().map_or_else(|| "Somebody".to_owned(), say::clean);
    format!(
        "{who}{user} asked `{}` for {what}{how}, in the language of {}, at {}.",
        say::clean(&it.asked),
        say::clean(&it.dialect),
        say::clean(&it.at)
    )
}

fn ended(it: &RequestView, look: Look) -> String {
    let last = it.attempts.last();
    let server = last.map_or_else(|| "nobody".to_owned(), |it| say::clean(it.server.as_str()));
    let total = say::ms(it.total_ms);
    let (ink, mut text) = match it.ending {
        Ending::Delivered => (Ink::Good, format!("{server} answered; whole after {total}.")),
        Ending::Resumed => {
            (Ink::Good, format!("Several servers answered, {server} to the end; whole after {total}."))
        }
        Ending::CutShort => (Ink::Bad, format!("The answer broke off after {total}.")),
        Ending::Refused => (Ink::Bad, format!("It was refused after {total}.")),
        Ending::Exhausted => (Ink::Bad, format!("Nobody could answer; given up after {total}.")),
        Ending::OutOfTime => (Ink::Bad, format!("Its time was up after {total}.")),
        Ending::CallerGone => (Ink::Warn, format!("The caller left after {total}.")),
    };
    if let Some(failure) = &it.failure {
        let whose = if it.callers_fault { ", its own fault" } else { "" };
        text.push_str(&format!(" The caller was told `{}`{whose}", say::clean(failure)));
        text.push_str(&it.status.map(|it| format!(" (status {it}).")).unwrap_or_else(|| ".".to_owned()));
    }
    match it.substituted {
        Substitution::No => {}
        Substitution::Equivalent => text.push_str(" It was the same model under another name."),
        Substitution::Alternative => text.push_str(" It was another model than the one asked for."),
        Substitution::Cloud => text.push_str(" It was a model in the cloud, in place of one here."),
    }
    look.paint(ink, &text)
}

struct Story {
    text: String,
    look: Look,
}

impl Story {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&" ".repeat(depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn attempt(&mut self, number: u32, it: &AttemptView) {
        let (server, model) = (say::clean(it.server.as_str()), say::clean(it.model.as_str()));
        let server = self.look.paint(Ink::Bold, &server);
        let after = say::ms(it.after_ms);
        self.line(
            0,
            &format!(
                "{number}. {server} ({}) was asked for {model} after {after}.",
                say::clean(it.kind.as_str())
            ),
        );
        let others: Vec<_> =
            it.candidates.iter().filter(|other| other.server != it.server).cloned().collect();
        if !others.is_empty() {
            self.line(3, "The others then:");
            self.candidates(&others);
        }
        let first = it.first_token_ms.map(|first| format!("began after {}", say::ms(first)));
        let total = say::ms(it.total_ms);
        let (ink, text) = match (&it.fault, first) {
            (Some(fault), Some(first)) => {
                (Ink::Bad, format!("It {first}, and {} after {total}.", say::clean(&fault.message)))
            }
            (Some(fault), None) => (Ink::Bad, format!("It {} after {total}.", say::clean(&fault.message))),
            (None, Some(first)) => (Ink::Plain, format!("It {first} and was done after {total}.")),
            (None, None) => (Ink::Plain, format!("It had not begun when it was left after {total}.")),
        };
        let text = self.look.paint(ink, &text);
        self.line(3, &text);
        if it.requests > 1 {
            self.line(
                3,
                &format!(
                    "It got {} in that: it had to be asked with more care.",
                    say::plural(it.requests.into(), "request")
                ),
            );
        }
    }

    fn candidates(&mut self, those: &[CandidateView]) {
        for it in those {
            let name = format!("{}, {}", say::clean(it.server.as_str()), say::clean(it.model.as_str()));
            let rank = it.rank.map_or_else(|| say::UNKNOWN.to_owned(), |it| it.to_string());
            let why = match (&it.excluded, &it.behind) {
                (Some(why), _) => format!(": {}", say::clean(why)),
                (None, Some(why)) => format!(": {}", say::clean(why)),
                (None, None) => String::new(),
            };
            self.line(5, &format!("{rank} {name}{why}"));
        }
    }

    fn figures(&mut self, it: &RequestView) {
        let mut figures = Vec::new();
        figures.extend(it.first_token_ms.map(|it| format!("first content after {}", say::ms(it))));
        if let (Some(p50), Some(p95)) = (it.gap_ms.p50, it.gap_ms.p95) {
            figures.push(format!("pauses of {} (95 % up to {})", say::ms(p50), say::ms(p95)));
        }
        figures.extend(it.tokens_per_second.map(|it| format!("{it:.1} tokens/s")));
        let estimated = if it.usage_estimated { " (estimated)" } else { "" };
        figures.extend(it.usage.input_tokens.map(|it| format!("{} in{estimated}", say::plural(it, "token"))));
        figures
            .extend(it.usage.output_tokens.map(|it| format!("{} out{estimated}", say::plural(it, "token"))));
        if it.sent_bytes > 0 {
            figures.push(format!("{} taken by the caller", say::bytes(it.sent_bytes)));
        }
        let reason = it.reason.and_then(|it| serde_json::to_value(it).ok()?.as_str().map(str::to_owned));
        figures.extend(reason.map(|it| format!("finish reason {it}")));
        let bound = if it.cost_is_bound { " at the most" } else { "" };
        figures.extend(it.cost_usd.map(|it| format!("{}{bound}", say::usd(it))));
        if !figures.is_empty() {
            self.line(0, &format!("{}.", figures.join(", ")));
        }
        let Some(hardware) = &it.hardware else { return };
        let (start, peak) = (say::reading(&hardware.start), say::reading(&hardware.peak));
        if let (Some(start), Some(peak)) = (start, peak) {
            self.line(0, &format!("This machine when it began: {start}; meanwhile up to: {peak}."));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn a_request_is_told_as_a_story() {
        insta::assert_snapshot!("why", story(&sample::request(), Look { width: None, color: false }));
    }

    #[test]
    fn one_that_nobody_was_asked_for_says_why() {
        let candidate = CandidateView {
            server: "ollama".into(),
            model: "qwen3:8b".into(),
            rank: None,
            behind: None,
            excluded: Some("is not trusted".into()),
        };
        let request = RequestView {
            ending: Ending::Refused,
            status: Some(503),
            failure: Some("no_server".into()),
            attempts: Vec::new(),
            candidates: vec![candidate],
            first_token_ms: None,
            sent_bytes: 0,
            reason: None,
            ..sample::request()
        };
        insta::assert_snapshot!("why_nobody", story(&request, Look { width: None, color: false }));
    }
}
