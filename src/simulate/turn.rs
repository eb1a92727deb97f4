//! One answer being written, and the faults that come inside it.

use std::{io, time::Duration};

use super::{
    answer::Voice,
    ask::Operation,
    http::{Connection, LAST_CHUNK, chunk},
    script::{Fault, Script},
    serve::Server,
    shape::Refusal,
};

/// How a generation ended, for the counters.
pub(super) enum End {
    Served,
    Faulted,
    Gone,
}

/// One answer being written.
pub(super) struct Turn<'a> {
    pub(super) server: &'a Server,
    pub(super) connection: Connection,
    pub(super) voice: Voice<'a>,
    pub(super) script: &'a Script,
    pub(super) fault: Option<Fault>,
}

impl Turn<'_> {
    /// Writes a streamed answer, or as much of it as the fault lets through.
    pub(super) async fn stream(&mut self) -> io::Result<End> {
        let writes = self.voice.writes();
        let content_type = writes.content_type(&self.voice);
        let mut first = writes.opening(&self.voice).unwrap_or_default();
        let framing = match self.fault {
            Some(Fault::LengthTooLong) => "content-length: 1000000\r\n".to_owned(),
            // Room for the words before the fault and a part of the next.
            Some(Fault::LengthTooShort) => {
                let before = self.script.after.min(self.voice.pieces.count());
                let pieces = (0..before).map(|index| writes.piece(&self.voice, index, false).len());
                format!("content-length: {}\r\n", first.len() + pieces.sum::<usize>() + 20)
            }
            _ => "transfer-encoding: chunked\r\n".to_owned(),
        };
        let mut out = (self.server.head(200, Some(content_type), &framing) + "\r\n").into_bytes();
        if !self.voice.shape.head_waits() {
            if !first.is_empty() {
                self.put(&mut out, first.as_bytes());
                first.clear();
            }
            self.flush(&mut out).await?;
        }
        let reading = self.server.counters.read_prompt();
        if self.read_prompt().await {
            return Ok(End::Gone);
        }
        drop(reading);
        let total = self.voice.pieces.count();
        let stops = match self.fault {
            Some(Fault::SlowBytes) | None => usize::MAX,
            Some(Fault::EndlessWords) => usize::MAX,
            Some(_) => self.script.after,
        };
        let endless = self.fault == Some(Fault::EndlessWords);
        let mut index = 0;
        while index < stops && (endless || index < total) {
            if index > 0 && index % self.script.burst.max(1) == 0 {
                self.flush(&mut out).await?;
                if self.connection.pause(self.script.between).await {
                    return Ok(End::Gone);
                }
                if endless && self.script.between.is_zero() {
                    tokio::task::yield_now().await;
                }
            }
            // A fault after the last word must not find the answer finished.
            let last = index + 1 == total && !endless && self.is_whole();
            first.push_str(&writes.piece(&self.voice, index, last));
            self.put(&mut out, first.as_bytes());
            first.clear();
            self.server.counters.word();
            index += 1;
        }
        if !first.is_empty() {
            self.put(&mut out, first.as_bytes());
        }
        if !self.is_whole() {
            return self.break_off(out, index).await;
        }
        for part in writes.ending(&self.voice) {
            self.put(&mut out, part.as_bytes());
        }
        out.extend_from_slice(LAST_CHUNK);
        self.flush(&mut out).await?;
        Ok(End::Served)
    }

    /// Reads the prompt; true when the client left meanwhile.
    async fn read_prompt(&mut self) -> bool {
        if !self.voice.shape.reads_to_the_end() {
            return self.connection.pause(self.script.before).await;
        }
        tokio::time::sleep(self.script.before).await;
        self.connection.has_left()
    }

    /// Whether the answer comes to its good end.
    fn is_whole(&self) -> bool {
        matches!(self.fault, None | Some(Fault::SlowBytes | Fault::EndlessWords))
    }

    /// Appends a part of the body in the framing of this answer.
    fn put(&self, out: &mut Vec<u8>, data: &[u8]) {
        match self.fault {
            Some(Fault::LengthTooLong | Fault::LengthTooShort) => out.extend_from_slice(data),
            _ => chunk(out, data),
        }
    }

    async fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.fault == Some(Fault::SlowBytes) {
            for byte in out.iter() {
                self.connection.write(&[*byte]).await?;
                if self.connection.pause(self.script.slow).await {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        } else {
            self.connection.write(out).await?;
        }
        out.clear();
        Ok(())
    }

    /// The fault inside a stream, after `index` words; `out` is not sent yet.
    async fn break_off(&mut self, mut out: Vec<u8>, index: usize) -> io::Result<End> {
        let Some(fault) = self.fault else { return Ok(End::Served) };
        let writes = self.voice.writes();
        let next = writes.piece(&self.voice, index, false);
        let message = "the engine died";
        let clean = match fault {
            Fault::StallInMiddle => {
                self.flush(&mut out).await?;
                self.connection.left().await;
                return Ok(End::Faulted);
            }
            Fault::DieMidFrame => {
                // The chunk is announced whole and torn inside its data.
                let mut torn = Vec::new();
                chunk(&mut torn, next.as_bytes());
                out.extend_from_slice(&torn[..torn.len() / 2]);
                false
            }
            Fault::ErrorInOk | Fault::ErrorThenDone => {
                self.put(&mut out, writes.error(&self.voice, message).as_bytes());
                if fault == Fault::ErrorThenDone {
                    self.put(&mut out, writes.terminator(&self.voice).as_bytes());
                }
                true
            }
            Fault::TruncatedJson => {
                self.put(&mut out, &next.as_bytes()[..next.len() / 2]);
                self.put(&mut out, writes.frame_end());
                true
            }
            Fault::HalfCharacter => {
                let half: Vec<u8> = next.replace(" w", " \u{e9}w").replace("\"w", "\"\u{e9}w").into_bytes();
                // The second byte of the letter is dropped.
                let half: Vec<u8> = half.into_iter().filter(|byte| *byte != 0xa9).collect();
                self.put(&mut out, &half);
                true
            }
            Fault::BadChunk => {
                out.extend_from_slice(b"zz\r\n");
                out.extend_from_slice(next.as_bytes());
                false
            }
            Fault::BareText => {
                self.put(&mut out, b"proxy error: Failed to read connection");
                true
            }
            Fault::BlankEnd => {
                self.put(&mut out, writes.blank(&self.voice).as_bytes());
                true
            }
            Fault::EndWithoutFinish => true,
            Fault::DoneWithoutFinish => {
                self.put(&mut out, writes.terminator(&self.voice).as_bytes());
                true
            }
            Fault::EndlessComments => {
                return self.for_ever(out, writes.comment(), Duration::from_millis(5)).await;
            }
            Fault::EndlessFrame => {
                self.put(&mut out, &next.as_bytes()[..next.len() / 2]);
                return self.for_ever(out, &[b'a'; 4096], Duration::ZERO).await;
            }
            // More than was announced, to the end of the next word.
            Fault::LengthTooShort => {
                self.put(&mut out, next.as_bytes());
                false
            }
            _ => false,
        };
        if clean {
            out.extend_from_slice(LAST_CHUNK);
        }
        self.flush(&mut out).await?;
        Ok(End::Faulted)
    }

    async fn for_ever(&mut self, mut out: Vec<u8>, data: &[u8], pause: Duration) -> io::Result<End> {
        loop {
            self.flush(&mut out).await?;
            if self.connection.pause(pause).await {
                return Ok(End::Faulted);
            }
            tokio::task::yield_now().await;
            self.put(&mut out, data);
        }
    }

    /// Writes a plain answer, or what the fault makes of it.
    pub(super) async fn plain(&mut self) -> io::Result<End> {
        let count = self.voice.pieces.count().saturating_sub(1) as u32;
        let writes = match self.voice.ask.operation() {
            Operation::Embed => Duration::ZERO,
            Operation::Chat | Operation::Complete => self.script.between * count,
        };
        let works = self.server.counters.read_prompt();
        if self.voice.shape.notices_leaving(false) {
            if self.read_prompt().await || self.connection.pause(writes).await {
                return Ok(End::Gone);
            }
        } else {
            tokio::time::sleep(self.script.before + writes).await;
        }
        drop(works);
        let finished =
            !matches!(self.fault, Some(Fault::EndWithoutFinish | Fault::DoneWithoutFinish | Fault::BlankEnd));
        let body = self.voice.writes().whole(&self.voice, finished);
        let half = body.len() / 2;
        let error = |message: &str| {
            let tongue = self.voice.ask.gate.tongue();
            self.voice.shape.refuse_in(tongue, &Refusal::Status(500, message.to_owned())).body
        };
        let (sent, length): (Vec<u8>, usize) = match self.fault {
            None | Some(Fault::SlowBytes) => (body.into_bytes(), 0),
            Some(
                Fault::StallInMiddle
                | Fault::DieMidStream
                | Fault::DieMidFrame
                | Fault::ResetMidStream
                | Fault::LengthTooLong,
            ) => (body.as_bytes()[..half].to_vec(), body.len()),
            Some(Fault::LengthTooShort) => (body.into_bytes(), half),
            Some(Fault::TruncatedJson) => (body.as_bytes()[..half].to_vec(), half),
            Some(Fault::ErrorInOk | Fault::ErrorThenDone) => (error("the engine died").into_bytes(), 0),
            Some(Fault::BareText) => (b"proxy error: Failed to read connection".to_vec(), 0),
            Some(Fault::HalfCharacter) => {
                let mut bytes = body.into_bytes();
                let at = memchr::memmem::find(&bytes, b"w1").unwrap_or(half);
                bytes[at] = 0xc3;
                (bytes, 0)
            }
            Some(Fault::BadChunk | Fault::EndlessComments | Fault::EndlessFrame | Fault::EndlessWords) => {
                return self.plain_chunked(&body).await;
            }
            Some(_) => (body.into_bytes(), 0),
        };
        let length = if length == 0 { sent.len() } else { length };
        let framing = format!("content-length: {length}\r\n");
        let mut out = (self.server.head(200, Some("application/json"), &framing) + "\r\n").into_bytes();
        out.extend_from_slice(&sent);
        self.flush(&mut out).await?;
        match self.fault {
            None | Some(Fault::SlowBytes) => Ok(End::Served),
            Some(Fault::StallInMiddle) => {
                self.connection.left().await;
                Ok(End::Faulted)
            }
            Some(_) => Ok(End::Faulted),
        }
    }

    async fn plain_chunked(&mut self, body: &str) -> io::Result<End> {
        let head = self.server.head(200, Some("application/json"), "transfer-encoding: chunked\r\n") + "\r\n";
        let mut out = head.into_bytes();
        match self.fault {
            Some(Fault::BadChunk) => {
                out.extend_from_slice(b"zz\r\n");
                out.extend_from_slice(body.as_bytes());
                self.flush(&mut out).await?;
                Ok(End::Faulted)
            }
            // White space before the document, as some gateways keep a connection open.
            Some(Fault::EndlessComments) => self.for_ever(out, b" ", Duration::from_millis(5)).await,
            _ => {
                self.put(&mut out, b"{\"model\":\"");
                self.for_ever(out, &[b'a'; 4096], Duration::ZERO).await
            }
        }
    }
}
