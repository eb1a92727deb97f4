//! One connection of a caller: HTTP/1.1 by hyper, with an answer in words also
//! where hyper would only send a bare status.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{Door, Peer};
use crate::{dialect::openai, fault::Failure};

/// The most bytes of a request's head. Cookies and long model names fit many times over.
const HEAD_CAP: usize = 64 << 10;
/// How long a caller may take over the head of a request, and how long an idle connection is kept.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// How long a connection that was taken just before we stop may take to say what it wants: its
/// request is on the way, and would else be lost.
const FRESH: Duration = Duration::from_millis(250);

/// Serves a connection until it ends. When `stop` is ready it ends after the answer that is running.
pub(crate) async fn serve(
    door: Arc<Door>,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    stop: impl Future<Output = ()>,
) {
    let is_fresh = AtomicBool::new(true);
    let service = service_fn(|request: Request<Incoming>| {
        is_fresh.store(false, Ordering::Relaxed);
        let door = door.clone();
        // Boxed, because hyper's parts can be had back only from a connection that can be moved.
        Box::pin(async move { Ok::<_, std::convert::Infallible>(door.answer(request, peer).await) })
    });
    let io = Talkative { io, door: door.clone(), own_words: None, half_read: false };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_CAP)
        .serve_connection(TokioIo::new(io), service);
    let ended = {
        let stop = async {
            stop.await;
            if is_fresh.load(Ordering::Relaxed) {
                tokio::time::sleep(FRESH).await;
            }
        };
        let mut stop = std::pin::pin!(stop);
        let mut stopping = false;
        poll_fn(|ctx| {
            if !stopping && stop.as_mut().poll(ctx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(ctx)
        })
        .await
    };
    let mut io = connection.into_parts().io.into_inner();
    if ended.is_err_and(|it| it.is_timeout()) && io.half_read {
        let words = io.words(408, "Request Timeout", &Failure::SlowCaller);
        let _ = io.io.write_all(&words).await;
    }
    let _ = io.io.shutdown().await;
}

/// Puts words in place of hyper's own bare refusals: a head that is no HTTP or too large
/// never reaches our service, and hyper answers it with a status and nothing else.
struct Talkative<I> {
    io: I,
    door: Arc<Door>,
    /// A refusal of ours that is being written in place of hyper's.
    own_words: Option<(Bytes, usize)>,
    /// Whether something was read since the last answer.
    half_read: bool,
}

impl<I> Talkative<I> {
    fn words(&self, status: u16, phrase: &str, failure: &Failure) -> Bytes {
        let id = self.door.new_request_id();
        let body = openai::refuse(failure, &id);
        let mut answer = format!(
            "HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nserver: {}\r\n\
             x-lovable-instance: {}\r\nx-lovable-request-id: {id}\r\nconnection: close\r\n\r\n",
            body.len(),
            super::SERVER,
            self.door.instance(),
        )
        .into_bytes();
        answer.extend_from_slice(&body);
        answer.into()
    }

    /// Our answer to what hyper refused, if `written` is such a refusal. Our own answers with
    /// these statuses always have a body.
    fn instead_of(&self, written: &[u8]) -> Option<Bytes> {
        let status = written.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
        memchr::memmem::find(written, b"content-length: 0\r\n")?;
        let (status, phrase, why) = match status {
            b"00" => (400, "Bad Request", "the request head is no valid HTTP/1.1".to_owned()),
            b"14" => (414, "URI Too Long", "the path is too long".to_owned()),
            b"31" => (
                431,
                "Request Header Fields Too Large",
                format!("the request head is larger than {HEAD_CAP} bytes or has too many headers"),
            ),
            _ => return None,
        };
        Some(self.words(status, phrase, &Failure::BadRequest(why)))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Talkative<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(ctx, into))?;
        self.half_read |= into.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Talkative<I> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.half_read = false;
        if self.own_words.is_none() {
            let Some(words) = self.instead_of(bytes) else {
                return Pin::new(&mut self.io).poll_write(ctx, bytes);
            };
            self.own_words = Some((words, bytes.len()));
        }
        let this = &mut *self;
        while let Some((words, length)) = &mut this.own_words {
            if words.is_empty() {
                let length = *length;
                this.own_words = None;
                return Poll::Ready(Ok(length));
            }
            let written = ready!(Pin::new(&mut this.io).poll_write(ctx, words))?;
            words.advance(written);
        }
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(ctx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare refusal is a single piece.
        if pieces.len() == 1 || self.own_words.is_some() {
            let first = pieces.first().map_or(&[][..], |it| it);
            return self.poll_write(ctx, first);
        }
        self.half_read = false;
        Pin::new(&mut self.io).poll_write_vectored(ctx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
