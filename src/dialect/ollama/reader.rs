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

#[cfg(test)]
mod tests {
    use dialect::Reader as _;

    use super::*;

    fn chat(message: &str) -> String {
        format!("{{\"model\":\"m\",\"created_at\":\"t\",\"message\":{message},\"done\":false}}")
    }

    const DONE: &str = r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}"#;

    fn check(data: &str, expected: Verdict) {
        assert_eq!(Reader::new(Door::OllamaChat).read(data.as_bytes(), None).verdict, expected, "for {data}");
    }

    fn end(lines: &[&str], clean: bool) -> Result<(), Cause> {
        let mut reader = Reader::new(Door::OllamaChat);
        for line in lines {
            reader.read(line.as_bytes(), None);
        }
        reader.end(clean)
    }

    #[test]
    fn each_line_is_what_it_is() {
        check(&chat(r#"{"role":"assistant","content":"a"}"#), Verdict::Content);
        check(&chat(r#"{"role":"assistant","content":"","thinking":"a"}"#), Verdict::Content);
        let call = r#"{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]}"#;
        check(&chat(call), Verdict::Content);
        check(&chat(r#"{"role":"assistant","content":""}"#), Verdict::Quiet);
        check(DONE, Verdict::Finish);
        check(
            r#"{"error":"an error was encountered while running the model: unexpected EOF"}"#,
            Verdict::Error,
        );
        check(r#"{"error":{"message":"x"}}"#, Verdict::Error);
        check(&DONE.replacen('{', "{\"error\":null,", 1), Verdict::Finish);
    }

    #[test]
    fn what_is_no_line_is_unreadable() {
        for data in [
            "",
            "x",
            "[]",
            "{}",
            "data: {}",
            "{\"message\":5,\"done\":false}",
            "{\"response\":\"a\"}",
            "{\"mess",
        ] {
            check(data, Verdict::Unreadable);
        }
        check(&chat(r#"{"content":"a","tool_calls":[{"function":{}}]}"#), Verdict::Unreadable);
        check(&chat(r#"{"content":"","tool_calls":[{"function":{"name":""}}]}"#), Verdict::Unreadable);
        check(
            &chat(r#"{"content":"","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}"#),
            Verdict::Unreadable,
        );
        check(
            &chat(r#"{"content":"","tool_calls":[{"function":{"name":"f","arguments":[]}}]}"#),
            Verdict::Unreadable,
        );
    }

    #[test]
    fn whole_is_done_with_a_reason() {
        let word = chat(r#"{"role":"assistant","content":"a"}"#);
        assert_eq!(end(&[&word, DONE], true), Ok(()));
        assert_eq!(end(&[&word, DONE], false), Ok(()), "the last line is the terminator");
        assert_eq!(end(&[DONE], true), Ok(()), "a model may say nothing");
        assert_eq!(end(&[&word], true), Err(Cause::EarlyEnd), "thirty times the same token");
        assert_eq!(end(&[], true), Err(Cause::Empty));
        assert_eq!(end(&[], false), Err(Cause::EarlyEnd));
        assert_eq!(end(&[&word, "{\"error\":\"x\"}"], true), Err(Cause::ErrorEvent));
        for none in ["", ",\"done_reason\":\"\"", ",\"done_reason\":null"] {
            let broken = DONE.replace(",\"done_reason\":\"stop\"", none);
            assert_eq!(end(&[&word, &broken], true), Err(Cause::EarlyEnd), "its runner hung up");
        }
        assert_eq!(end(&[&word, DONE, &word], true), Err(Cause::Unreadable));
        assert_eq!(end(&[&word, DONE, "{\"error\":\"x\"}"], true), Err(Cause::ErrorEvent));
    }

    fn meaning(door: Door, lines: &[&str]) -> Vec<Event> {
        let mut reader = Reader::new(door);
        let mut events = Vec::new();
        for line in lines {
            reader.read(line.as_bytes(), Some(&mut events));
        }
        events
    }

    #[test]
    fn calls_come_whole_and_are_why_the_model_stopped() {
        let later = r#"{"content":"","tool_calls":[{"function":{"name":"h","arguments":"{\"x\":1}"}}]}"#;
        let call = |index, id: Option<&str>, name: &str, text: &str| {
            let id = id.map(str::to_owned);
            [
                Event::Call { index, id, name: name.to_owned() },
                Event::Arguments { index, text: text.to_owned() },
            ]
        };
        let usage = Usage { input_tokens: Some(3), output_tokens: Some(2), ..Usage::default() };
        let expected = [Event::Thinking("hm".to_owned())]
            .into_iter()
            .chain(call(0, Some("call_1"), "f", r#"{"b":1,"a":2}"#))
            .chain(call(1, None, "g", "{}"))
            .chain(call(2, None, "h", r#"{"x":1}"#))
            .chain([Event::Usage(usage), Event::Finished { reason: Reason::ToolCalls, stop: None }]);
        let first = chat(
            r#"{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"id":"call_1","function":{"index":0,"name":"f","arguments":{"b":1,"a":2}}},{"function":{"name":"g"}}]}"#,
        );
        let events = meaning(Door::OllamaChat, &[&first, &chat(later), DONE]);
        assert_eq!(events, expected.collect::<Vec<_>>());
    }

    #[test]
    fn counts_that_are_absent_are_absent() {
        let done = DONE
            .replace("\"prompt_eval_count\":3", "\"prompt_eval_count\":0")
            .replace(",\"eval_count\":2", "");
        let mut reader = Reader::new(Door::OllamaChat);
        reader.read(done.as_bytes(), None);
        assert_eq!((reader.usage(), reader.reason()), (Usage::default(), Some(Reason::Stop)));
    }

    #[test]
    fn the_last_word_may_come_with_the_end() {
        let both = r#"{"model":"m","response":"a","thinking":"b","done":true,"done_reason":"length","logprobs":[{"token":"a","logprob":-0.5}]}"#;
        let judged = Reader::new(Door::OllamaGenerate).read(both.as_bytes(), None);
        assert_eq!(judged, Judged { verdict: Verdict::Content, finished: true });
        let expected = [
            Event::Thinking("b".to_owned()),
            Event::Text("a".to_owned()),
            Event::Logprobs(vec![serde_json::json!({"token": "a", "logprob": -0.5})]),
            Event::Usage(Usage::default()),
            Event::Finished { reason: Reason::Length, stop: None },
        ];
        assert_eq!(meaning(Door::OllamaGenerate, &[both]), expected);
    }
}
