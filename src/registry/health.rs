//! The standing of one server: strikes, pauses and trials.
//!
//! ```text
//!        strike           third strike in a row, or gone
//!   up ─────────▶ suspect ─────────────────────────────▶ down ◀─┐ strike, once the
//!    ▲               │ good probe                          │    │ pause is over
//!    │ answer        ▼                                     ▼    │
//!    └───────────── trial ◀──────── good probe, pause over ┴────┘
//! ```
//!
//! A good probe disproves what a probe can see: after a refused connection or a
//! silent probe it brings a server straight back to up. It proves nothing about
//! a server that lists its models and fails at requests; such a server is
//! `hollow`, and only an answered request brings it back.

use std::time::{Duration, Instant};

use crate::{
    fault::{Cause, Fault, Stage},
    registry::Standing,
};

/// The third strike in a row takes a server out: one is chance, two are a
/// restart seen twice.
const STRIKES: u32 = 3;

/// A prompt that breaks every server is asked a few times by an impatient
/// caller. Whoever fails more often than that without one good answer between
/// is broken itself.
const POISONED: u32 = 2 * STRIKES;

/// For so long no request tries a server that answers nothing: each would wait for it in vain.
/// A probe finds out sooner, and at nobody's cost.
const UNRESPONSIVE: Duration = Duration::from_secs(60);

/// Who saw a server fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    Probe,
    Request,
}

#[derive(Clone, Debug)]
pub(super) struct Health {
    pub(super) standing: Standing,
    /// When the pause is over, while down; `None` while something else is there.
    pub(super) trial_at: Option<Instant>,
    /// Nobody listened, or nothing answered, when it was looked at last.
    pub(super) gone: bool,
    strikes: u32,
    /// How often it went down since it was up; the pause grows with it.
    pauses: u32,
    hollow: bool,
    poisoned: u32,
}

impl Health {
    pub(super) fn new(standing: Standing) -> Self {
        Self { standing, trial_at: None, gone: false, strikes: 0, pauses: 0, hollow: false, poisoned: 0 }
    }

    /// As it comes back from the store: nothing known is lost, nothing is believed.
    pub(super) fn restored(standing: Standing, now: Instant) -> Self {
        match standing {
            Standing::Up | Standing::Suspect | Standing::Trial => Self::new(Standing::Suspect),
            Standing::Down => Self { trial_at: Some(now), ..Self::new(Standing::Down) },
        }
    }

    /// Whether an answered request would change nothing.
    pub(super) fn is_spotless(&self) -> bool {
        self.standing == Standing::Up && self.strikes == 0 && self.poisoned == 0
    }

    pub(super) fn strike(&mut self, fault: &Fault, witness: Witness, now: Instant, jitter: f64) {
        let unresponsive = fault.cause == Cause::Unresponsive;
        let gone = unresponsive || matches!(fault.cause, Cause::Refused | Cause::Unreachable);
        if gone {
            self.gone = true;
            self.hollow = false;
        } else if witness == Witness::Request && fault.stage != Stage::Connect && !self.gone {
            // Requests that die with their process say nothing about the next process.
            self.hollow = true;
        }
        if self.standing == Standing::Down && self.trial_at.is_none_or(|at| at > now) {
            // Requests that were under way when it went down: the pause is for all of them.
            return;
        }
        self.strikes = self.strikes.saturating_add(1);
        let on_parole = self.pauses > 0 && matches!(self.standing, Standing::Trial | Standing::Down);
        if gone || on_parole || self.strikes >= STRIKES {
            self.rest(now, jitter);
            if unresponsive {
                self.trial_at = Some(now + UNRESPONSIVE);
            }
        } else {
            self.standing = Standing::Suspect;
        }
    }

    /// It did not take a connection, which is no more than a sign.
    pub(super) fn doubt(&mut self) {
        if self.standing == Standing::Up {
            self.standing = Standing::Suspect;
        }
    }

