//! Cuts bytes into server-sent events or lines, without knowing what one means.
//!
//! A network chunk and an event have nothing to do with each other: a chunk may
//! hold ten events or the half of one character. The cutter remembers how far
//! it had come in a small state, so that the same bytes give the same frames
//! however they were cut, and a frame that lies within one chunk is a slice of
//! it: nothing is copied or allocated for it. All frames laid end to end are
//! the bytes that came in.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memchr2};

use super::Framing;

/// Why no more frames come: one is larger than the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {cap} bytes")]
pub struct TooLarge {
    /// The cap.
    pub cap: usize,
}

/// Everything up to and with a blank line, or up to and with the end of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes as they came, their end with them.
    pub bytes: Bytes,
    /// What they hold.
    pub data: FrameData,
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameData {
    /// The data of an event, its lines, if several, joined by line feeds; or a line without its end.
    Event(Bytes),
    /// Nothing but comments, blank lines and fields without data. It proves that
    /// the socket lives, not that the model does.
    Comment,
    /// A line that no event has. llama.cpp's router writes `proxy error: …` so
    /// when the process behind it dies. It must not go to a caller.
    Broken,
}

/// Cuts a body into frames: `push` what came, then take frames until there are none.
#[derive(Debug)]
pub struct Cutter {
    framing: Framing,
    cap: usize,
    at: At,
    /// The beginning of a frame whose end has not come, copied from earlier chunks.
    torn: BytesMut,
    /// What is left of the last chunk.
    chunk: Bytes,
    first: bool,
    dead: bool,
}

/// Where in a frame the last looked-at byte was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of a line; `after_cr` if the line before ended in a lone CR.
    Start { after_cr: bool },
    /// Inside a line.
    Inside,
    /// After the CR that ends a line: a LF may belong to it.
    LineCr,
    /// After the CR of a blank line: a LF may belong to it.
    BlankCr,
}

impl Cutter {
    /// A cutter of events that holds no more than `cap` bytes of one.
    pub fn new(cap: usize) -> Self {
        Self::of(Framing::Events, cap)
    }

    /// A cutter that holds no more than `cap` bytes of one frame.
    pub fn of(framing: Framing, cap: usize) -> Self {
        Self {
            framing,
            cap,
            at: At::Start { after_cr: false },
            torn: BytesMut::new(),
            chunk: Bytes::new(),
            first: true,
            dead: false,
        }
    }

    /// Takes what came. Frames should be taken out first: what is left of the
    /// last chunk would have to be copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.dead {
            return;
        }
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut joined = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            joined.extend_from_slice(&self.chunk);
            joined.extend_from_slice(&chunk);
            self.chunk = joined.freeze();
        }
    }

    /// How many bytes have come that are in no frame yet. At the end of a body
    /// they are a torn frame.
    pub fn rest(&self) -> usize {
        self.torn.len() + self.chunk.len()
    }

    /// Takes what has come and is in no frame: at the end of a body, a torn frame
    /// or a text that is no stream at all.
    pub fn take_rest(&mut self) -> Bytes {
        let mut rest = std::mem::take(&mut self.torn);
        rest.extend_from_slice(&std::mem::take(&mut self.chunk));
        rest.freeze()
    }

    fn fail(&mut self) -> TooLarge {
        self.dead = true;
        self.torn = BytesMut::new();
        self.chunk = Bytes::new();
        TooLarge { cap: self.cap }
    }
}

impl Iterator for Cutter {
    type Item = Result<Frame, TooLarge>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.chunk.is_empty() {
            return None;
        }
        let end = match self.framing {
            Framing::Events => self.at.find_end(&self.chunk),
            Framing::Lines => memchr(b'\n', &self.chunk).map(|at| at + 1),
        };
        let Some(end) = end else {
            if self.rest() > self.cap {
                return Some(Err(self.fail()));
            }
            self.torn.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return None;
        };
        if self.torn.len() + end > self.cap {
            return Some(Err(self.fail()));
        }
        let bytes = if self.torn.is_empty() {
            self.chunk.split_to(end)
        } else {
            self.torn.extend_from_slice(&self.chunk[..end]);
            self.chunk.advance(end);
            self.torn.split().freeze()
        };
        let first = std::mem::take(&mut self.first);
        let data = match self.framing {
            Framing::Events => read(&bytes, first),
            Framing::Lines => read_line(&bytes, first),
        };
        Some(Ok(Frame { bytes, data }))
    }
}

