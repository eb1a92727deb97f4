//! What a daemon costs while nobody asks anything.

use std::{fs, net::TcpListener, time::Duration};

use lovable::simulate::{Script, Shape, Simulated};
use tokio::time::sleep;

use super::{looking, until_up, url};
use crate::proof::{Table, is_full, times};

/// Processor time in seconds and wake-ups (voluntary context switches) of all threads.
pub(crate) fn spent(pid: u32) -> (f64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|it| it.parse::<u64>().unwrap()).sum();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let switches = tasks.flatten().map(|it| {
        let status = fs::read_to_string(it.path().join("status")).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    });
    // A tick is 10 ms for every process, on every Linux.
    (ticks as f64 / 100.0, switches.sum())
}

/// Its figures mean something in the long run only: a release build, when
/// strangers that do not answer are asked but once a minute.
#[tokio::test]
async fn an_idle_daemon_uses_next_to_nothing() {
    let seconds = times(1, 30) as u64;
    let mut servers = Vec::new();
    for shape in Shape::ALL {
        servers.push(Simulated::start(*shape, Script::default()).await.unwrap());
    }
    // Silent, so that they are asked again and again at first, as real ones are.
    let others: Vec<_> = (0..50).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let daemon = looking().start().await;
    for server in &servers {
        until_up(&daemon, &url(server.port())).await;
    }
    sleep(Duration::from_secs(times(0, 100) as u64)).await;
    let (busy, woken) = spent(daemon.pid());
    sleep(Duration::from_secs(seconds)).await;
    let (still_busy, still_woken) = spent(daemon.pid());
    let share = (still_busy - busy) / seconds as f64 * 100.0;
    let mut table =
        Table::new("idle, with 5 servers and 50 other listeners", &["what", "measured", "promised"]);
    table.row(&[&"% of one core", &format!("{share:.2}"), &"0.20"]);
    table.row(&[&"wake-ups per second", &((still_woken - woken) / seconds), &"-"]);
    table.show();
    drop(others);
    assert!(!is_full() || share < 0.2, "{share} % of one core");
}
