//! Resolvers that are killed, silent, or lie: what was listed last stays in use, and it is said.

use std::net::SocketAddr;

use super::*;
use crate::proof::{Table, is_full};

const FEW: usize = 3;

fn few() -> Vec<Srv> {
    (0..FEW).map(|number| Srv { number, priority: 0, weight: 1 }).collect()
}

/// Lines of dnsmasq for so many servers at `ip`, which has as many addresses as there is `|it|`.
fn lines(many: usize, ip: impl Fn(usize) -> String) -> String {
    let one = |it| {
        format!("host-record=x{it}.fleet.test,{}\nsrv-host={SERVICE},x{it}.fleet.test,8000,0,1\n", ip(it))
    };
    (0..many).map(one).collect()
}

async fn is_served(daemon: &Daemon, why: &str) {
    let answer = daemon.caller().chat("sim", false).await.unwrap();
    assert_eq!(answer.status, 200, "{why}: {}", answer.text());
    let servers = daemon.servers().await;
    let up = servers.iter().filter(|it| it["admission"] == "open" && it["standing"] == "up");
    assert_eq!(up.count(), FEW, "{why}: {servers:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_fails_or_lies_changes_nothing_and_is_told_of() {
    let name = "trouble::a_resolver_that_fails_or_lies_changes_nothing_and_is_told_of";
    in_fleet(name, async {
        let far = with_servers(FEW, Duration::ZERO).await;
        let mut dns = Dns::new(&far);
        dns.list(&few()).await;
        let daemon = listing(&lookup()).start().await;
        trust(&daemon);
        until_open(&daemon, FEW).await;
        let mut table = Table::new("What a resolver does wrong", &["it", "what is said"]);
        let mut said =
            |what: &str, lookup: &Value| table.row(&[&what, &lookup["trouble"].as_str().unwrap_or("")]);

        // What dnsmasq says, and that there is none.
        let lies = [
            ("has nothing for a moment", String::new(), "has nothing of that name"),
            ("says loopback", lines(2, |it| format!("127.0.0.{}", it + 1)), "none of the 2"),
            ("says this machine", lines(1, |_| "10.77.0.1".to_owned()), "none of the 1"),
            ("says metadata", lines(1, |_| "169.254.169.254".to_owned()), "none of the 1"),
            ("says the internet", lines(3, |it| format!("192.0.2.{it}")), "none of the 3"),
            // Without addresses: dnsmasq (2.90) points to them wrongly where an answer is over 16 KiB.
            (
                "says thousands",
                (0..1400).map(|it| format!("srv-host={SERVICE},x{it}.fleet.test,8000,0,1\n")).collect(),
                "lists 1400",
            ),
        ];
        for (what, lines, words) in lies {
            dns.say(&lines).await;
            said(what, &until_said(&daemon, Some(words)).await);
            is_served(&daemon, what).await;
            dns.list(&few()).await;
            until_said(&daemon, None).await;
        }
        dns.kill().await;
        said("is killed", &until_said(&daemon, Some("the 3 that it listed last stay in use")).await);
        is_served(&daemon, "killed").await;
        let doctor = daemon.ctl(&["doctor", "--json"]).await;
        let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(doctor.contains("\"lookups\"") && doctor.contains("stay in use for now"), "{doctor}");
        assert!(daemon.log().contains("does not go well"), "{}", daemon.log());
        dns.list(&few()).await;
        until_said(&daemon, None).await;
        assert!(daemon.log().contains("goes well again"), "{}", daemon.log());

        // What only others do; the daemon is told to ask them.
        let mut before = RESOLVER.to_owned();
        let mut ask = |at: SocketAddr| {
            let (from, to) = (format!("resolver = \"{before}\""), format!("resolver = \"{at}\""));
            edit(&daemon, &from, &to);
            before = at.to_string();
        };
        let by_hand: [(&str, SocketAddr, &str); 5] = [
            ("says nothing", dns::by_hand(|_| None).await, "does not answer in time"),
            ("fails", dns::by_hand(dns::failed).await, "it answers"),
            ("goes in a circle", dns::by_hand(dns::circle).await, "leads nowhere"),
            ("talks nonsense", dns::by_hand(dns::nonsense).await, "the resolver"),
            ("knows no such name", dns::by_hand(dns::no_such_name).await, "has nothing of that name"),
        ];
        for (what, at, words) in by_hand {
            ask(at);
            said(what, &until_said(&daemon, Some(words)).await);
            is_served(&daemon, what).await;
        }

        // That there is nothing is believed in the end.
        if is_full() {
            until(&daemon, "nobody is left", <[Value]>::is_empty).await;
            said("goes on to know none", &lookup_of(&daemon).await);
        }
        table.show();
    })
    .await;
}
