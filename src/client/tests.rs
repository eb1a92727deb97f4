//! The client against a scripted socket.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};

use super::*;

/// A daemon of one reply: takes a request, writes the script, and hangs up or stays silent.
struct Scripted {
    dir: tempfile::TempDir,
    asked: tokio::task::JoinHandle<String>,
}

impl Scripted {
    /// Says `reply` to the first request and hangs up.
    fn says(reply: impl Into<Vec<u8>>) -> Self {
        Self::start(Some(reply.into()))
    }

    /// Takes the request and never answers.
    fn stays_silent() -> Self {
        Self::start(None)
    }

    fn start(reply: Option<Vec<u8>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                let read = stream.read(&mut buffer).await.unwrap();
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            match reply {
                Some(reply) => stream.write_all(&reply).await.unwrap(),
                None => std::future::pending().await,
            }
            String::from_utf8(request).unwrap()
        });
        Self { dir, asked }
    }

    fn client(&self) -> Client {
        Client::new(&self.dir.path().join("s"))
    }

    async fn request_line(self) -> String {
        self.asked.await.unwrap().lines().next().unwrap().to_owned()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|it| body.len() >= it.parse().unwrap())
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn events(body: &str) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-lovable-server: ollama\r\nx-lovable-substituted: equivalent";
    format!("{head}\r\nconnection: close\r\n\r\n{body}")
}

fn question(stream: bool) -> GenerateBody {
    GenerateBody { prompt: Some("hi".into()), stream, ..GenerateBody::default() }
}