    /// It takes connections as before: what was doubted for that is as it was.
    pub(super) fn reassure(&mut self) {
        if self.standing == Standing::Suspect && self.strikes == 0 && self.poisoned == 0 {
            self.standing = Standing::Up;
        }
    }

    /// Its listener is gone; the next one is another process.
    pub(super) fn vanish(&mut self, now: Instant) {
        self.gone = true;
        self.hollow = false;
        if self.standing != Standing::Down || self.trial_at.is_none() {
            self.rest(now, 0.0);
        }
    }

    /// Something else answers at its address.
    pub(super) fn displace(&mut self) {
        self.gone = true;
        self.hollow = false;
        self.standing = Standing::Down;
        self.trial_at = None;
    }

    /// The machine has slept: what went wrong around that says nothing, and no pause holds.
    pub(super) fn rouse(&mut self, now: Instant) {
        (self.hollow, self.strikes, self.pauses, self.poisoned) = (false, 0, 0, 0);
        self.trial_at = self.trial_at.map(|_| now);
    }

    /// Another process listens there now: what the last one did is no longer held against it.
    pub(super) fn renew(&mut self) {
        self.hollow = false;
    }

    /// A probe went well.
    pub(super) fn seen(&mut self, now: Instant) {
        self.gone = false;
        if !self.hollow {
            *self = Self { poisoned: self.poisoned, ..Self::new(Standing::Up) };
            return;
        }
        let resting = self.standing == Standing::Down && self.trial_at.is_some_and(|at| at > now);
        if !resting {
            self.standing = Standing::Trial;
            self.trial_at = None;
        }
    }

    /// A request was answered. Says whether to believe it: an answer that ends
    /// while the server goes away must not bring it back, so the server is to
    /// be looked at first.
    pub(super) fn answered(&mut self) -> bool {
        if !self.gone {
            *self = Self::new(Standing::Up);
        }
        !self.gone
    }

    /// The last strike came from a request that failed alike at every server it
    /// was sent to. The server stays in use, on suspicion: the strike is gone
    /// with its next answer, and stands if there is none.
    pub(super) fn take_back(&mut self) {
        self.poisoned = self.poisoned.saturating_add(1);
        if self.gone || self.poisoned > POISONED || self.standing == Standing::Up {
            return;
        }
        self.standing = Standing::Suspect;
        self.trial_at = None;
        self.strikes = self.strikes.min(STRIKES - 1);
        self.pauses = self.pauses.saturating_sub(1);
    }

    fn rest(&mut self, now: Instant, jitter: f64) {
        self.standing = Standing::Down;
        self.pauses = self.pauses.saturating_add(1);
        // Jitter only shortens, so that no pause is longer than is documented.
        self.trial_at = Some(now + pause(self.pauses).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0));
    }
}

