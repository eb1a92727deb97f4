//! Lookups that are added, changed and taken out while the daemon runs, of every sort.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_every_sort_come_and_go_without_a_restart() {
    in_fleet("edits::lookups_of_every_sort_come_and_go_without_a_restart", async {
        let far = with_servers(4, Duration::ZERO).await;
        let mut dns = Dns::new(&far);
        // One by SRV, two by their addresses, one by DNS-SD.
        let mut lines = format!("host-record=node-0.fleet.test,{}\n", ip(0));
        lines += &format!("srv-host={SERVICE},node-0.fleet.test,{},0,0\n", port(0));
        lines += &format!("host-record=pool.fleet.test,{}\nhost-record=pool.fleet.test,{}\n", ip(1), ip(2));
        lines += &format!("ptr-record=_llm._tcp.fleet.test,desk._llm._tcp.fleet.test\nhost-record=desk.fleet.test,{}\n", ip(3));
        lines += &format!("srv-host=desk._llm._tcp.fleet.test,desk.fleet.test,{},0,0\n", port(3));
        lines += "txt-record=desk._llm._tcp.fleet.test,trust=yes,zone=machine\n";
        dns.say(&lines).await;
        // Both servers of the pool have the same port.
        far.serve_slowly(Shape::Vllm, 9000, Duration::ZERO).await;
        let daemon = listing(&lookup()).start().await;
        trust(&daemon);
        let urls = |servers: &[Value]| {
            let mut urls: Vec<String> = servers.iter().map(|it| it["url"].as_str().unwrap().to_owned()).collect();
            urls.sort();
            urls
        };
        assert_eq!(urls(&until_open(&daemon, 1).await), [url(0)]);

        let more = |name: &str, rest: &str| {
            format!("name = \"{name}\"\nresolver = \"{RESOLVER}\"\nttl_min = \"1s\"\n{rest}\n[[discovery.dns]]\nname = \"{SERVICE}\"")
        };
        edit(&daemon, &format!("name = \"{SERVICE}\""), &more("pool.fleet.test", "port = 9000"));
        let pool = [format!("http://{}:9000", ip(1)), format!("http://{}:9000", ip(2))];
        assert_eq!(urls(&until_open(&daemon, 3).await), [url(0), pool[0].clone(), pool[1].clone()]);
        edit(&daemon, &format!("name = \"{SERVICE}\""), &more("_LLM._tcp.Fleet.test.", ""));
        let servers = until_open(&daemon, 4).await;
        assert!(urls(&servers).contains(&url(3)), "{servers:#?}");
        // What stands beside a record is nobody's word.
        assert!(servers.iter().all(|it| it["zone"] == "lan"), "{servers:#?}");

        // The port is another, and then the lookup is taken out.
        edit(&daemon, "port = 9000", "port = 9001");
        until_open(&daemon, 2).await;
        edit(&daemon, "port = 9001", "port = 9000");
        until_open(&daemon, 4).await;
        let pool = more("pool.fleet.test", "port = 9000");
        edit(&daemon, pool.trim_end_matches(&format!("name = \"{SERVICE}\"")), "");
        until_open(&daemon, 2).await;
        // Without the rule nobody is trusted, and a rule for the network will do as well.
        edit(&daemon, "trust = [\"*.fleet.test\"]", "trust = [\"*.other.test\"]");
        until(&daemon, "nobody is trusted", |all| all.iter().all(|it| it["admission"] == "untrusted")).await;
        edit(&daemon, "trust = [\"*.other.test\"]", "trust = [\"10.77.0.0/24\"]");
        until_open(&daemon, 2).await;
        let lookups = daemon.caller().get("/lovable/v1/status").await.json()["lookups"].clone();
        assert_eq!(lookups.as_array().map(Vec::len), Some(2), "{lookups}");
    })
    .await;
}