async fn text_of(answer: &mut Answer) -> (String, Option<ClientError>) {
    let mut text = String::new();
    while let Some(piece) = answer.stream.next().await {
        match piece {
            Ok(piece) => text.push_str(&piece.text),
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

#[tokio::test]
async fn the_reply_keeps_the_bytes_as_they_came() {
    let daemon = Scripted::says(reply("200 OK", "{ \"servers\": [],\n \"new\": 1 }"));
    let servers = daemon.client().servers().await.unwrap();
    assert_eq!(&servers.raw()[..], b"{ \"servers\": [],\n \"new\": 1 }");
    assert_eq!(servers.read().unwrap(), ServerList::default());
    assert_eq!(daemon.request_line().await, "GET /lovable/v1/servers HTTP/1.1");
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_unreachable_and_named() {
    let error = Client::new(Path::new("/nonexistent/lovabled.sock")).status().await.unwrap_err();
    let ClientError::Unreachable { socket, source } = &error else { panic!("{error:?}") };
    assert_eq!(socket, Path::new("/nonexistent/lovabled.sock"));
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_socket_that_nobody_listens_on_is_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(dir.path().join("s")).unwrap());
    let error = Client::new(&dir.path().join("s")).status().await.unwrap_err();
    let ClientError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test(start_paused = true)]
async fn status_gives_up_on_a_silent_daemon_after_two_seconds() {
    let daemon = Scripted::stays_silent();
    let begun = tokio::time::Instant::now();
    let error = daemon.client().status().await.unwrap_err();
    assert!(matches!(error, ClientError::Silent { after: STATUS_PATIENCE, .. }), "{error:?}");
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn a_daemon_that_hangs_up_is_told_from_one_that_is_not_there() {
    let daemon = Scripted::says("");
    let error = daemon.client().servers().await.unwrap_err();
    assert!(matches!(error, ClientError::HungUp { .. }), "{error:?}");
}

#[tokio::test]
async fn an_error_of_the_api_keeps_status_code_and_message() {
    let body = r#"{"error":{"code":"no_server","message":"nothing found","request_id":null}}"#;
    let daemon = Scripted::says(reply("503 Service Unavailable", body));
    let error = daemon.client().models().await.unwrap_err();
    let ClientError::Api { status, code, message, raw } = &error else { panic!("{error:?}") };
    assert_eq!((*status, code.as_str(), message.as_str()), (503, "no_server", "nothing found"));
    assert_eq!(&raw[..], body.as_bytes());
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_quotes_nothing_of_it() {
    let daemon = Scripted::says(reply("200 OK", r#"{"servers": "secret"}"#));
    let error = daemon.client().servers().await.unwrap().read().unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_streamed_answer_comes_piece_by_piece() {
    let daemon = Scripted::says(events(
        ": wait\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    ));
    let mut answer = daemon.client().generate(&question(true)).await.unwrap();
    assert_eq!(answer.by.server.as_deref(), Some("ollama"));
    assert_eq!(answer.by.substituted.as_deref(), Some("equivalent"));
    let (text, error) = text_of(&mut answer).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text, "hello");
    assert!(answer.stream.next().await.is_none());
    assert_eq!(daemon.request_line().await, "POST /lovable/v1/generate HTTP/1.1");
}

#[tokio::test]
async fn a_stream_that_breaks_off_gives_what_came_and_then_the_error() {
    for end in [
        "",
        "data: {\"cho",
        "data: [DONE]\n\n",
        "data: {\"error\":{\"code\":\"all_servers_failed\",\"message\":\"x\"}}\n\n",
    ] {
        let daemon = Scripted::says(events(&format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"hel\"}}}}]}}\n\n{end}"
        )));
        let mut answer = daemon.client().generate(&question(true)).await.unwrap();
        let (text, error) = text_of(&mut answer).await;
        assert_eq!(text, "hel");
        assert!(matches!(error, Some(ClientError::BrokenOff { .. })), "{end}: {error:?}");
        assert!(answer.stream.next().await.is_none());
    }
}

#[tokio::test]
async fn a_whole_answer_is_one_piece() {
    let body = r#"{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}"#;
    let daemon = Scripted::says(reply("200 OK", body));
    let mut answer = daemon.client().generate(&question(false)).await.unwrap();
    let (text, error) = text_of(&mut answer).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn events_are_read_one_by_one_until_the_daemon_ends_them() {
    let daemon = Scripted::says(events(
        "data: {\"event\":\"state\",\"at\":\"t\",\"servers\":[]}\n\n\
         data: {\"event\":\"forgotten\",\"at\":\"t\",\"id\":\"ollama\"}\n\n",
    ));
    let mut feed = daemon.client().events().await.unwrap();
    let first = feed.next().await.unwrap().unwrap().read().unwrap();
    // A daemon of before they were told says nothing of models, requests and hardware.
    let empty = EventView::State {
        at: "t".into(),
        missed: None,
        servers: Vec::new(),
        models: Vec::new(),
        requests: Vec::new(),
        hardware: None,
    };
    assert_eq!(first, empty);
    let second = feed.next().await.unwrap().unwrap().read().unwrap();
    assert_eq!(second, EventView::Forgotten { at: "t".into(), id: "ollama".into() });
    assert!(feed.next().await.is_none());
}

#[tokio::test]
async fn names_are_escaped_and_the_slashes_of_a_model_stay() {
    let daemon = Scripted::says(reply("404 Not Found", "{}"));
    let _ = daemon.client().model("org/qwen3:8b ?").await;
    assert_eq!(daemon.request_line().await, "GET /lovable/v1/models/org/qwen3:8b%20%3F HTTP/1.1");
    let daemon = Scripted::says(reply("404 Not Found", "{}"));
    let _ = daemon.client().forget("../x").await;
    assert_eq!(daemon.request_line().await, "DELETE /lovable/v1/servers/..%2Fx HTTP/1.1");
}

#[tokio::test]
async fn a_stats_query_says_only_what_was_asked() {
    let daemon = Scripted::says(reply("200 OK", r#"{"rows":[]}"#));
    let query = StatsQuery {
        by: Some("model".into()),
        since: Some("2026-01-01T00:00:00Z".into()),
        ..StatsQuery::default()
    };
    daemon.client().stats(&query).await.unwrap();
    let line = daemon.request_line().await;
    assert_eq!(line, "GET /lovable/v1/stats?by=model&since=2026-01-01T00%3A00%3A00Z HTTP/1.1");
}
