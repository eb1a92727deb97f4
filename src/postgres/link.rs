//! A connection to a database: made, encrypted, and never waited for longer than we say.
//!
//! What a database says to us is a few words. One that says more than a MiB to one question, or
//! takes longer than we have patience, is left.

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_postgres::{
    Client, NoTls,
    error::Error,
    types::{ToSql, Type},
};
use tokio_rustls::TlsConnector;

use super::{
    place::{Address, Database, Encryption},
    trouble::Trouble,
};

/// Until there is a connection that lets us in.
const CONNECT: Duration = Duration::from_secs(15);
/// Until an answer is there. Rows may wait for a lock that a person holds.
const ANSWER: Duration = Duration::from_secs(60);
/// The most that is read for one answer.
const LONGEST_ANSWER: u64 = 1 << 20;
/// The question whether the other end encrypts: its length, and the number of the question.
const ASK_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A connection that has let us in.
pub(super) struct Link {
    client: Client,
    /// Carries bytes while it is polled, which is while we wait for an answer.
    carrier: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
    left: Arc<AtomicU64>,
}

impl Link {
    /// Connects to one of the hosts of a database: another one at each turn.
    pub(super) async fn connect(to: &Database, turn: u32) -> Result<Self, Trouble> {
        let at = usize::try_from(turn).unwrap_or(0) % to.hosts.len().max(1);
        let Some(host) = to.hosts.get(at) else { return Err(Trouble::Unreachable) };
        timeout(CONNECT, Self::connect_to(host, to)).await.unwrap_or(Err(Trouble::Slow))
    }

    async fn connect_to(host: &Address, to: &Database) -> Result<Self, Trouble> {
        let left = Arc::new(AtomicU64::new(LONGEST_ANSWER));
        let stream = Metered { stream: open(host, to).await?, left: left.clone() };
        // It is encrypted already where it has to be.
        let connected = to.login.connect_raw(stream, NoTls).await;
        let (client, carrier) = connected.map_err(|error| Trouble::of_login(&error))?;
        Ok(Self { client, carrier: Box::pin(carrier), left })
    }

    /// Has statements carried out that answer nothing.
    pub(super) async fn run(&mut self, text: &str) -> Result<(), Trouble> {
        let Self { client, carrier, left } = self;
        answer(carrier, left, client.batch_execute(text)).await
    }

    /// Asks for a row.
    pub(super) async fn row(&mut self, text: &str) -> Result<tokio_postgres::Row, Trouble> {
        let Self { client, carrier, left } = self;
        answer(carrier, left, client.query_typed_one(text, &[])).await
    }

    /// Has one statement carried out with texts for what it leaves open.
    pub(super) async fn put(&mut self, text: &str, open: [&str; 2]) -> Result<u64, Trouble> {
        let Self { client, carrier, left } = self;
        let [one, other] = &open;
        let open: [(&(dyn ToSql + Sync), Type); 2] = [(one, Type::TEXT), (other, Type::TEXT)];
        answer(carrier, left, client.execute_typed(text, &open)).await
    }
}

/// Waits for an answer while the connection carries it.
async fn answer<T>(
    carrier: &mut (impl Future<Output = Result<(), Error>> + Unpin),
    left: &AtomicU64,
    asked: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    left.store(LONGEST_ANSWER, Ordering::Relaxed);
    tokio::select! {
        biased;
        answer = asked => answer.map_err(|error| Trouble::of(&error)),
        ended = carrier => Err(ended.err().map_or(Trouble::Broken, |error| Trouble::of(&error))),
        () = tokio::time::sleep(ANSWER) => Err(Trouble::Slow),
    }
}

/// Bytes to a database and back.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn open(host: &Address, to: &Database) -> Result<Box<dyn Stream>, Trouble> {
    let lost = |_: io::Error| Trouble::Unreachable;
    let (host, mut stream) = match host {
        Address::Socket(path) => return Ok(Box::new(UnixStream::connect(path).await.map_err(lost)?)),
        Address::Tcp(name, port) => (host, TcpStream::connect((name.as_str(), *port)).await.map_err(lost)?),
    };
    let Address::Tcp(name, _) = host else { return Ok(Box::new(stream)) };
    let is_wanted = match to.encryption {
        Encryption::Never => false,
        Encryption::Possible | Encryption::Always => true,
        Encryption::Sensible => !host.is_here(),
    };
    if !is_wanted {
        return Ok(Box::new(stream));
    }
    let broken = |_: io::Error| Trouble::Broken;
    stream.write_all(&ASK_TLS).await.map_err(broken)?;
    match stream.read_u8().await.map_err(broken)? {
        b'S' => {}
        b'N' if to.encryption == Encryption::Possible => return Ok(Box::new(stream)),
        b'N' => return Err(Trouble::NoTls),
        _ => return Err(Trouble::Broken),
    }
    let config = config(to.authorities.clone()).await?;
    let name = ServerName::try_from(name.clone()).map_err(|error| Trouble::Tls(error.to_string()))?;
    let sealed = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(sealed.map_err(|error| Trouble::Tls(tls_error(&error)))?))
}

/// What rustls says of a handshake; anything else is that the other end left.
fn tls_error(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    inner.map_or_else(|| "the connection broke".to_owned(), ToString::to_string)
}

/// Whom we believe. Reading that blocks.
async fn config(authorities: Option<PathBuf>) -> Result<Arc<ClientConfig>, Trouble> {
    let read = move || {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|it| it.to_string())?;
        let builder = match authorities {
            Some(path) => builder.with_root_certificates(roots(&path)?),
            None => builder.with_platform_verifier().map_err(|it| it.to_string())?,
        };
        Ok(Arc::new(builder.with_no_client_auth()))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err("it cannot be checked".to_owned())).map_err(Trouble::Tls)
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let unread = |why: String| format!("{}: {why}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|it| unread(it.to_string()))? {
        let certificate = certificate.map_err(|it| unread(it.to_string()))?;
        roots.add(certificate).map_err(|it| unread(it.to_string()))?;
    }
    if roots.is_empty() { Err(unread("there is no certificate in it".to_owned())) } else { Ok(roots) }
}

/// Lets only so much come in.
struct Metered {
    stream: Box<dyn Stream>,
    left: Arc<AtomicU64>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = (buf.filled().len() - before) as u64;
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(read), Ordering::Relaxed);
        if read > left { Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())) } else { polled }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
