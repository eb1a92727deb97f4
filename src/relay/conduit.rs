//! The pipe between the future that carries out a request and the body that
//! hyper sends to the caller.
//!
//! There is no task and no channel: whoever wants the next piece polls the
//! future itself, and the future goes on only when its last piece was taken.
//! So a slow caller slows the server down, a caller that leaves drops the
//! future and with it the upstream connection, and a piece costs no wake-up.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use hyper::{HeaderMap, body::Frame};

/// Status and headers of an answer.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
}

/// Pieces up to this size that wait together are joined: one write for all is cheaper than the copy.
const SMALL: usize = 2048;

#[derive(Default)]
struct Slot {
    head: Option<AnswerHead>,
    pieces: VecDeque<Bytes>,
    /// Small pieces that came after those.
    joined: BytesMut,
    /// How many bytes there were in all.
    said: u64,
    /// The writer will be back at once with more.
    gathering: bool,
    broken: bool,
}

impl Slot {
    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.said += piece.len() as u64;
        let alone = self.is_empty();
        if !alone && piece.len() <= SMALL {
            self.joined.extend_from_slice(&piece);
            return;
        }
        if !self.joined.is_empty() {
            let joined = self.joined.split().freeze();
            self.pieces.push_back(joined);
        }
        self.pieces.push_back(piece);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let joined = || (!self.joined.is_empty()).then(|| self.joined.split().freeze());
        self.pieces.pop_front().or_else(joined)
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.joined.is_empty()
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.joined.len()
    }
}

/// The end that the request's future writes to.
#[derive(Clone, Default)]
pub(crate) struct Mouth(Arc<Mutex<Slot>>);

impl Mouth {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the head of the answer; comes before any piece.
    pub(crate) fn head(&self, head: AnswerHead) {
        self.slot().head = Some(head);
    }

    /// Queues a piece without waiting.
    pub(crate) fn push(&self, piece: Bytes) {
        self.slot().push(piece);
    }

    /// How many bytes wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.slot().len()
    }

    /// How many bytes were queued so far.
    pub(crate) fn said(&self) -> u64 {
        self.slot().said
    }

    /// Lets everything else run once while what waits here is held back, so that
    /// what comes meanwhile goes in the same write.
    pub(crate) async fn gather(&self) {
        self.slot().gathering = true;
        tokio::task::yield_now().await;
        self.slot().gathering = false;
    }

    /// Waits until every piece was taken.
    pub(crate) async fn taken(&self) {
        poll_fn(|_| if self.slot().is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Makes the body end in an error, so that the connection breaks: the honest
    /// end of a plain answer that cannot be finished.
    pub(crate) fn break_connection(&self) {
        self.slot().broken = true;
    }
}

/// The end that hyper reads from.
pub(crate) struct Conduit {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    mouth: Mouth,
}

impl Conduit {
    /// Lays a pipe from `work`, which writes to the mouth it is given.
    pub(crate) fn new<W: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Mouth) -> W) -> Self {
        let mouth = Mouth::default();
        Self { work: Some(Box::pin(work(mouth.clone()))), mouth }
    }

    /// Runs the work until the head of the answer is known.
    pub(crate) async fn head(&mut self) -> Option<AnswerHead> {
        poll_fn(|ctx| {
            loop {
                if let Some(head) = self.mouth.slot().head.take() {
                    return Poll::Ready(Some(head));
                }
                match self.advance(ctx) {
                    Poll::Ready(()) if self.mouth.slot().head.is_none() => return Poll::Ready(None),
                    Poll::Ready(()) => {}
                    Poll::Pending if self.mouth.slot().head.is_some() => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// The whole body, if the work is over already and left just that.
    pub(crate) fn whole(&mut self) -> Option<Bytes> {
        if self.work.is_some() {
            return None;
        }
        let mut slot = self.mouth.slot();
        if slot.broken || slot.pieces.len() + usize::from(!slot.joined.is_empty()) > 1 {
            return None;
        }
        Some(slot.pop().unwrap_or_default())
    }

    fn advance(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let done = work.as_mut().poll(ctx);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl hyper::body::Body for Conduit {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            {
                let mut slot = self.mouth.slot();
                if !slot.gathering
                    && let Some(piece) = slot.pop()
                {
                    return Poll::Ready(Some(Ok(Frame::data(piece))));
                }
            }
            let over = self.advance(ctx).is_ready();
            let slot = self.mouth.slot();
            if !slot.is_empty() && !slot.gathering {
                continue;
            }
            return match (over, slot.broken) {
                (true, true) => {
                    Poll::Ready(Some(Err(io::Error::other("the answer broke off and cannot be finished"))))
                }
                (true, false) => Poll::Ready(None),
                (false, _) => Poll::Pending,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn head(status: u16) -> AnswerHead {
        AnswerHead { status, headers: HeaderMap::new() }
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_the_work_waits_until_they_are_taken() {
        let mut conduit = Conduit::new(|mouth| async move {
            mouth.head(head(200));
            for piece in ["a", "b", "c"] {
                mouth.push(Bytes::from(piece));
                mouth.taken().await;
            }
        });
        assert_eq!(conduit.head().await.unwrap().status, 200);
        assert_eq!(conduit.whole(), None);
        let body = conduit.collect().await.unwrap().to_bytes();
        assert_eq!(body, "abc");
    }

    #[tokio::test]
    async fn an_answer_that_is_over_at_once_is_whole() {
        let mut conduit = Conduit::new(|mouth| async move {
            mouth.head(head(404));
            mouth.push(Bytes::from("gone"));
        });
        assert_eq!(conduit.head().await.unwrap().status, 404);
        assert_eq!(conduit.whole().unwrap(), "gone");
    }

    #[tokio::test]
    async fn a_broken_answer_ends_in_an_error_after_its_pieces() {
        let mut conduit = Conduit::new(|mouth| async move {
            mouth.head(head(200));
            mouth.push(Bytes::from("half"));
            mouth.break_connection();
        });
        conduit.head().await.unwrap();
        assert_eq!(conduit.whole(), None);
        let first = conduit.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, "half");
        assert!(conduit.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn dropping_the_conduit_drops_the_work() {
        let alive = Arc::new(());
        let held = alive.clone();
        let mut conduit = Conduit::new(|mouth| async move {
            let _held = held;
            mouth.head(head(200));
            std::future::pending::<()>().await;
        });
        conduit.head().await.unwrap();
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(conduit);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