/// 1, 2, 4 … 60 s for the first, second, third … time.
pub(super) fn pause(times: u32) -> Duration {
    let seconds = 1u64.checked_shl(times.saturating_sub(1).min(6)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds.min(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALLED: Fault = Fault { stage: Stage::Content, cause: Cause::Stalled, status: None };
    const REFUSED: Fault = Fault { stage: Stage::Connect, cause: Cause::Refused, status: None };
    const UNRESPONSIVE: Fault = Fault { stage: Stage::Content, cause: Cause::Unresponsive, status: None };
    const SILENT: Fault = Fault { stage: Stage::Head, cause: Cause::FirstTokenTimeout, status: None };

    /// Runs a story: `r` a request fails, `x` one is refused, `u` one finds that nothing answers, `p` a probe is
    /// silent, `s` a probe goes well, `a` a request is answered, `t` a strike is
    /// taken back, `v` the listener vanishes, `d` something else is there,
    /// `n` another process listens, `.` a second passes.
    fn check(story: &str, expected: Standing) {
        let mut now = Instant::now();
        let mut health = Health::new(Standing::Up);
        for event in story.chars() {
            match event {
                'r' => health.strike(&STALLED, Witness::Request, now, 0.0),
                'x' => health.strike(&REFUSED, Witness::Request, now, 0.0),
                'u' => health.strike(&UNRESPONSIVE, Witness::Request, now, 0.0),
                'p' => health.strike(&SILENT, Witness::Probe, now, 0.0),
                's' => health.seen(now),
                'a' => drop(health.answered()),
                't' => health.take_back(),
                'v' => health.vanish(now),
                'd' => health.displace(),
                'n' => health.renew(),
                '.' => now += Duration::from_secs(1),
                other => panic!("no event {other}"),
            }
        }
        assert_eq!(health.standing, expected, "after {story}");
    }

    #[test]
    fn the_third_strike_takes_it_out() {
        check("r", Standing::Suspect);
        check("rr", Standing::Suspect);
        check("rrr", Standing::Down);
        check("ppp", Standing::Down);
        check("rarar", Standing::Suspect);
    }

    #[test]
    fn a_refused_connection_takes_it_out_at_once() {
        check("x", Standing::Down);
        check("u", Standing::Down);
        check("v", Standing::Down);
        check("d", Standing::Down);
    }

    #[test]
    fn a_good_probe_brings_back_what_probes_took_out() {
        check("ps", Standing::Up);
        check("ppps", Standing::Up);
        check("xs", Standing::Up);
        check("us", Standing::Up);
        check("uups", Standing::Up);
        check("vs", Standing::Up);
        check("rxs", Standing::Up);
    }

    #[test]
    fn a_good_probe_does_not_bring_back_what_fails_at_requests() {
        check("rs", Standing::Trial);
        check("rrrs", Standing::Down);
        check("rrr.s", Standing::Trial);
        check("rrr.ssss", Standing::Trial);
        check("rrr.sa", Standing::Up);
        check("rrr.sr", Standing::Down);
        check("rrr.sr.s", Standing::Down);
        check("rrr.sr..s", Standing::Trial);
        check("rsrs", Standing::Trial);
        check("rsrsr", Standing::Down);
        check("rns", Standing::Up);
    }

    #[test]
    fn an_answer_that_ends_after_the_listener_left_does_not_bring_it_back() {
        check("va", Standing::Down);
        check("vasa", Standing::Up);
    }

    #[test]
    fn one_bad_prompt_takes_nobody_out() {
        check("rtrtrt", Standing::Suspect);
        check("rtrtrta", Standing::Up);
        check("rtrtrtr", Standing::Down);
    }

    #[test]
    fn a_broken_server_does_not_hide_behind_bad_prompts() {
        check(&"rt".repeat(12), Standing::Down);
        check("xt", Standing::Down);
    }

    #[test]
    fn faults_of_requests_that_were_under_way_do_not_lengthen_the_pause() {
        let now = Instant::now();
        let mut health = Health::new(Standing::Up);
        for _ in 0..20 {
            health.strike(&STALLED, Witness::Request, now, 0.0);
        }
        assert_eq!(health.trial_at, Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn nobody_is_sent_to_try_one_that_answers_nothing() {
        let now = Instant::now();
        let mut health = Health::new(Standing::Up);
        health.strike(&UNRESPONSIVE, Witness::Request, now, 0.0);
        health.strike(&SILENT, Witness::Probe, now + Duration::from_secs(2), 0.0);
        assert_eq!(health.trial_at, Some(now + Duration::from_secs(60)));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_jitter_shortens_them() {
        let seconds: Vec<u64> = (1..=9).map(|it| pause(it).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX).as_secs(), 60);
        let now = Instant::now();
        let mut health = Health::new(Standing::Up);
        health.strike(&REFUSED, Witness::Request, now, 1.0);
        assert_eq!(health.trial_at, Some(now + Duration::from_millis(750)));
    }
}
