//! What of the machine is in use, kept up to date only while somebody looks: a machine is not woken for it, and a GPU may sleep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::Instant};

use super::Housekeeping;
use crate::hardware::{Gauge, Hardware};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// For so many looks more after the last one who wanted to know.
const LOOKS: u32 = 5;
/// How long somebody who looks first is kept waiting for the first reading.
const FIRST: Duration = Duration::from_millis(300);

/// What was seen last.
#[derive(Default)]
pub(super) struct Seen {
    last: ArcSwapOption<Hardware>,
    wanted: AtomicBool,
    /// Somebody wants to know.
    call: Notify,
    /// It is known now.
    read: Notify,
}

impl Housekeeping {
    /// How busy the machine is, as it was seen within the last second. Whoever looks first
    /// waits for a moment; `None` if that was not enough.
    pub async fn hardware(&self) -> Option<Arc<Hardware>> {
        let read = self.hardware.read.notified();
        if !self.hardware.wanted.swap(true, Ordering::Relaxed) {
            self.hardware.call.notify_one();
        }
        if self.hardware.last.load().is_none() {
            let _ = tokio::time::timeout(FIRST, read).await;
        }
        self.hardware.last.load_full()
    }

    /// Looks at the machine whenever that is wanted, until dropped.
    pub async fn watch_hardware(self: Arc<Self>) {
        let mut gauge = None;
        let mut idle = LOOKS;
        loop {
            let wanted = self.hardware.wanted.swap(false, Ordering::Relaxed);
            idle = if wanted { 0 } else { idle + 1 };
            if idle > LOOKS {
                self.hardware.last.store(None);
                // A driver that is held open may keep its card awake.
                gauge = None;
                idle = 0;
                while !self.hardware.wanted.load(Ordering::Relaxed) {
                    self.hardware.call.notified().await;
                }
            }
            let began = Instant::now();
            let look = move || {
                let mut gauge: Gauge = gauge.unwrap_or_default();
                let seen = gauge.read();
                (gauge, seen)
            };
            // A driver may take its time.
            let Ok((kept, seen)) = tokio::task::spawn_blocking(look).await else { return };
            gauge = Some(kept);
            self.hardware.last.store(Some(Arc::new(seen)));
            self.hardware.read.notify_waiters();
            tokio::time::sleep_until(began + EVERY).await;
        }
    }
}
