//! A model server whose every byte is written by the test: it is recognised as a
//! server with one model, `m`, and hands each generation request to the test.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use lovable::server::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

/// Longer than anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Head of a stream whose end is the end of the connection.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// Which one it is, from 1.
    pub(crate) number: usize,
    /// Its head in small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// The connection of one request. Dropping it closes it.
pub(crate) struct Line {
    stream: TcpStream,
    left: mpsc::UnboundedSender<()>,
}

impl Line {
    /// Writes; whoever has left does not hear it.
    pub(crate) async fn say(&mut self, text: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(text.as_ref()).await.is_ok()
    }

    /// Waits until the other side has closed, and says so to the test.
    pub(crate) async fn until_left(&mut self) {
        while !matches!(self.stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {}
        let _ = self.left.send(());
    }
}

type Playing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The server.
pub(crate) struct Scripted {
    endpoint: Endpoint,
    posts: Arc<Mutex<Vec<Post>>>,
    left: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Starts it; `play` answers each generation request.
    pub(crate) async fn start<P: Future<Output = ()> + Send + 'static>(
        play: impl Fn(Post, Line) -> P + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(OPENAI, play).await
    }

    /// Starts one that is recognised as an Ollama.
    pub(crate) async fn ollama<P: Future<Output = ()> + Send + 'static>(
        play: impl Fn(Post, Line) -> P + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(OLLAMA, play).await
    }

    /// Starts one that is recognised as llama.cpp's server.
    pub(crate) async fn llama_cpp<P: Future<Output = ()> + Send + 'static>(
        play: impl Fn(Post, Line) -> P + Send + Sync + 'static,
    ) -> Self {
        Self::start_as(LLAMA_CPP, play).await
    }

    async fn start_as<P: Future<Output = ()> + Send + 'static>(
        pages: Pages,
        play: impl Fn(Post, Line) -> P + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let posts = Arc::new(Mutex::new(Vec::new()));
        let (sender, left) = mpsc::unbounded_channel();
        let play: Arc<dyn Fn(Post, Line) -> Playing + Send + Sync> =
            Arc::new(move |post, line| Box::pin(play(post, line)));
        let task = tokio::spawn({
            let posts = posts.clone();
            async move {
                let mut tasks = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (posts, play, left) = (posts.clone(), play.clone(), sender.clone());
                    tasks.spawn(serve(stream, pages, posts, play, left));
                }
            }
        });
        Self { endpoint, posts, left: left.into(), task }
    }

    /// One that says the same every time.
    pub(crate) async fn saying(text: impl Into<Vec<u8>>) -> Self {
        Self::saying_as(OPENAI, text.into()).await
    }

    /// An Ollama that says the same every time.
    pub(crate) async fn ollama_saying(text: impl Into<Vec<u8>>) -> Self {
        Self::saying_as(OLLAMA, text.into()).await
    }

    async fn saying_as(pages: Pages, text: Vec<u8>) -> Self {
        let text: Arc<Vec<u8>> = Arc::new(text);
        Self::start_as(pages, move |_, mut line| {
            let text = text.clone();
            async move {
                line.say(&text[..]).await;
            }
        })
        .await
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The requests that came.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// Waits until a request has come.
    pub(crate) async fn until_asked(&self, times: usize) {
        let asked = async {
            while self.posts.lock().unwrap().len() < times {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("the server is asked");
    }

    /// Waits until some connection was seen to be closed by the other side.
    pub(crate) async fn until_left(&self) {
        timeout(PATIENCE, async { self.left.lock().await.recv().await })
            .await
            .expect("the connection closes");
    }
}

/// What it says to questions, by path.
type Pages = &'static [(&'static str, &'static str)];

const OPENAI: Pages =
    &[("/v1/models", r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"me"}]}"#)];

const LLAMA_CPP: Pages = &[
    ("/v1/models", r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"llamacpp"}]}"#),
    ("/props", "{}"),
];

const OLLAMA: Pages = &[
    ("/", "Ollama is running"),
    ("/api/version", r#"{"version":"0.24.0"}"#),
    (
        "/api/tags",
        r#"{"models":[{"name":"m","capabilities":["completion","tools","embedding"],"details":{"context_length":4096}}]}"#,
    ),
    ("/api/ps", r#"{"models":[]}"#),
];

async fn serve(
    mut stream: TcpStream,
    pages: Pages,
    posts: Arc<Mutex<Vec<Post>>>,
    play: Arc<dyn Fn(Post, Line) -> Playing + Send + Sync>,
    left: mpsc::UnboundedSender<()>,
) {
    let mut got = Vec::new();
    let end = loop {
        if let Some(at) = memchr::memmem::find(&got, b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read_buf(&mut got).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    if head.starts_with("get ") {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let page = pages.iter().find(|(it, _)| *it == path);
        let (status, body) = page.map_or(("404 Not Found", "{}"), |(_, body)| ("200 OK", *body));
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let length = head.split("content-length: ").nth(1).and_then(|it| it.split("\r\n").next());
    let length: usize = length.map_or(0, |it| it.parse().unwrap());
    while got.len() < end + length {
        if matches!(stream.read_buf(&mut got).await, Ok(0) | Err(_)) {
            return;
        }
    }
    let body = String::from_utf8_lossy(&got[end..]).into_owned();
    let post = {
        let mut posts = posts.lock().unwrap();
        let post = Post { number: posts.len() + 1, head, body };
        posts.push(post.clone());
        post
    };
    play(post, Line { stream, left }).await;
}
