//! The bridge: a loopback port for one program, and the socket behind it.
//!
//! A request is admitted or refused here; what is admitted goes on as it is, the
//! answer comes back as it is, both as they come. When the program leaves, hyper
//! drops the answer's body, and with it goes the connection to the daemon.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::Either;
use hyper::{
    Request, Response,
    body::Incoming,
    header::{HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{admission, key::Key};
use crate::{
    client::{Client, Passage},
    fault::Failure,
    relay::{self, refusal},
};

/// How long a program may take over the head of a request, as at the daemon's own doors.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// When the process has no more files there is nothing to do but wait for a connection to end.
const NO_FILES: Duration = Duration::from_millis(50);

type Body = Either<Passage, relay::Body>;

/// A bridge that is open.
#[derive(Debug)]
pub(super) struct Bridge {
    listener: TcpListener,
    bank: Arc<Bank>,
}

/// What every request needs.
#[derive(Debug)]
struct Bank {
    client: Client,
    key: Key,
    refusals: AtomicU64,
}

impl Bridge {
    /// Opens one on a free port.
    pub(super) async fn open(client: Client, key: Key) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, bank: Arc::new(Bank { client, key, refusals: AtomicU64::new(0) }) })
    }

    /// Where it is.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Carries requests until it is dropped.
    pub(super) async fn carry(self) -> ! {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(serve(self.bank.clone(), stream));
                }
                Err(_) => tokio::time::sleep(NO_FILES).await,
            }
        }
    }
}

async fn serve(bank: Arc<Bank>, stream: TcpStream) {
    // Streams are many small writes, each of which somebody waits for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let bank = bank.clone();
        async move { Ok::<_, std::convert::Infallible>(bank.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), service);
    // However it ended, the program knows.
    let _ = connection.await;
}

impl Bank {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let shape = admission::shape_of(&self.key, parts.uri.path(), &parts.headers);
        let admitted = admission::admit(&self.key, &parts.method, &parts.uri, &parts.headers)
            .and_then(|path| admission::readdress(&mut parts, &path));
        let carried = match admitted {
            Ok(()) => self.client.pass(Request::from_parts(parts, body)).await.map_err(|error| {
                // It says which socket it was, and nothing of what was asked.
                Failure::NoServer(error.to_string())
            }),
            Err(failure) => Err(failure),
        };
        match carried {
            Ok(mut answer) => {
                admission::strip_connection(answer.headers_mut());
                answer.map(Either::Left)
            }
            Err(failure) => {
                let number = self.refusals.fetch_add(1, Ordering::Relaxed);
                let mut answer = refusal(&failure, shape, &format!("bridge-{number}"));
                if matches!(failure, Failure::WrongKey(_)) {
                    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                answer.map(Either::Right)
            }
        }
    }
}
