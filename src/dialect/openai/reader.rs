//! Judges each event of a stream before its bytes go on.
//!
//! A stream is whole only when every choice that began has had a finish reason,
//! and then `[DONE]` or a clean end came. Neither alone proves anything: vLLM
//! sends `[DONE]` after an error event, Ollama ends cleanly after a runner
//! died, and `transformers serve` never sends `[DONE]`.

use crate::{
    dialect::{
        Judged, Verdict,
        openai::{
            chunk::{Choices, Chunk, Finish},
            events::Events,
        },
    },
    fault::Cause,
    generate::{Begun, Event, Operation, Reason, Usage},
};

/// Reads one stream.
#[derive(Clone, Debug)]
pub struct Reader {
    operation: Operation,
    /// A bit for each choice that began, and for each that ended.
    begun: u128,
    ended: u128,
    came: bool,
    content: bool,
    done: bool,
    failed: Option<Cause>,
    usage: Usage,
    reason: Option<Reason>,
    model: Option<String>,
    events: Events,
}

impl Reader {
    /// A reader of an answer to this operation.
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            begun: 0,
            ended: 0,
            came: false,
            content: false,
            done: false,
            failed: None,
            usage: Usage::default(),
            reason: None,
            model: None,
            events: Events::default(),
        }
    }

    /// Judges the data of one event.
    pub fn judge(&mut self, data: &[u8]) -> Judged {
        self.judge_into(data, None)
    }

    /// Judges the data of one event, and keeps what it says of an answer that has not ended.
    pub(super) fn judge_into(&mut self, data: &[u8], begun: Option<&mut Begun>) -> Judged {
        let judged = self.look(data, begun);
        match judged.verdict {
            Verdict::Error => self.failed = self.failed.or(Some(Cause::ErrorEvent)),
            Verdict::Unreadable => self.failed = self.failed.or(Some(Cause::Unreadable)),
            Verdict::Done => self.done = true,
            Verdict::Content | Verdict::Quiet | Verdict::Finish | Verdict::Usage => self.came = true,
        }
        judged
    }

    /// Judges the data of one event, and tells what it means.
    pub(super) fn tell(&mut self, data: &[u8], events: &mut Vec<Event>) -> Judged {
        let before = self.usage;
        let judged = self.judge(data);
        if matches!(judged.verdict, Verdict::Content | Verdict::Quiet | Verdict::Finish) {
            let reason = self.reason.filter(|_| judged.finished);
            if self.events.read(data, reason, events).is_none() {
                self.failed = self.failed.or(Some(Cause::Unreadable));
                return Verdict::Unreadable.into();
            }
        }
        if self.usage != before {
            events.push(Event::Usage(self.usage));
        }
        judged
    }

    fn look(&mut self, data: &[u8], begun: Option<&mut Begun>) -> Judged {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Done.into();
        }
        let Some(chunk) = Chunk::read(data) else { return Verdict::Unreadable.into() };
        if chunk.is_error() {
            return Verdict::Error.into();
        }
        let was_whole = self.is_whole();
        let usage = chunk.usage();
        let Some(choices) = &chunk.choices else {
            return match usage {
                Some(usage) => self.only_usage(usage).into(),
                None => Verdict::Unreadable.into(),
            };
        };
        let (content, finished) = match self.take(choices) {
            Ok(found) => found,
            Err(verdict) => return verdict.into(),
        };
        if self.model.is_none() {
            self.model = chunk.model();
        }
        self.content |= content;
        if let Some(begun) = begun.filter(|_| content && !finished) {
            choices.iter().for_each(|it| it.tell(self.operation, begun));
        }
        if let Some(usage) = usage {
            let after = choices.first.is_none() || was_whole && !content && !finished;
            if after {
                return self.only_usage(usage).into();
            }
            // Ollama's completions carry a count of zero in every chunk.
            if usage != (Usage { input_tokens: Some(0), output_tokens: Some(0), ..Usage::default() }) {
                self.usage = usage;
            }
        }
        let verdict = match (content, finished) {
            (true, _) => Verdict::Content,
            (false, true) => Verdict::Finish,
            (false, false) => Verdict::Quiet,
        };
        Judged { verdict, finished }
    }

    /// Takes note of the choices: whether there is content, and whether one ended.
    fn take(&mut self, choices: &Choices<'_>) -> Result<(bool, bool), Verdict> {
        let (mut content, mut finished) = (false, false);
        for choice in choices.iter() {
            // OpenAI allows 128.
            let bit = 1_u128.checked_shl(choice.index.unwrap_or(0)).ok_or(Verdict::Unreadable)?;
            self.begun |= bit;
            content |= choice.has_content(self.operation);
            match choice.finish() {
                Some(Finish::Whole(reason)) => {
                    self.ended |= bit;
                    self.reason = Some(reason);
                    finished = true;
                }
                Some(Finish::Failed) => return Err(Verdict::Error),
                None => {}
            }
        }
        Ok((content, finished))
    }

    fn only_usage(&mut self, usage: Usage) -> Verdict {
        self.usage = usage;
        Verdict::Usage
    }

    fn is_whole(&self) -> bool {
        self.begun != 0 && self.begun == self.ended
    }

    /// Whether the answer is whole now that the body is over. `clean` says
    /// whether it ended as its framing promised.
    pub fn end(&self, clean: bool) -> Result<(), Cause> {
        match self.failed {
            Some(cause) => Err(cause),
            None if self.is_whole() && (self.done || clean) => Ok(()),
            None if !self.came && (self.done || clean) => Err(Cause::Empty),
            None => Err(Cause::EarlyEnd),
        }
    }

    /// Whether content has come.
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Whether every choice that began has ended: only counts and the terminator
    /// can still come.
    pub fn has_finished(&self) -> bool {
        self.is_whole()
    }

    /// Whether the terminator has come. If not, the writer has to add it.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The counts that came last.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Why the model stopped.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The model as the server names it.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(delta: &str) -> String {
        format!("{{\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}")
    }

    const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const DONE: &str = "[DONE]";

    fn check(data: &str, expected: Verdict) {
        assert_eq!(Reader::new(Operation::Chat).judge(data.as_bytes()).verdict, expected, "for {data}");
    }

    fn end(events: &[&str], clean: bool) -> Result<(), Cause> {
        let mut reader = Reader::new(Operation::Chat);
        for event in events {
            reader.judge(event.as_bytes());
        }
        reader.end(clean)
    }

    #[test]
    fn content_is_whatever_a_caller_would_miss() {
        check(&delta(r#"{"content":"a"}"#), Verdict::Content);
        check(&delta(r#"{"content":" "}"#), Verdict::Content);
        check(&delta(r#"{"reasoning":"a"}"#), Verdict::Content);
        check(&delta(r#"{"content":"","reasoning_content":"a"}"#), Verdict::Content);
        check(&delta(r#"{"refusal":"a"}"#), Verdict::Content);
        check(&delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#), Verdict::Content);
        check(&delta(r#"{"function_call":{"name":"f"}}"#), Verdict::Content);
    }

    #[test]
    fn roles_and_empty_deltas_are_quiet() {
        check(&delta(r#"{"role":"assistant","content":null}"#), Verdict::Quiet);
        check(&delta(r#"{"role":"assistant","content":"","tool_calls":[]}"#), Verdict::Quiet);
        check(&delta("{}"), Verdict::Quiet);
        check(&delta("null"), Verdict::Quiet);
        check(r#"{"choices":[]}"#, Verdict::Quiet);
    }

    #[test]
    fn an_error_is_seen_in_all_its_shapes() {
        check(r#"{"error":{"message":"x","code":500}}"#, Verdict::Error);
        check(r#"{"error":"Unexpected endpoint or method."}"#, Verdict::Error);
        check(r#"{"object":"error","message":"x"}"#, Verdict::Error);
        check(
            r#"{"error":{"code":502},"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#,
            Verdict::Error,
        );
        check(r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#, Verdict::Error);
        check(r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#, Verdict::Error);
        check(&delta(r#"{"content":"a"}"#).replacen('{', "{\"error\":null,", 1), Verdict::Content);
    }

    #[test]
    fn what_is_no_chunk_is_unreadable() {
        for data in [
            "",
            "x",
            "[]",
            "5",
            "\"a\"",
            "{}",
            "{\"detail\":\"x\"}",
            "{\"choices\":5}",
            "{\"choices\":[5]}",
            "{\"choi",
            "{\"choices\":[{\"index\":128}]}",
        ] {
            check(data, Verdict::Unreadable);
        }
        assert_eq!(
            Reader::new(Operation::Chat).judge(b"{\"choices\":[],\"x\":\"\xff\"}").verdict,
            Verdict::Unreadable
        );
    }

    #[test]
    fn the_last_word_and_the_finish_may_come_together() {
        let both = delta(r#"{"content":"a"}"#).replace("null", "\"length\"");
        let judged = Reader::new(Operation::Chat).judge(both.as_bytes());
        assert_eq!(judged, Judged { verdict: Verdict::Content, finished: true });
    }

    #[test]
    fn whole_is_a_finish_reason_and_then_an_end() {
        let word = delta(r#"{"content":"a"}"#);
        assert_eq!(end(&[&word, STOP, DONE], true), Ok(()));
        assert_eq!(end(&[&word, STOP, DONE], false), Ok(()));
        assert_eq!(end(&[&word, STOP], true), Ok(()), "transformers serve");
        assert_eq!(end(&[STOP, DONE], true), Ok(()), "a model may say nothing");
        assert_eq!(end(&[&word, STOP], false), Err(Cause::EarlyEnd));
        assert_eq!(end(&[&word, DONE], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[&word], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[], true), Err(Cause::Empty));
        assert_eq!(end(&[DONE], true), Err(Cause::Empty));
        assert_eq!(end(&[], false), Err(Cause::EarlyEnd));
        assert_eq!(end(&[&word, r#"{"error":"x"}"#, DONE], true), Err(Cause::ErrorEvent), "vLLM");
        assert_eq!(end(&[&word, STOP, "x", DONE], true), Err(Cause::Unreadable));
        let blank = r#"{"model":"","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
        assert_eq!(end(&[&word, blank], true), Err(Cause::EarlyEnd), "Ollama");
    }

    #[test]
    fn every_choice_that_began_must_end() {
        let choice = |index: u32, reason: &str| {
            format!(
                "{{\"choices\":[{{\"index\":{index},\"delta\":{{\"content\":\"a\"}},\"finish_reason\":{reason}}}]}}"
            )
        };
        let (open, first, second) = (choice(1, "null"), choice(0, "\"stop\""), choice(1, "\"stop\""));
        assert_eq!(end(&[&open, &first, DONE], true), Err(Cause::EarlyEnd));
        assert_eq!(end(&[&open, &first, &second, DONE], true), Ok(()));
    }

    #[test]
    fn counts_are_those_of_the_last_chunk_that_has_some() {
        let usage = |input: u32, output: u32| {
            format!("\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output}}}")
        };
        let mut reader = Reader::new(Operation::Chat);
        assert_eq!(reader.usage(), Usage::default());
        let zero = delta(r#"{"content":"a"}"#).replacen('{', &format!("{{{},", usage(0, 0)), 1);
        assert_eq!(reader.judge(zero.as_bytes()).verdict, Verdict::Content, "Ollama's completions");
        assert_eq!(reader.usage(), Usage::default());
        assert_eq!(reader.judge(STOP.as_bytes()).verdict, Verdict::Finish);
        assert!(reader.has_finished() && !reader.is_done());
        let after = format!("{{\"choices\":[],{}}}", usage(27, 8));
        assert_eq!(reader.judge(after.as_bytes()).verdict, Verdict::Usage);
        assert_eq!(
            reader.usage(),
            Usage { input_tokens: Some(27), output_tokens: Some(8), ..Usage::default() }
        );
        let litellm = format!("{{\"choices\":[{{\"index\":0,\"delta\":{{}}}}],{}}}", usage(27, 9));
        assert_eq!(reader.judge(litellm.as_bytes()).verdict, Verdict::Usage);
        assert_eq!(reader.judge(DONE.as_bytes()).verdict, Verdict::Done);
        assert_eq!(
            (reader.end(true), reader.model(), reader.reason()),
            (Ok(()), Some("m"), Some(Reason::Stop))
        );
    }
}
