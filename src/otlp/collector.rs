//! The other side: whoever collects what we tell.

use std::{fmt, time::Duration};

use prost::Message;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect,
};

use super::message::Reply;

/// How long it may take to answer; one that takes longer is away.
const LIMIT: Duration = Duration::from_secs(10);
/// Nobody has to say more than how much was rejected.
const LONGEST_REPLY: usize = 64 << 10;

/// Where traces and metrics are sent: the base of a collector that speaks OTLP over HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Collector {
    base: Url,
}

impl Collector {
    /// Reads a URL such as `http://127.0.0.1:4318`. What is wrong with it is said without it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let base = Url::parse(text.trim()).map_err(|_| "it is no URL")?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err("it begins with neither http:// nor https://");
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err("it has a name or a password in it, which would be shown and logged");
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err("it has more behind its path");
        }
        Ok(Self { base })
    }

    pub(super) fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collector({self})")
    }
}

/// Why something did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is away, or wants to be left alone: later perhaps. With how long it asked for.
    Away(String, Option<Duration>),
    /// It does not want this, and would not later.
    Refused(StatusCode),
}

/// A client that goes there and nowhere else: neither through a proxy nor where a redirect points.
pub(super) fn client() -> Result<Client, reqwest::Error> {
    crate::upstream::install_crypto();
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .referer(false)
        .timeout(LIMIT)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(LIMIT)
        .build()
}

/// Sends a message; says how much of it was rejected.
pub(super) async fn send(client: &Client, to: Url, message: &impl Message) -> Result<u64, Trouble> {
    let request =
        client.post(to).header(CONTENT_TYPE, "application/x-protobuf").body(message.encode_to_vec());
    let away = |error: reqwest::Error| Trouble::Away(cause(&error).to_owned(), None);
    let mut response = request.send().await.map_err(away)?;
    let status = response.status();
    if status.is_success() {
        let mut reply = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(away)? {
            if reply.len() + piece.len() > LONGEST_REPLY {
                // It has taken all, and what it says beside that is no answer.
                return Ok(0);
            }
            reply.extend_from_slice(&piece);
        }
        let reply = Reply::decode(&*reply).ok();
        let rejected = reply.and_then(|it| it.partial_success).map_or(0, |it| it.rejected);
        return Ok(u64::try_from(rejected).unwrap_or(0));
    }
    // As the protocol has it; everything else would fail again.
    let is_passing = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if !is_passing.contains(&status) {
        return Err(Trouble::Refused(status));
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
    Err(Trouble::Away(format!("it says {status}"), seconds.map(Duration::from_secs)))
}

/// In words of ours: an error of the client repeats the whole URL.
fn cause(error: &reqwest::Error) -> &'static str {
    match error {
        it if it.is_timeout() => "it does not answer in time",
        it if it.is_connect() => "it cannot be reached",
        _ => "the connection broke",
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn a_collector_is_a_base_with_or_without_a_path() {
        for (text, traces) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
            ("https://otlp.example/some/", "https://otlp.example/some/v1/traces"),
        ] {
            let collector = Collector::parse(text).unwrap();
            assert_eq!(collector.at("/v1/traces").as_str(), traces);
            assert_eq!(collector.to_string(), text.trim_end_matches('/'));
        }
        for wrong in ["", "localhost:4318", "ftp://a", "http://me:secret@a", "http://a/?key=secret"] {
            let why = Collector::parse(wrong).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[tokio::test]
    async fn what_a_collector_says_without_end_is_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Url::parse(&format!("http://{}/v1/traces", listener.local_addr().unwrap())).unwrap();
        let wrote = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut wrote = 0;
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n";
            stream.write_all(head).await.unwrap();
            // Until it is hung up on.
            while stream.write_all(&[0; 4096]).await.is_ok() {
                wrote += 4096;
            }
            wrote
        });
        assert_eq!(send(&client().unwrap(), to, &Reply::default()).await, Ok(0));
        assert!(wrote.await.unwrap() < 64 << 20, "the sockets hold some of it");
    }
}
