//! Pauses, and databases that do what they should not.

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

proptest! {
    #[test]
    fn pauses_grow_to_their_longest_and_never_vanish(failures: u32, luck in 0.0..1.0_f64) {
        let it = pause(failures, luck);
        prop_assert!(it >= FIRST_PAUSE / 2 && it <= LONGEST_PAUSE);
        prop_assert!(pause(failures.saturating_add(1), luck) >= it);
    }
}

/// A database that answers whatever it is sent with this, and then says no more.
async fn answers_with(answer: Vec<u8>) -> Database {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 512];
            let _ = stream.read(&mut asked).await;
            let _ = stream.write_all(&answer).await;
            kept.push(stream);
        }
    });
    Database::parse(&format!("postgres://u:s3cr3t@127.0.0.1:{port}/d")).unwrap()
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mthe word \"s3cr3t\"\0\0").as_bytes())
}

#[tokio::test]
async fn whatever_a_database_says_becomes_a_word_of_ours() {
    let endless = message(b'N', &vec![b'x'; 4 << 20]);
    let clear_text = message(b'R', &3_u32.to_be_bytes());
    let kerberos = message(b'R', &7_u32.to_be_bytes());
    let other = |code: &str| Some(Trouble::Other(code.to_owned()));
    for (answer, expected) in [
        (endless, Some(Trouble::Broken)),
        (vec![b'E', 0xff, 0xff, 0xff, 0xff], Some(Trouble::Broken)),
        (kerberos, Some(Trouble::Login)),
        (error("28P01"), Some(Trouble::Login)),
        (error("3D000"), Some(Trouble::NoDatabase)),
        (error("53300"), Some(Trouble::Busy)),
        (error("57P03"), Some(Trouble::Busy)),
        (error("42501"), Some(Trouble::NotAllowed)),
        (error("XX000"), other("XX000")),
        (error("a very long code with words"), other("?")),
        // These say nothing more, or nothing at all, and are waited for until we have no patience.
        (clear_text, None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), None),
        (Vec::new(), None),
    ] {
        let to = answers_with(answer.clone()).await;
        let connected = tokio::time::timeout(Duration::from_millis(500), Link::connect(&to, 0)).await;
        let trouble = connected.ok().and_then(Result::err);
        let start = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
        assert_eq!(trouble, expected, "{start:?}");
        assert!(!trouble.is_some_and(|it| it.to_string().contains("s3cr3t")));
    }
}

#[tokio::test]
async fn nobody_listens_is_unreachable_and_the_next_host_is_tried_next() {
    let there = answers_with(error("57P03")).await;
    let Some(place::Address::Tcp(_, port)) = there.hosts.first() else { panic!() };
    let to = Database::parse(&format!("postgres://u@127.0.0.1:1,127.0.0.1:{port}/d")).unwrap();
    assert_eq!(Link::connect(&to, 0).await.err(), Some(Trouble::Unreachable));
    assert_eq!(Link::connect(&to, 1).await.err(), Some(Trouble::Busy));
    assert_eq!(Link::connect(&to, 2).await.err(), Some(Trouble::Unreachable));
}

#[tokio::test]
async fn beyond_this_machine_nothing_is_said_in_clear() {
    let plain = answers_with(b"N".to_vec()).await;
    for (mode, expected) in [("require", Trouble::NoTls), ("verify-full", Trouble::NoTls)] {
        let url = format!("{}?sslmode={mode}", plain.shown());
        let to = Database::parse(&url).unwrap();
        assert_eq!(Link::connect(&to, 0).await.err(), Some(expected));
    }
    let nonsense = answers_with(b"S and then no TLS at all".to_vec()).await;
    let to = Database::parse(&format!("{}?sslmode=require", nonsense.shown())).unwrap();
    assert!(matches!(Link::connect(&to, 0).await.err(), Some(Trouble::Tls(_))));
}
