//! Just enough HTTP/1.1 to be a model server, on the bare socket.

use std::{fmt, io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Larger heads and bodies are not read; the daemon's own limits are lower.
const MOST_HEAD: usize = 64 << 10;
const MOST_BODY: usize = 256 << 20;

/// Either sort of connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection with what was read from it and not used yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    inbox: BytesMut,
}

/// One request, whole.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, self.path, self.body.len())
    }
}

impl Request {
    #[cfg(test)]
    pub(super) fn post(path: &str, body: String) -> Self {
        Self { method: "POST".into(), path: path.to_owned(), headers: Vec::new(), body: body.into() }
    }

    /// A header's value; `name` in small letters.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?, first.next()?);
        let path = target.split('?').next()?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { method: method.to_owned(), path: path.to_owned(), headers, body: Bytes::new() })
    }
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, inbox: BytesMut::with_capacity(8 << 10) }
    }

    /// The next request; `None` when there is no further one that can be read.
    pub(super) async fn request(&mut self) -> Option<Request> {
        let mut looked = 0;
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.inbox[looked..], b"\r\n\r\n") {
                break looked + at;
            }
            looked = self.inbox.len().saturating_sub(3);
            if self.inbox.len() > MOST_HEAD || !self.fill().await {
                return None;
            }
        };
        let mut request = Request::parse(std::str::from_utf8(&self.inbox[..end]).ok()?)?;
        self.inbox.advance(end + 4);
        let length = match request.header("content-length") {
            Some(text) => text.parse::<usize>().ok().filter(|length| *length <= MOST_BODY)?,
            None => 0,
        };
        if request.header("expect").is_some() && self.inbox.len() < length {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        self.inbox.reserve(length.saturating_sub(self.inbox.len()));
        while self.inbox.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        request.body = self.inbox.split_to(length).freeze();
        Some(request)
    }

    /// Reads something; false at the end or on an error.
    async fn fill(&mut self) -> bool {
        let read = match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.inbox).await,
            Stream::Unix(stream) => stream.read_buf(&mut self.inbox).await,
        };
        matches!(read, Ok(count) if count > 0)
    }

    /// Whether the client has closed its end, as far as is known without waiting.
    /// A half-closed connection counts as left, as it does at the real servers.
    pub(super) fn has_left(&mut self) -> bool {
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read_buf(&mut self.inbox),
            Stream::Unix(stream) => stream.try_read_buf(&mut self.inbox),
        };
        match read {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Returns once the client has left.
    pub(super) async fn left(&mut self) {
        while self.fill().await {}
    }

    /// Waits; true when the client left meanwhile.
    pub(super) async fn pause(&mut self, time: Duration) -> bool {
        if time.is_zero() {
            return self.has_left();
        }
        tokio::select! {
            () = tokio::time::sleep(time) => false,
            () = self.left() => true,
        }
    }

    /// Sends all of it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Unix(stream) => stream.write_all(bytes).await,
        }
    }

    /// Breaks the connection, so that the client sees a reset. A Unix socket
    /// has no such thing; there it is closed.
    pub(super) fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            let _ = stream.set_zero_linger();
        }
    }
}

/// One chunk of a chunked body, appended to `out`.
pub(super) fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    use io::Write;
    write!(out, "{:x}\r\n", data.len()).expect("writing to a Vec does not fail");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The chunk that ends a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_read_one_after_the_other_whatever_the_cuts() {
        let bytes: &[u8] =
            b"POST /v1/x?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: b\r\n\r\n";
        for cut in 1..bytes.len() {
            let (mut client, server) = UnixStream::pair().unwrap();
            let mut connection = Connection::new(Stream::Unix(server));
            let sending = tokio::spawn(async move {
                client.write_all(&bytes[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                client.write_all(&bytes[cut..]).await.unwrap();
            });
            let first = connection.request().await.unwrap();
            assert_eq!(
                (first.method.as_str(), first.path.as_str(), &first.body[..]),
                ("POST", "/v1/x", &b"hi"[..])
            );
            let second = connection.request().await.unwrap();
            assert_eq!(second.header("host"), Some("b"));
            assert!(connection.request().await.is_none());
            sending.await.unwrap();
        }
    }
}
