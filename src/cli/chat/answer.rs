//! Shows one answer as it comes, and says who gave it and how fast.

use std::time::{Duration, Instant};

use crate::{
    cli::{
        Context, Trouble,
        out::{Ink, Look},
        say,
    },
    client::{Answer, AnsweredBy, ClientError},
};

/// What came.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// The text, as far as it came.
    pub(super) text: String,
    /// The model that gave it.
    pub(super) model: Option<String>,
    /// Why it is not whole, if it is not.
    pub(super) broken: Option<ClientError>,
    server: Option<String>,
    request_id: Option<String>,
    substituted: Option<String>,
    reason: Option<String>,
    tokens: Option<u64>,
    /// From the first content to the last.
    took: Duration,
}

/// Where the cursor is.
#[derive(Default)]
struct Screen {
    thinking: bool,
    mid_line: bool,
}

impl Came {
    /// Shows the answer into `self`, which holds what came also when this is dropped on the way.
    pub(super) async fn show(&mut self, mut answer: Answer, context: &mut Context) -> Result<(), Trouble> {
        let AnsweredBy { request_id, server, model, substituted } = answer.by.clone();
        (self.request_id, self.server, self.model, self.substituted) =
            (request_id, server, model, substituted);
        let mut screen = Screen::default();
        let mut first = None;
        while let Some(piece) = answer.stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    self.broken = Some(error);
                    break;
                }
            };
            if context.json {
                context.out.json_line(&piece.raw)?;
            } else {
                screen.thought(&piece.thought, context)?;
                screen.text(&piece.text, context)?;
            }
            if !piece.text.is_empty() || !piece.thought.is_empty() {
                self.took = first.get_or_insert_with(Instant::now).elapsed();
            }
            self.text.push_str(&piece.text);
            self.reason = piece.reason.or(self.reason.take());
            self.tokens = piece.output_tokens.or(self.tokens);
            self.model = self.model.take().or(piece.model);
        }
        screen.finish(context)
    }

    /// Ends the line that an interrupted answer stands on.
    pub(super) fn end_line(&self, context: &mut Context) -> Result<(), Trouble> {
        if context.json || !context.out.terminal && self.text.is_empty() || self.text.ends_with('\n') {
            return Ok(());
        }
        context.out.text("\n")
    }

    /// One line about the answer, for whoever wants to know.
    pub(super) async fn note(&mut self, context: &mut Context) -> Result<(), Trouble> {
        if context.json {
            return Ok(());
        }
        // When the wait was long, the head came before anybody had been chosen.
        if self.server.is_none()
            && let Some(id) = &self.request_id
            && let Ok(request) = context.client.request(id).await
            && let Ok(request) = request.read()
        {
            self.server = request.attempts.last().map(|it| it.server.to_string());
        }
        let note = self.words();
        let look: Look = context.talk.look;
        context.talk.line(look.paint(Ink::Dim, &note))
    }

    fn words(&self) -> String {
        let mut note = say::or_dash(self.model.as_ref());
        if let Some(server) = &self.server {
            note.push_str(&format!(" on {}", say::clean(server)));
        }
        match self.substituted.as_deref() {
            None | Some("no") => {}
            Some("equivalent") => note.push_str(" (the same model under another name)"),
            Some("cloud") => note.push_str(" (in the cloud)"),
            Some(_) => note.push_str(" (another model than the one asked for)"),
        }
        if let Some(tokens) = self.tokens {
            note.push_str(&format!(" · {}", say::plural(tokens, "token")));
            if let Some(rate) = rate(tokens, self.took) {
                note.push_str(&format!(" · {rate} tokens/s"));
            }
        }
        if self.reason.as_deref() == Some("length") {
            note.push_str(" · stopped at the limit of tokens");
        }
        note
    }
}

/// Tokens per second after the first one. Of what comes within a moment no speed can be told.
fn rate(tokens: u64, took: Duration) -> Option<String> {
    let seconds = took.as_secs_f64();
    (tokens > 1 && seconds >= 0.02).then(|| {
        let rate = (tokens - 1) as f64 / seconds;
        if rate < 99.5 { format!("{rate:.1}") } else { format!("{rate:.0}") }
    })
}

impl Screen {
    /// Thoughts are talk, not the answer, and dim where that can be seen.
    fn thought(&mut self, thought: &str, context: &mut Context) -> Result<(), Trouble> {
        if thought.is_empty() || !context.talk.terminal {
            return Ok(());
        }
        let look = context.talk.look;
        if !self.thinking && !look.color {
            context.talk.text("(thinking) ")?;
        }
        self.thinking = true;
        self.mid_line = !thought.ends_with('\n');
        context.talk.text(&look.paint(Ink::Dim, &say::clean_lines(thought)))
    }

    fn text(&mut self, text: &str, context: &mut Context) -> Result<(), Trouble> {
        if text.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.thinking) {
            context.talk.text(if self.mid_line { "\n\n" } else { "\n" })?;
        }
        self.mid_line = !text.ends_with('\n');
        if context.out.terminal { context.out.text(&say::clean_lines(text)) } else { context.out.text(text) }
    }

    /// An answer ends its line, so that the next one begins a new one.
    fn finish(&self, context: &mut Context) -> Result<(), Trouble> {
        match (self.mid_line, self.thinking) {
            (false, _) => Ok(()),
            (true, true) => context.talk.text("\n"),
            (true, false) => context.out.text("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_note_says_who_answered_and_how_fast() {
        let came = Came {
            model: Some("qwen3:8b".to_owned()),
            server: Some("ollama".to_owned()),
            tokens: Some(101),
            took: Duration::from_secs(4),
            ..Came::default()
        };
        assert_eq!(came.words(), "qwen3:8b on ollama · 101 tokens · 25.0 tokens/s");
        let came = Came {
            substituted: Some("equivalent".to_owned()),
            reason: Some("length".to_owned()),
            tokens: None,
            ..came
        };
        assert_eq!(
            came.words(),
            "qwen3:8b on ollama (the same model under another name) · stopped at the limit of tokens"
        );
        assert_eq!(Came::default().words(), "–");
    }

    #[test]
    fn no_speed_is_told_of_what_came_at_once() {
        assert_eq!(rate(500, Duration::from_millis(5)), None);
        assert_eq!(rate(1, Duration::from_secs(5)), None);
        assert_eq!(rate(1001, Duration::from_secs(2)).as_deref(), Some("500"));
    }
}
