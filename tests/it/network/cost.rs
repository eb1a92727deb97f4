//! What listening to the network costs while nothing happens there, and that without it
//! nothing is said.

use std::time::Duration;

use lovable::simulate::Shape;
use tokio::time::sleep;

use super::{FAR, at_home, cabled, listening, until, url};
use crate::{
    daemon::Options,
    discovery::idle::spent,
    proof::{Table, is_full, times},
};

#[tokio::test]
async fn listening_costs_next_to_nothing() {
    at_home("cost::listening_costs_next_to_nothing", async {
        let far = cabled().await;
        far.serve(Shape::Vllm, 8000).await;
        let trust = format!("trust = [\"{FAR}\"]\n");
        let mut table = Table::new(
            "idle, with a server of the network",
            &["multicast DNS", "% of one core", "wake-ups per second", "promised %"],
        );
        let off = Options::alone().start().await;
        let on = listening().discovery(&trust).start().await;
        far.announce("_vllm", "desk", 8000).await;
        until(&on, &url(FAR, 8000), "is up", |it| it["standing"] == "up").await;
        sleep(Duration::from_secs(times(5, 60) as u64)).await;
        // Both at once: what they take they take by themselves.
        let daemons = [("off", &off), ("on", &on)];
        let before = daemons.map(|(_, it)| spent(it.pid()));
        let seconds = times(20, 600) as u64;
        sleep(Duration::from_secs(seconds)).await;
        let mut shares = Vec::new();
        for ((word, daemon), (busy, woken)) in daemons.into_iter().zip(before) {
            let (still_busy, still_woken) = spent(daemon.pid());
            let share = (still_busy - busy) / seconds as f64 * 100.0;
            let wakes = (still_woken - woken) as f64 / seconds as f64;
            table.row(&[&word, &format!("{share:.2}"), &format!("{wakes:.1}"), &"0.30"]);
            shares.push(share);
        }
        table.show();
        assert!(!is_full() || shares[1] < 0.3, "{shares:?}");
    })
    .await;
}
