//! How soon what happens in the network is known.

use std::time::Duration;

use lovable::simulate::Shape;
use tokio::time::Instant;

use super::{FAR, at_home, cabled, listening, until, url};
use crate::{
    caller::request,
    proof::{Table, is_full, times},
};

/// Milliseconds, sorted.
#[derive(Default)]
struct Took(Vec<u128>);

impl Took {
    fn add(&mut self, since: Instant) {
        self.0.push(since.elapsed().as_millis());
        self.0.sort_unstable();
    }

    fn at(&self, percent: usize) -> u128 {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn row(&self, table: &mut Table, what: &str, promised: &str) {
        table.row(&[&what, &self.0.len(), &self.at(50), &self.at(95), &promised]);
    }
}

#[tokio::test]
async fn what_appears_and_what_is_lost_is_known_soon() {
    at_home("times::what_appears_and_what_is_lost_is_known_soon", async {
        let far = cabled().await;
        let daemon = listening().discovery(&format!("trust = [\"{FAR}\"]\n")).start().await;
        let (mut appears, mut lost, mut dies) = (Took::default(), Took::default(), Took::default());
        for round in 0..times(5, 100) {
            // Each round another port: a server that was never there.
            let (port, name) = (20_000 + round as u16, format!("desk {round}"));
            let there = url(FAR, port);
            far.serve(Shape::Vllm, port).await;
            let since = Instant::now();
            far.announce("_vllm", &name, port).await;
            until(&daemon, &there, "is usable", |it| it["standing"] == "up" && it["admission"] == "open")
                .await;
            appears.add(since);
            // Anywhere between two looks at it.
            tokio::time::sleep(Duration::from_millis(300 + 37 * (round as u64 % 20))).await;
            far.unplug().await;
            let since = Instant::now();
            until(&daemon, &there, "is gone", |it| it["standing"] == "down").await;
            lost.add(since);
            far.plug().await;
            let since = Instant::now();
            until(&daemon, &there, "is back", |it| it["standing"] == "up").await;
            dies.add(since);
            far.withdraw("_vllm", &name).await;
            let id = until(&daemon, &there, "is known", |_| true).await["id"].as_str().unwrap().to_owned();
            let path = format!("/lovable/v1/servers/{id}");
            let forgotten = daemon.caller().send(request("DELETE", &path, "".into(), &[])).await.unwrap();
            assert!(forgotten.status < 300, "{}", forgotten.text());
        }
        let mut table =
            Table::new("servers of the network, ms", &["what", "rounds", "p50", "p95", "promised"]);
        appears.row(&mut table, "announced until usable", "1000");
        lost.row(&mut table, "cable pulled until out of use", "2000");
        dies.row(&mut table, "plugged in until usable", "-");
        table.show();
        assert!(!is_full() || (appears.at(50) < 1_000 && lost.at(50) < 2_000), "{}", table.text());
    })
    .await;
}
