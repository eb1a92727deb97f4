//! Requests of other programs, passed on to the socket as they are.
//!
//! Each has a connection of its own, which is closed when the body of the answer
//! is dropped: whoever asked has left, and a model that goes on for nobody must
//! stop at once. The socket is on this machine, so a new connection costs nothing
//! that anybody would notice.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinHandle};

use super::{Client, ClientError};

/// The body of an answer, and the connection it comes over.
#[derive(Debug)]
pub struct Passage {
    body: Incoming,
    _line: Line,
}

/// A connection that is closed by dropping it.
#[derive(Debug)]
struct Line(JoinHandle<()>);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Passes a request on, whatever it is, and gives back the answer, whatever it is.
    /// No patience limits it; `host` is ours to set.
    pub async fn pass<B>(&self, mut request: Request<B>) -> Result<Response<Passage>, ClientError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let socket = || self.socket().to_owned();
        let hung_up = |error: hyper::Error| ClientError::HungUp {
            socket: self.socket().to_owned(),
            source: io::Error::other(error),
        };
        let stream = UnixStream::connect(self.socket())
            .await
            .map_err(|source| ClientError::Unreachable { socket: socket(), source })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(hung_up)?;
        let line = Line(tokio::spawn(async move {
            // How it ended is seen by whoever reads the answer.
            let _ = connection.await;
        }));
        let host = hyper::header::HeaderValue::from_static("lovable");
        request.headers_mut().insert(hyper::header::HOST, host);
        let answer = sender.send_request(request).await.map_err(hung_up)?;
        Ok(answer.map(|body| Passage { body, _line: line }))
    }
}

impl Body for Passage {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(ctx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
