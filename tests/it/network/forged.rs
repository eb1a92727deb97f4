//! Records that somebody made up.

use std::{fs, time::Duration};

use lovable::simulate::{At, Script, Shape, Simulated};
use tokio::time::sleep;

use super::{FAR, FOR_SURE, HOME, at_home, cabled, listening, packet::Service, until, url};
use crate::proof::times;

const PORT: u16 = 11434;
/// No usual port, which would be looked at for itself.
const OTHER: u16 = 8123;

/// Memory that a process uses, in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn forged_records_change_nothing() {
    at_home("forged::forged_records_change_nothing", async {
        let far = cabled().await;
        // Whoever is asked at one of these notices.
        let home =
            Simulated::start_at(Shape::Vllm, Script::default(), At::Address(([0, 0, 0, 0], OTHER).into()))
                .await
                .unwrap();
        far.ip("addr add 10.88.0.2/24 dev lan").await;
        far.ip("addr add 169.254.169.254/16 dev lan").await;
        super::ip("addr add 169.254.7.7/16 dev home").await;
        super::ip("route add default via 10.77.0.2 dev home").await;
        far.serve(Shape::Vllm, OTHER).await;
        far.serve(Shape::Ollama, PORT).await;
        let daemon = listening().discovery(&format!("trust = [\"{FAR}\"]\n")).start().await;
        far.announce("_ollama", "desk", PORT).await;
        let there = url(FAR, PORT);
        until(&daemon, &there, "is up", |it| it["standing"] == "up" && it["admission"] == "open").await;

        let mut packets = Vec::new();
        let nowhere = ["127.0.0.1", HOME, "93.184.216.34", "10.88.0.2", "169.254.169.254", "0.0.0.0"];
        let nobody = ["224.0.0.251", "10.77.0.255", "10.77.0.0", "255.255.255.255", "::1", "fe80::1"];
        for (at, ip) in nowhere.iter().chain(&nobody).enumerate() {
            packets.push(Service::new(&format!("forged {at}"), ip, OTHER).packet());
        }
        let mut cloud = Service::new("cloud", FAR, OTHER);
        (cloud.kind, cloud.text) = ("_saturn", b"\x10deployment=cloud".to_vec());
        packets.push(cloud.packet());
        let mut giant = Service::new("giant", "10.88.0.2", OTHER);
        giant.text = [&[250u8][..], &[b'x'; 250]].concat().repeat(30);
        packets.push(giant.packet());
        for name in [&b"\x1b[2J\x1b[31mred"[..], b"two\nlines", b"\x07\x00", b"\xff\xfe\xfd", &[b'n'; 63]] {
            let mut odd = Service::new("odd", "10.88.0.2", OTHER);
            odd.name = name.to_vec();
            packets.push(odd.packet());
        }
        // Half packets and no packets.
        let whole = Service::new("torn", FAR, OTHER).packet();
        packets.extend((0..whole.len()).step_by(3).map(|end| whole[..end].to_vec()));
        far.say(packets).await;
        sleep(FOR_SURE).await;
        let servers = daemon.servers().await;
        assert_eq!(servers.len(), 1, "{servers:#?}");
        assert_eq!(home.counts().connections, 0, "this machine was asked by the network's word");
        assert_eq!(far.got(OTHER).await.connections, 0);

        // Thousands of names at addresses where nobody is.
        let before = memory(daemon.pid());
        let names = (0..times(3_000, 20_000)).map(|number| {
            let ip = format!("10.77.0.{}", 10 + number % 200);
            Service::new(&format!("nobody {number}"), &ip, 3000 + (number % 1000) as u16).packet()
        });
        far.say(names.collect()).await;
        sleep(FOR_SURE).await;
        let after = memory(daemon.pid());
        assert!(after < before + 48 * 1024, "{before} KiB before and {after} KiB after");
        let servers = daemon.servers().await;
        assert_eq!(servers.len(), 1, "{servers:#?}");
        assert_eq!(servers[0]["admission"], "open");
        until(&daemon, &there, "is up", |it| it["standing"] == "up").await;
        assert!(!daemon.log().contains('\u{1b}') && !daemon.log().contains('\u{7}'));
        // And whoever is really there is found all the same, after the silence at the latest.
        sleep(Duration::from_secs(times(0, 60) as u64)).await;
        drop(home);
    })
    .await;
}