impl At {
    /// Walks on through `bytes`; returns how many of them end the frame.
    ///
    /// A lone CR may be the first half of a CRLF. After a line that ended in LF
    /// or CRLF the next byte is awaited; after one that ended in a lone CR it is
    /// taken for the end at once, so that the last event of a CR stream is not
    /// kept back. Either way the answer does not depend on where the chunks end.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        const FRESH: At = At::Start { after_cr: false };
        let mut here = 0;
        while let Some(&byte) = bytes.get(here) {
            match (*self, byte) {
                (Self::Start { .. } | Self::BlankCr, b'\n') | (Self::Start { after_cr: true }, b'\r') => {
                    *self = FRESH;
                    return Some(here + 1);
                }
                (Self::BlankCr, _) => {
                    *self = FRESH;
                    return Some(here);
                }
                (Self::Start { after_cr: false }, b'\r') => {
                    *self = Self::BlankCr;
                    here += 1;
                }
                (Self::LineCr, b'\n') => {
                    *self = FRESH;
                    here += 1;
                }
                (Self::LineCr, _) => *self = Self::Start { after_cr: true },
                (Self::Start { .. } | Self::Inside, _) => {
                    let Some(length) = memchr2(b'\n', b'\r', &bytes[here..]) else {
                        *self = Self::Inside;
                        return None;
                    };
                    here += length;
                    *self = if bytes[here] == b'\n' { FRESH } else { Self::LineCr };
                    here += 1;
                }
            }
        }
        None
    }
}

/// Reads a line, its end with it. What stands in it, JSON or not, is for its dialect to say.
fn read_line(frame: &Bytes, first: bool) -> FrameData {
    let line = frame.strip_suffix(b"\n").unwrap_or(frame);
    let end = line.strip_suffix(b"\r").unwrap_or(line).len();
    let data = frame.slice(after_mark(frame, first).min(end)..end);
    if data.trim_ascii().is_empty() { FrameData::Comment } else { FrameData::Event(data) }
}

