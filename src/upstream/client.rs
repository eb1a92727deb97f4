//! How the clients are built, and how we learn what their connector did.

use std::{
    any::Any,
    error::Error,
    fmt,
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use reqwest::{Certificate, Client, redirect};
use rustls::{ClientConfig, RootCertStore, client::Resumption};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    fault::{Cause, Fault, Stage},
    server::{Pin, Zone},
    upstream::{
        Permit,
        resolve::Within,
        verify::{self, Shown},
    },
};

/// How long an idle connection is kept. vLLM, llama.cpp and llama-cpp-python
/// close theirs after 5 s: a second less, so that we rarely run into that.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept per server: enough for a burst, few enough that a
/// server with a connection limit has room for others.
const MOST_IDLE: usize = 64;

/// The clients of one sort of endpoint.
pub(super) struct Clients {
    /// Keeps connections. The first choice of every request.
    pub(super) pooled: Client,
    /// Keeps none: what it sends is never sent on a connection that may be
    /// dead, and nothing of a probe stays behind. What answers it in no HTTP at
    /// all comes as if it were HTTP/0.9, so that it can be told what that was.
    pub(super) fresh: Client,
}

/// Endpoints of one sort share their clients; connections of different sorts are never mixed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sort {
    pub(super) trust: Trust,
    /// The farthest that a name may lead.
    pub(super) reach: Zone,
    /// The Unix socket that everything is sent to.
    pub(super) socket: Option<PathBuf>,
}

/// Whose certificates are believed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// No TLS is spoken.
    Nobody,
    /// Whom the system believes.
    System,
    /// Whom the system believes, and the authorities in this file.
    Also(PathBuf),
    /// Whoever has this key.
    Key(Pin),
    /// Anybody.
    Anybody,
}

impl Clients {
    pub(super) fn new(sort: &Sort) -> Result<Self, Fault> {
        Self::noting(sort, Shown::default())
    }

    /// The same; where a key is looked at, `shown` is told which it was.
    pub(super) fn noting(sort: &Sort, shown: Shown) -> Result<Self, Fault> {
        let build = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|_| Fault::new(Stage::Connect, Cause::Tls))
        };
        let tls = tls(&sort.trust, shown)?;
        let builder = || {
            // Without these two a prompt goes to `http_proxy`, loopback or
            // not, and a 307 makes us send it wherever that points.
            let builder = Client::builder().no_proxy().redirect(redirect::Policy::none());
            let builder = builder
                .retry(reqwest::retry::never())
                .http1_only()
                .tcp_nodelay(true)
                .referer(false)
                .pool_idle_timeout(KEEP_IDLE)
                .dns_resolver(Within(sort.reach))
                .connector_layer(Dialling);
            let builder = match &sort.socket {
                Some(path) => builder.unix_socket(path.clone()),
                None => builder,
            };
            match &tls {
                Tls::Preconfigured(config) => builder.tls_backend_preconfigured(ClientConfig::clone(config)),
                Tls::System => builder,
                Tls::Also(authorities) => builder.tls_certs_merge(authorities.iter().cloned()),
            }
        };
        Ok(Self {
            pooled: build(builder().pool_max_idle_per_host(MOST_IDLE))?,
            fresh: build(builder().pool_max_idle_per_host(0).http09_responses())?,
        })
    }
}

enum Tls {
    Preconfigured(Box<ClientConfig>),
    System,
    Also(Vec<Certificate>),
}

/// Chooses what TLS is done with, once for the process.
pub(super) fn install_crypto() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // An error says that some other part of the process has chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn tls(trust: &Trust, shown: Shown) -> Result<Tls, Fault> {
    install_crypto();
    match trust {
        Trust::Nobody => {
            // reqwest insists on some configuration; this one is never used,
            // believes nobody and remembers nothing.
            let mut config =
                ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            config.resumption = Resumption::disabled();
            Ok(Tls::Preconfigured(Box::new(config)))
        }
        Trust::System => Ok(Tls::System),
        Trust::Key(pin) => own(Some(*pin), shown),
        Trust::Anybody => own(None, shown),
        Trust::Also(file) => {
            let unusable = |_| Fault::new(Stage::Connect, Cause::Tls);
            let pem = std::fs::read(file).map_err(|_| Fault::new(Stage::Connect, Cause::Tls))?;
            Certificate::from_pem_bundle(&pem).map(Tls::Also).map_err(unusable)
        }
    }
}

fn own(expected: Option<Pin>, shown: Shown) -> Result<Tls, Fault> {
    let config = verify::config(expected, shown).map_err(|_| Fault::new(Stage::Connect, Cause::Tls))?;
    Ok(Tls::Preconfigured(Box::new(config)))
}

tokio::task_local! {
    static DIALLED: Arc<Dialled>;
}

/// What the connector did for one request. reqwest does not say whether a
/// connection was new; its connector runs inside the request's own future, so
/// it can say so itself.
pub(super) struct Dialled {
    patience: Duration,
    permit: Option<Permit>,
    connected: AtomicBool,
}

impl Dialled {
    pub(super) fn new(patience: Duration, permit: Option<Permit>) -> Arc<Self> {
        Arc::new(Self { patience, permit, connected: AtomicBool::new(false) })
    }

    /// Runs a request under this watch.
    pub(super) fn during<F: Future>(
        self: &Arc<Self>,
        request: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        DIALLED.scope(self.clone(), request)
    }

    /// Whether a connection was made for the request.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }
}

/// A connection did not come about in time.
#[derive(Debug)]
pub(super) struct ConnectTimedOut;

impl fmt::Display for ConnectTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection in time")
    }
}

impl Error for ConnectTimedOut {}

/// What the connection was made for may not be sent any more.
#[derive(Debug)]
pub(super) struct Barred;

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("may not be asked any more")
    }
}

impl Error for Barred {}

#[derive(Clone)]
struct Dialling;

impl<S> Layer<S> for Dialling {
    type Service = Watched<S>;
    fn layer(&self, connector: S) -> Watched<S> {
        Watched(connector)
    }
}

#[derive(Clone)]
struct Watched<S>(S);

type Boxed = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R, Error = Boxed>,
    S::Response: Any,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Boxed;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, Boxed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Boxed>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        let Ok(dialled) = DIALLED.try_with(Arc::clone) else {
            return Box::pin(connecting);
        };
        Box::pin(async move {
            let connection = match tokio::time::timeout(dialled.patience, connecting).await {
                Ok(result) => result?,
                Err(_) => return Err(ConnectTimedOut.into()),
            };
            if dialled.permit.as_ref().is_some_and(|may_send| !may_send()) {
                return Err(Barred.into());
            }
            dialled.connected.store(true, Ordering::Relaxed);
            Ok(connection)
        })
    }
}
