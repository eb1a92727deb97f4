//! Judges each line of a stream before its bytes go on.
//!
//! The last line is finish reason and terminator in one, so a stream is whole as soon
//! as it has come. A runner that dies is one line with `error`, or nothing: the body
//! ends cleanly all the same. `done` without a reason is a broken answer, too.

use bytes::Bytes;

use super::line::Line;
use crate::{
    dialect::{self, Door, Judged, Verdict},
    fault::Cause,
    generate::{Event, Reason, Usage},
};

/// Reads one stream.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    door: Door,
    came: bool,
    calls: usize,
    called: bool,
    failed: Option<Cause>,
    usage: Usage,
    reason: Option<Reason>,
}

impl Reader {
    pub(super) fn new(door: Door) -> Self {
        Self {
            door,
            came: false,
            calls: 0,
            called: false,
            failed: None,
            usage: Usage::default(),
            reason: None,
        }
    }

    fn look(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Result<Judged, Cause> {
        let line = Line::read(data).ok_or(Cause::Unreadable)?;
        if line.is_error() {
            return Err(Cause::ErrorEvent);
        }
        // Nothing may follow the last line.
        if self.reason.is_some() {
            return Err(Cause::Unreadable);
        }
        let said = line.said(self.door).ok_or(Cause::Unreadable)?;
        let content = said.is_something();
        self.called |= !said.calls()?.is_empty();
        let finished = line.is_done();
        let reason = match finished {
            false => None,
            true => match line.reason().ok_or(Cause::EarlyEnd)? {
                // Ollama has no reason for calls.
                Reason::Stop if self.called => Some(Reason::ToolCalls),
                reason => Some(reason),
            },
        };
        if let Some(events) = events {
            said.tell(&mut self.calls, events)?;
            let logprobs = line.logprobs()?;
            if !logprobs.is_empty() {
                events.push(Event::Logprobs(logprobs));
            }
            if let Some(reason) = reason {
                events.push(Event::Usage(line.usage()));
                events.push(Event::Finished { reason, stop: None });
            }
        }
        self.came = true;
        if finished {
            self.reason = reason;
            self.usage = line.usage();
        }
        let verdict = match (content, finished) {
            (true, _) => Verdict::Content,
            (false, true) => Verdict::Finish,
            (false, false) => Verdict::Quiet,
        };
        Ok(Judged { verdict, finished })
    }
}

impl dialect::Reader for Reader {
    fn read(&mut self, data: &[u8], events: Option<&mut Vec<Event>>) -> Judged {
        self.look(data, events).unwrap_or_else(|cause| {
            self.failed = self.failed.or(Some(cause));
            match cause {
                Cause::ErrorEvent => Verdict::Error.into(),
                _ => Verdict::Unreadable.into(),
            }
        })
    }

    fn end(&self, clean: bool) -> Result<(), Cause> {
        match (self.failed, self.reason) {
            (Some(cause), _) => Err(cause),
            (None, Some(_)) => Ok(()),
            (None, None) if !self.came && clean => Err(Cause::Empty),
            (None, None) => Err(Cause::EarlyEnd),
        }
    }

    fn missing_terminator(&self) -> Bytes {
        Bytes::new()
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn reason(&self) -> Option<Reason> {
        self.reason
    }
}
