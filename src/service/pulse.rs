//! Whether the daemon serves: the smallest whole request over its own socket.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200";

/// Asks `GET /healthz`; anything but a 200 within the limit is an error.
pub async fn answers(socket: &Path, within: Duration) -> io::Result<()> {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(REQUEST).await?;
        let mut head = [0; ANSWER.len()];
        stream.read_exact(&mut head).await?;
        if head == ANSWER { Ok(()) } else { Err(io::Error::other("it does not answer with 200")) }
    };
    timeout(within, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn asked(says: &'static [u8]) -> io::Result<()> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; REQUEST.len()];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request, REQUEST);
            stream.write_all(says).await.unwrap();
            // Held until it was given up.
            let _ = stream.read(&mut [0]).await;
        };
        tokio::join!(answers(&path, Duration::from_millis(100)), answer).0
    }

    #[tokio::test]
    async fn only_a_200_in_time_is_an_answer() {
        asked(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(asked(b"HTTP/1.1 503 No\r\n\r\n").await.unwrap_err().kind(), io::ErrorKind::Other);
        assert_eq!(asked(b"HTTP/1.1").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let nowhere = answers(Path::new("/nowhere"), Duration::from_secs(1)).await;
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
