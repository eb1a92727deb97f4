//! The lightest client that can be: it shares a core with the simulated servers,
//! so whatever it costs blurs the difference between the ways.

use std::{io, net::SocketAddr, path::PathBuf};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    Tcp(u16),
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One kept connection.
pub(crate) struct Line {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Door {
    pub(crate) async fn open(&self) -> io::Result<Line> {
        let stream = match self {
            Self::Tcp(port) => {
                let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], *port))).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        Ok(Line { stream, buffer: vec![0; 64 << 10] })
    }
}

/// The bytes of a chat request. A plain one is for a short answer: for a long one
/// lovable asks for a stream, so that a caller who leaves is noticed.
pub(crate) fn request(model: &str, stream: bool, prompt: &str) -> Vec<u8> {
    let most = if stream { 100_000 } else { 8 };
    let body = format!(
        "{{\"model\":\"{model}\",\"stream\":{stream},\"max_tokens\":{most},\
         \"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]}}"
    );
    post("/v1/chat/completions", &body)
}

/// The bytes of a request.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Line {
    /// Sends a request and hands over what comes, framing included, until the answer ends.
    /// `see` says whether to go on.
    pub(crate) async fn ask(&mut self, request: &[u8], mut see: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.write(request).await?;
        let mut head = Vec::new();
        let start = loop {
            let count = self.read().await?;
            head.extend_from_slice(&self.buffer[..count]);
            if let Some(at) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = String::from_utf8_lossy(&head[..start]).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|value| value.trim().parse::<usize>().ok());
        let mut seen = head.len() - start;
        if !see(&head[start..]) {
            return Ok(());
        }
        let mut over = ends(&head[start..]);
        loop {
            if length.map_or(over, |length| seen >= length) {
                return Ok(());
            }
            let count = self.read().await?;
            seen += count;
            over = ends(&self.buffer[..count]);
            if !see(&self.buffer[..count]) {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut self.buffer).await?,
            Stream::Unix(stream) => stream.read(&mut self.buffer).await?,
        };
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

/// Whether the last chunk is here. It may come cut in two; then its end alone
/// is a read of up to five bytes.
fn ends(bytes: &[u8]) -> bool {
    bytes.ends_with(b"0\r\n\r\n") || (bytes.len() < 5 && bytes.ends_with(b"\r\n"))
}

/// Counts the events in the bytes of a stream, whatever the cuts.
#[derive(Default)]
pub(crate) struct Events {
    matched: usize,
    pub(crate) count: u64,
}

impl Events {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        const MARK: &[u8] = b"data: {";
        let mut from = 0;
        // A mark that began in the piece before.
        while self.matched > 0 && from < bytes.len() {
            if bytes[from] == MARK[self.matched] {
                self.matched += 1;
                from += 1;
                if self.matched == MARK.len() {
                    self.count += 1;
                    self.matched = 0;
                }
            } else {
                self.matched = 0;
            }
        }
        let rest = &bytes[from..];
        self.count += memchr::memmem::find_iter(rest, MARK).count() as u64;
        self.matched =
            (1..MARK.len()).rev().find(|length| rest.ends_with(&MARK[..*length])).unwrap_or(self.matched);
    }
}
