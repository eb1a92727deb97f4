//! What of the machine is in use, kept up to date only while requests run or somebody looks: a
//! machine is not woken for it, and a GPU may sleep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::Notify, time::Instant};

use super::{Event, Housekeeping};
use crate::hardware::{Gauge, Hardware};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);
/// For so many looks more after the last one who wanted to know.
const LOOKS: u32 = 5;
/// How soon after the first look the second one follows, for how busy processors are is told
/// by two; the system counts their time in hundredths of a second.
const SECOND: Duration = Duration::from_millis(200);
/// How long somebody who looks first is kept waiting at the most: drivers may be slow. How busy
/// processors are is told from the second look on, which nobody waits for.
const FIRST: Duration = Duration::from_millis(50);
/// How long somebody waits for both looks.
const BOTH: Duration = Duration::from_millis(300);

/// What was seen last.
#[derive(Default)]
pub(super) struct Seen {
    last: ArcSwapOption<Hardware>,
    wanted: AtomicBool,
    /// Somebody wants to know.
    pub(super) call: Notify,
    /// It is known now.
    read: Notify,
}

impl Seen {
    /// How busy the machine is, where somebody has looked within the last second.
    pub(super) fn last(&self) -> Option<Arc<Hardware>> {
        self.last.load_full()
    }
}

impl Housekeeping {
    /// How busy the machine is, as it was seen within the last second. Whoever looks first
    /// waits for a moment; `None` if that was not enough.
    pub async fn hardware(&self) -> Option<Arc<Hardware>> {
        if !self.hardware.wanted.swap(true, Ordering::Relaxed) {
            self.hardware.call.notify_one();
        }
        let read = self.hardware.read.notified();
        if self.hardware.last().is_none() {
            let _ = tokio::time::timeout(FIRST, read).await;
        }
        self.hardware.last()
    }

    /// The same with how busy the processors are, for whoever comes too seldom to be shown that
    /// otherwise, and has the time for a second look.
    pub async fn hardware_at_work(&self) -> Option<Arc<Hardware>> {
        let until = Instant::now() + BOTH;
        while self.hardware().await.is_none_or(|it| it.processor_percent.is_none()) {
            let read = self.hardware.read.notified();
            if tokio::time::timeout_at(until, read).await.is_err() {
                break;
            }
        }
        self.hardware.last()
    }

    /// The same, as far as it is known already.
    pub fn hardware_seen(&self) -> Option<Arc<Hardware>> {
        self.hardware.last()
    }

    fn wants_hardware(&self) -> bool {
        self.hardware.wanted.swap(false, Ordering::Relaxed) || !self.running.is_empty() || self.is_followed()
    }

    /// Looks at the machine whenever that is wanted, until dropped.
    pub async fn watch_hardware(self: Arc<Self>) {
        let mut gauge = None;
        let mut idle = LOOKS;
        loop {
            idle = if self.wants_hardware() { 0 } else { idle + 1 };
            if idle > LOOKS {
                self.hardware.last.store(None);
                // A driver that is held open may keep its card awake.
                gauge = None;
                idle = 0;
                while !self.wants_hardware() {
                    self.hardware.call.notified().await;
                }
            }
            let began = Instant::now();
            let pause = if gauge.is_none() { SECOND } else { EVERY };
            let look = move || {
                let mut gauge: Gauge = gauge.unwrap_or_default();
                let seen = gauge.read();
                (gauge, seen)
            };
            // A driver may take its time.
            let Ok((kept, seen)) = tokio::task::spawn_blocking(look).await else { return };
            gauge = Some(kept);
            let seen = Arc::new(seen);
            self.running.see(seen.reading());
            self.hardware.last.store(Some(seen.clone()));
            self.hardware.read.notify_waiters();
            self.tell(|| Event::Hardware(seen));
            tokio::time::sleep_until(began + pause).await;
        }
    }
}