/// A byte order mark is allowed at the start of a stream only.
fn after_mark(frame: &[u8], first: bool) -> usize {
    if first && frame.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// Reads the lines of a whole event.
fn read(frame: &Bytes, first: bool) -> FrameData {
    let mut here = after_mark(frame, first);
    let mut data: Option<Bytes> = None;
    let mut joined: Option<BytesMut> = None;
    while here < frame.len() {
        let length = memchr2(b'\n', b'\r', &frame[here..]).unwrap_or(frame.len() - here);
        let line = &frame[here..here + length];
        let start = here;
        here += length + 1;
        if line.is_empty() || line[0] == b':' {
            continue;
        }
        let (name, value) = match memchr(b':', line) {
            Some(colon) => (&line[..colon], colon + 1),
            None => (line, line.len()),
        };
        match name {
            b"data" => {
                let value = if line.get(value) == Some(&b' ') { value + 1 } else { value };
                match (&data, &mut joined) {
                    (None, _) => data = Some(frame.slice(start + value..start + line.len())),
                    (Some(_), Some(joined)) => {
                        joined.extend_from_slice(b"\n");
                        joined.extend_from_slice(&line[value..]);
                    }
                    (Some(data), joined) => {
                        let mut both = BytesMut::from(&data[..]);
                        both.extend_from_slice(b"\n");
                        both.extend_from_slice(&line[value..]);
                        *joined = Some(both);
                    }
                }
            }
            b"event" | b"id" | b"retry" => {}
            _ => return FrameData::Broken,
        }
    }
    match (data, joined) {
        (_, Some(joined)) => FrameData::Event(joined.freeze()),
        // Some servers keep a connection alive with an empty event; an SDK
        // would stumble over it.
        (Some(data), None) if data.trim_ascii().is_empty() => FrameData::Comment,
        (Some(data), None) => FrameData::Event(data),
        (None, None) => FrameData::Comment,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<Frame>, usize) {
        cut_as(Framing::Events, chunks)
    }

    fn cut_as(framing: Framing, chunks: &[&[u8]]) -> (Vec<Frame>, usize) {
        let mut cutter = Cutter::of(framing, 1 << 20);
        let mut frames = Vec::new();
        for chunk in chunks {
            cutter.push(Bytes::copy_from_slice(chunk));
            for frame in cutter.by_ref() {
                frames.push(frame.unwrap());
            }
        }
        (frames, cutter.rest())
    }

    fn check(stream: &str, expected: &[&str]) {
        check_as(Framing::Events, stream, expected);
    }

    fn check_as(framing: Framing, stream: &str, expected: &[&str]) {
        let (frames, _) = cut_as(framing, &[stream.as_bytes()]);
        let shown: Vec<_> = frames
            .iter()
            .map(|frame| match &frame.data {
                FrameData::Event(data) => String::from_utf8_lossy(data).into_owned(),
                FrameData::Comment => "<comment>".to_owned(),
                FrameData::Broken => "<broken>".to_owned(),
            })
            .collect();
        assert_eq!(shown, expected, "for {stream:?}");
    }

    #[test]
    fn events_end_at_a_blank_line_of_any_sort() {
        check("data: a\n\ndata:b\n\n", &["a", "b"]);
        check("data: a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]);
        check("data: a\r\rdata:b\r\r", &["a", "b"]);
        check("data: a\n\r\ndata: b\r\n\n", &["a", "b"]);
        check("data: a\n", &[]);
    }

    #[test]
    fn cutting_at_any_byte_gives_the_same_events() {
        let stream = ": hello\n\ndata: {\"a\":\"ä\"}\n\nevent: x\r\ndata: 1\r\ndata: 2\r\n\r\ndata:[DONE]\n\ndata: torn";
        for at in 0..=stream.len() {
            let (start, end) = stream.as_bytes().split_at(at);
            let events: Vec<_> = cut(&[start, end])
                .0
                .into_iter()
                .filter_map(|frame| match frame.data {
                    FrameData::Event(data) => Some(data),
                    FrameData::Comment | FrameData::Broken => None,
                })
                .collect();
            assert_eq!(events, ["{\"a\":\"ä\"}", "1\n2", "[DONE]"], "cut at {at}");
        }
    }

    #[test]
    fn only_one_space_belongs_to_the_field() {
        check("data:  a\n\n", &[" a"]);
        check("data\n\n", &["<comment>"]);
        check("data: \n\n", &["<comment>"]);
    }

    #[test]
    fn several_data_lines_are_one_event() {
        check("event: x\ndata: a\nid: 1\ndata: b\n: note\ndata\n\n", &["a\nb\n"]);
    }

    #[test]
    fn comments_and_blank_lines_hold_nothing() {
        check(": ping\n\n:\n\n\nretry: 5\n\n", &["<comment>", "<comment>", "<comment>", "<comment>"]);
    }

    #[test]
    fn bare_text_is_a_broken_frame() {
        check("proxy error: Failed to read connection\n\n", &["<broken>"]);
        check("data: a\n{\"error\":1}\n\n", &["<broken>"]);
        check("<html>\n\n", &["<broken>"]);
    }

    #[test]
    fn bare_text_at_the_end_is_left_over() {
        let (frames, rest) = cut(&[b"data: a\n\nproxy error: Failed to read connection"]);
        assert_eq!((frames.len(), rest), (1, 38));
    }

    #[test]
    fn a_byte_order_mark_is_allowed_at_the_start_only() {
        check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a", "<broken>"]);
    }

    #[test]
    fn a_line_is_a_frame_and_a_blank_one_holds_nothing() {
        let check = |stream: &str, expected: &[&str]| check_as(Framing::Lines, stream, expected);
        check("{\"a\":1}\n{\"b\":\"\\n\"}\r\n", &["{\"a\":1}", "{\"b\":\"\\n\"}"]);
        check("\n\r\n \n{}\n", &["<comment>", "<comment>", "<comment>", "{}"]);
        check("\u{feff}{}\n\u{feff}{}\n", &["{}", "\u{feff}{}"]);
        check("\u{feff}\n\r\r\n", &["<comment>", "<comment>"]);
        check("proxy error: x\ntorn", &["proxy error: x"]);
    }

    #[test]
    fn a_frame_within_one_chunk_is_a_slice_of_it() {
        for (framing, stream, at) in
            [(Framing::Events, "data: a\n\ndata: b\n\n", 6), (Framing::Lines, "{}\r\n{}\n", 0)]
        {
            let chunk = Bytes::from_static(stream.as_bytes());
            let mut cutter = Cutter::of(framing, 100);
            cutter.push(chunk.clone());
            let frame = cutter.next().unwrap().unwrap();
            assert_eq!(frame.bytes.as_ptr(), chunk.as_ptr());
            let FrameData::Event(data) = frame.data else { panic!("no event") };
            assert_eq!(data.as_ptr(), chunk[at..].as_ptr());
        }
    }

    #[test]
    fn a_line_over_the_cap_ends_it() {
        let mut cutter = Cutter::of(Framing::Lines, 4);
        cutter.push(Bytes::from_static(b"{}\n"));
        assert!(cutter.next().unwrap().is_ok());
        for _ in 0..2 {
            cutter.push(Bytes::from_static(b"aaa"));
        }
        assert_eq!(cutter.next(), Some(Err(TooLarge { cap: 4 })));
        assert_eq!((cutter.next(), cutter.rest()), (None, 0));
    }

    #[test]
    fn a_frame_over_the_cap_ends_it() {
        for chunks in [vec![&b"data: aaaaaaaaaaaa\n\n"[..]], vec![b"data: aa", b"aaaaaaaaa", b"a"]] {
            let mut cutter = Cutter::new(16);
            let mut seen = Vec::new();
            for chunk in chunks {
                cutter.push(Bytes::copy_from_slice(chunk));
                seen.extend(cutter.by_ref());
            }
            assert_eq!(seen, [Err(TooLarge { cap: 16 })]);
            cutter.push(Bytes::from_static(b"data: a\n\n"));
            assert_eq!((cutter.next(), cutter.rest()), (None, 0));
        }
    }

    #[test]
    fn what_is_pushed_before_frames_are_taken_is_kept() {
        let mut cutter = Cutter::new(100);
        cutter.push(Bytes::from_static(b"data: a\n\nda"));
        cutter.push(Bytes::from_static(b"ta: b\n\n"));
        assert_eq!(cutter.filter_map(Result::ok).count(), 2);
    }

    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"data: "[..],
            b"data:",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"{\"a\":1}",
            b": ping",
            b"event: x",
            b"\0",
            b"\xc3",
            b"\xa9",
            b"\xef\xbb\xbf",
            b"proxy error",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_where_the_chunks_end(
            framing in prop::sample::select(vec![Framing::Events, Framing::Lines]),
            stream in streams(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let cut = |chunks: &[&[u8]]| cut_as(framing, chunks);
            let (whole, rest) = cut(&[&stream]);
            let mut cuts: Vec<_> = cuts.iter().map(|it| it.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for to in cuts {
                chunks.push(&stream[from..to]);
                from = to;
            }
            chunks.push(&stream[from..]);
            prop_assert_eq!(cut(&chunks), (whole.clone(), rest));
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(cut(&bytes), (whole.clone(), rest));
            let joined: Vec<u8> = whole.iter().flat_map(|it| it.bytes.to_vec()).collect();
            prop_assert_eq!(&joined, &stream[..stream.len() - rest]);
        }
    }
}
