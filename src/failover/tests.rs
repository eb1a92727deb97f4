//! The main journeys, told step by step.

use super::*;
use crate::{
    fault::{Cause, Stage},
    server::Doing,
};

/// A machine with a clock of its own that writes down its steps in short.
struct Journey {
    machine: Failover,
    start: Instant,
    now: Instant,
}

impl Journey {
    fn of(policy: Policy) -> Self {
        let start = Instant::now();
        Self { machine: Failover::new(policy, start, 7), start, now: start }
    }

    fn stream() -> Self {
        Self::of(Policy::default())
    }

    fn plain() -> Self {
        Self::of(Policy { stream: false, ..Policy::default() })
    }

    fn steps(&mut self) -> String {
        let mut said = Vec::new();
        while let Some(step) = self.machine.poll(self.now) {
            said.push(match step {
                Step::Choose => format!("choose !{:?}", self.machine.tried()),
                Step::Send(AttemptNo(number)) => format!("send {number}"),
                Step::Abort { attempt: AttemptNo(number), fault: None } => format!("abort {number}"),
                Step::Abort { attempt: AttemptNo(number), fault: Some(fault) } => {
                    format!("abort {number}, it {fault}")
                }
                Step::Open => "open".to_owned(),
                Step::Commit => "commit".to_owned(),
                Step::Finish(ending) => format!("finish {ending:?}"),
            });
        }
        said.join("; ").replace('"', "")
    }

    #[track_caller]
    fn expect(&mut self, expected: &str) -> &mut Self {
        assert_eq!(self.steps(), expected);
        self
    }

    fn choose(&mut self, server: &str) -> &mut Self {
        self.machine.on_chosen(Chosen::Server { server: server.into(), loading: false }, self.now);
        self
    }

    fn choose_loading(&mut self, server: &str) -> &mut Self {
        self.machine.on_chosen(Chosen::Server { server: server.into(), loading: true }, self.now);
        self
    }

    fn nobody(&mut self) -> &mut Self {
        self.machine.on_chosen(Chosen::Nobody, self.now);
        self
    }

    fn never(&mut self) -> &mut Self {
        self.machine.on_chosen(Chosen::Never, self.now);
        self
    }

    fn later(&mut self, seconds: u64) -> &mut Self {
        self.machine.on_chosen(Chosen::Later(self.now + Duration::from_secs(seconds)), self.now);
        self
    }

    fn connect(&mut self, attempt: u32) -> &mut Self {
        self.machine.on_connected(AttemptNo(attempt));
        self
    }

    fn content(&mut self, attempt: u32) -> &mut Self {
        self.machine.on_first_token(AttemptNo(attempt), self.now);
        self
    }

    fn end(&mut self, attempt: u32) -> &mut Self {
        self.machine.on_end(AttemptNo(attempt));
        self
    }

    /// Nobody listens there.
    fn absent(&mut self, attempt: u32) -> &mut Self {
        let fault = Fault::new(Stage::Connect, Cause::Refused);
        self.machine.on_fault(AttemptNo(attempt), &fault, self.now);
        self
    }

    fn fault(&mut self, attempt: u32, cause: Cause) -> &mut Self {
        self.machine.on_fault(AttemptNo(attempt), &Fault::new(Stage::Head, cause), self.now);
        self
    }

    fn wait(&mut self, wait: Duration) -> &mut Self {
        self.now += wait;
        self
    }

    /// To the moment that `poll_timeout` names.
    fn wait_as_told(&mut self) -> &mut Self {
        self.now = self.now.max(self.machine.poll_timeout().expect("it waits for something"));
        self
    }

    fn passed(&self) -> Duration {
        self.now - self.start
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stream_is_committed_by_its_first_content() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).expect("");
    it.content(1).expect("commit").wait(SECOND).content(1).expect("").end(1).expect("finish Delivered");
    assert_eq!(it.machine.poll_timeout(), None);
    assert!(it.machine.is_over());
}

#[test]
fn a_plain_answer_is_committed_when_it_is_whole() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).content(1).expect("");
    it.end(1).expect("commit; finish Delivered");
}

#[test]
fn second_server_answers_when_the_first_refuses() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.fault(1, Cause::Refused).expect("choose ![a]").choose("b").expect("send 2");
    it.content(2).expect("commit").end(2).expect("finish Delivered");
    assert_eq!(it.machine.attempts(), 2);
}

#[test]
fn a_plain_answer_that_breaks_in_its_middle_comes_whole_from_the_next_server() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).content(1).expect("");
    it.fault(1, Cause::EarlyEnd).expect("choose ![a]").choose("b").expect("send 2");
    it.end(2).expect("commit; finish Delivered");
}

#[test]
fn a_plain_answer_that_is_too_long_to_hold_is_committed_early() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).content(1).expect("");
    it.machine.on_bound_reached(AttemptNo(1), it.now);
    it.expect("commit").fault(1, Cause::Reset).expect("choose ![a]").never().expect("finish CutShort");
}

#[test]
fn an_answer_that_was_begun_goes_on_elsewhere_and_is_committed_once() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::EarlyEnd).expect("choose ![a]").choose("b").expect("send 2");
    it.content(2).expect("").fault(2, Cause::Reset).expect("choose ![a, b]").choose("c").expect("send 3");
    it.end(3).expect("finish Resumed");
}

#[test]
fn an_answer_that_nobody_can_go_on_with_is_cut_short_at_once() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::EarlyEnd).expect("choose ![a]").never().expect("finish CutShort");
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::Internal).expect("finish CutShort");
}

#[test]
fn the_rest_of_an_answer_comes_from_a_third_server_while_the_second_hangs() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::EarlyEnd).expect("choose ![a]").choose("b").expect("send 2").connect(2);
    it.wait(Policy::default().patience.first_token)
        .expect("abort 2, it gave no first token in time; choose ![a, b]");
    it.choose("c").expect("send 3").content(3).end(3).expect("finish Resumed");
}

#[test]
fn a_server_that_died_in_its_answer_may_go_on_with_it_after_a_rest() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::Reset).expect("choose ![a]").choose("b").expect("send 2").content(2).expect("");
    it.fault(2, Cause::Reset).expect("choose ![a, b]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("a").expect("send 3").end(3).expect("finish Resumed");
}

#[test]
fn whoever_waits_for_the_rest_of_an_answer_waits_with_a_deadline_of_its_own() {
    let patience = Patience { load: SECOND * 1000, ..Patience::default() };
    let mut it = Journey::of(Policy { caller: Some(SECOND), patience, ..Policy::default() });
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).content(1).expect("commit");
    for _ in 0..100 {
        it.wait(SECOND).expect("");
        it.machine.on_token(AttemptNo(1), it.now);
    }
    it.fault(1, Cause::Reset).expect("choose ![a]").choose_loading("b").expect("send 2").connect(2);
    it.expect("").wait_as_told().expect("abort 2; finish CutShort");
    assert_eq!(it.passed(), SECOND * 100 + patience.before_commit);
}

#[test]
fn a_commit_that_was_not_handed_out_is_taken_back() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).fault(1, Cause::Reset);
    it.expect("choose ![a]").choose("b").expect("send 2").content(2).expect("commit");
}

#[test]
fn a_waiting_stream_is_opened_once() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).expect("");
    it.wait(SECOND * 5).expect("open").wait(SECOND * 5).expect("");
    assert_eq!(it.machine.phase(), Phase::Opened);
    it.fault(1, Cause::Status).expect("choose ![a]").choose("b").expect("send 2");
    it.content(2).expect("commit").end(2).expect("finish Delivered");
}

#[test]
fn a_waiting_plain_request_is_not_opened() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).wait(SECOND * 20).expect("");
}

#[test]
fn patience_for_the_first_token_is_longer_while_the_model_loads() {
    let policy = Policy { stream: false, ..Policy::default() };
    for (loading, seconds) in [(false, 60), (true, 300)] {
        let mut it = Journey::of(policy);
        it.expect("choose ![]");
        if loading {
            it.choose_loading("a")
        } else {
            it.choose("a")
        };
        it.expect("send 1").connect(1).expect("");
        it.wait_as_told().expect("abort 1, it gave no first token in time; choose ![a]");
        assert_eq!(it.passed(), SECOND * seconds);
    }
    let mut it = Journey::of(policy);
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).wait(SECOND * 59);
    it.machine.on_doing(AttemptNo(1), Doing::Loading, it.now);
    it.expect("").wait_as_told().expect("abort 1, it gave no first token in time; choose ![a]");
    assert_eq!(it.passed(), SECOND * 300);
}

#[test]
fn a_server_that_works_is_waited_for_until_the_deadline() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1);
    while it.passed() < SECOND * 550 {
        it.wait(SECOND * 50).expect("");
        it.machine.on_doing(AttemptNo(1), Doing::Working, it.now);
    }
    it.wait_as_told().expect("abort 1; finish OutOfTime");
    assert_eq!(it.passed(), SECOND * 600);
}

#[test]
fn a_model_that_has_loaded_has_the_patience_for_its_first_token() {
    for (seen, more) in [(Doing::Unknown, 60), (Doing::Working, 60), (Doing::Idle, 210)] {
        let mut it = Journey::plain();
        it.expect("choose ![]").choose_loading("a").expect("send 1").connect(1).wait(SECOND * 90).expect("");
        it.machine.on_doing(AttemptNo(1), seen, it.now);
        it.expect("").wait_as_told().expect("abort 1, it gave no first token in time; choose ![a]");
        assert_eq!(it.passed(), SECOND * (90 + more), "{seen:?}");
    }
    // Who loads nothing and does not say what it does has the patience that it had.
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).wait(SECOND * 50).expect("");
    it.machine.on_doing(AttemptNo(1), Doing::Unknown, it.now);
    it.wait_as_told().expect("abort 1, it gave no first token in time; choose ![a]");
    assert_eq!(it.passed(), SECOND * 60);
}

#[test]
fn each_stage_has_its_own_patience() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.wait_as_told().expect("abort 1, it did not take the connection in time; choose ![a]");
    assert_eq!(it.passed(), SECOND * 2);
    it.choose("b").expect("send 2").connect(2).content(2).wait(SECOND * 29);
    it.machine.on_token(AttemptNo(2), it.now);
    it.expect("").wait_as_told().expect("abort 2, it stopped in the middle of its answer; choose ![a, b]");
    assert_eq!(it.passed(), SECOND * (2 + 29 + 30));
}

#[test]
fn a_server_that_is_alone_is_tried_again_after_growing_rests() {
    let mut it = Journey::plain();
    let mut rests = Vec::new();
    for attempt in 1..=4 {
        it.expect("choose ![]").choose("a").expect(&format!("send {attempt}"));
        it.fault(attempt, Cause::Refused).expect("choose ![a]").nobody().expect("");
        let before = it.now;
        it.wait_as_told();
        rests.push((it.now - before).as_millis());
    }
    for (rest, longest) in rests.iter().zip([200, 400, 800, 1600]) {
        assert!((longest / 2..=longest).contains(rest), "{rests:?}");
    }
    it.expect("choose ![]").choose("a").expect("send 5").fault(5, Cause::Refused);
    it.expect("choose ![a]").nobody().expect("finish Exhausted");
}

#[test]
fn two_servers_that_failed_are_not_tried_again() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Status);
    it.expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::Status);
    it.expect("choose ![a, b]").nobody().expect("finish Exhausted");
    assert!(it.machine.is_poison());
}

#[test]
fn servers_that_restart_together_are_all_tried_again_after_a_rest() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").absent(1);
    it.expect("choose ![a]").choose("b").expect("send 2").absent(2);
    it.expect("choose ![a, b]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("b").expect("send 3").absent(3);
    it.expect("choose ![b]").choose("a").expect("send 4").absent(4);
    it.expect("choose ![b, a]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("a").expect("send 5").content(5).expect("commit");
}

#[test]
fn servers_that_all_died_are_asked_once_more_and_not_again() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Reset);
    it.expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::EarlyEnd);
    it.expect("choose ![a, b]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("a").expect("send 3").fault(3, Cause::Reset);
    it.expect("choose ![a]").choose("b").expect("send 4").fault(4, Cause::Reset);
    it.expect("choose ![a, b]").nobody().expect("finish Exhausted");
}

#[test]
fn an_answer_that_has_begun_is_no_poison_whatever_becomes_of_the_servers_that_go_on_with_it() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit");
    it.fault(1, Cause::Reset).expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::Status);
    it.expect("choose ![a, b]").choose("c").expect("send 3").fault(3, Cause::Status);
    it.expect("choose ![a, b, c]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("b").expect("send 4").content(4).end(4).expect("finish Resumed");
}

#[test]
fn servers_that_stay_away_are_not_waited_for_without_end() {
    let mut it = Journey::stream();
    let mut rounds = 0;
    let ending = loop {
        let steps = it.steps();
        let tried = it.machine.tried().len();
        match &steps[..] {
            "" => {
                it.wait_as_told();
            }
            _ if steps.starts_with("choose") && tried == 2 => {
                rounds += 1;
                it.nobody();
            }
            _ if steps.starts_with("choose") => {
                it.choose(if tried == 0 { "a" } else { "b" });
            }
            _ if steps.starts_with("send") => {
                it.absent(it.machine.attempts());
            }
            _ => break steps,
        }
    };
    assert_eq!(ending, "finish Exhausted");
    assert_eq!((rounds, it.machine.attempts()), (3, 8), "eight sends are four rounds");
    assert!(it.passed() < SECOND * 2, "{:?}", it.passed());
}

#[test]
fn one_that_is_long_gone_does_not_keep_the_other_from_its_rest() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Reset);
    it.expect("choose ![a]").choose("gone").expect("send 2").absent(2);
    it.expect("choose ![a, gone]").nobody().expect("").wait_as_told();
    it.expect("choose ![]").choose("a").expect("send 3").end(3).expect("commit; finish Delivered");
}

#[test]
fn different_errors_or_none_that_had_the_prompt_are_no_poison() {
    for (first, second) in [
        (Cause::Status, Cause::Reset),
        (Cause::Unsupported, Cause::Unsupported),
        (Cause::Status, Cause::Unsupported),
    ] {
        let mut it = Journey::stream();
        it.expect("choose ![]").choose("a").expect("send 1").fault(1, first);
        it.expect("choose ![a]").choose("b").expect("send 2").fault(2, second);
        assert!(!it.machine.is_poison(), "{first:?}, {second:?}");
    }
}

#[test]
fn a_loading_server_is_asked_until_it_is_ready_and_that_costs_no_sends() {
    let mut it = Journey::plain();
    for attempt in 1..=50 {
        it.expect("choose ![]").choose("a").expect(&format!("send {attempt}"));
        it.fault(attempt, Cause::Loading).expect("choose ![a]").nobody().expect("").wait_as_told();
    }
    it.expect("choose ![]").choose("a").expect("send 51").end(51).expect("commit; finish Delivered");
}

#[test]
fn a_busy_server_is_asked_again_when_it_said() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.fault(1, Cause::Busy { retry_after: Some(SECOND * 3) }).expect("choose ![a]").nobody().expect("");
    it.wait_as_told().expect("choose ![]");
    assert_eq!(it.passed(), SECOND * 3);
}

#[test]
fn it_does_not_wait_for_what_is_after_the_deadline() {
    let mut it = Journey::of(Policy { caller: Some(SECOND * 3), ..Policy::default() });
    it.expect("choose ![]").choose("a").expect("send 1");
    it.fault(1, Cause::Busy { retry_after: Some(SECOND * 5) }).expect("choose ![a]").nobody();
    it.expect("finish Exhausted");
    assert_eq!(it.machine.free_at(), Some(it.now + SECOND * 5));
}

#[test]
fn a_rest_that_nobody_would_sit_through_is_not_begun() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.fault(1, Cause::Busy { retry_after: Some(SECOND * 11) }).expect("choose ![a]").nobody();
    it.expect("finish Exhausted");
    assert_eq!(it.machine.free_at(), Some(it.now + SECOND * 11));
    let mut it = Journey::stream();
    it.expect("choose ![]").later(11).expect("finish Refused");
    assert_eq!(it.machine.free_at(), Some(it.now + SECOND * 11));
    let mut it = Journey::stream();
    it.expect("choose ![]").later(10).expect("");
}

#[test]
fn a_retry_after_of_any_size_is_taken() {
    let mut it = Journey::plain();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.fault(1, Cause::Busy { retry_after: Some(Duration::MAX) }).expect("choose ![a]").nobody();
    it.expect("finish Exhausted");
}

#[test]
fn while_all_rest_somebody_new_is_taken() {
    let mut it = Journey::plain();
    it.expect("choose ![]").later(9).expect("").wait(SECOND);
    it.machine.on_news();
    it.expect("choose ![]").nobody().expect("").wait(SECOND);
    it.machine.on_news();
    it.expect("choose ![]").choose("b").expect("send 1").end(1).expect("commit; finish Delivered");
}

#[test]
fn when_every_server_is_a_misfit_the_request_is_refused() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::ContextOverflow);
    it.expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::Unsupported);
    it.expect("choose ![a, b]").nobody().expect("finish Refused");
}

#[test]
fn a_misfit_is_not_tried_again_when_the_other_server_rests() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::ModelNotFound);
    it.expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::Reset);
    it.expect("choose ![a, b]").nobody().expect("").wait_as_told().expect("choose ![a]");
}

#[test]
fn nobody_at_all_is_a_refusal() {
    Journey::stream().expect("choose ![]").nobody().expect("finish Refused");
}

#[test]
fn a_server_that_was_tried_counts_as_nobody() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Unsupported);
    it.expect("choose ![a]").choose("a").expect("finish Refused");
}

#[test]
fn the_callers_fault_stops_it() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Malformed);
    it.expect("finish Refused");
}

#[test]
fn the_deadline_is_nobodys_fault() {
    let mut it = Journey::of(Policy { caller: Some(SECOND), ..Policy::default() });
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).expect("");
    it.wait_as_told().expect("abort 1; finish OutOfTime");
    assert_eq!(it.passed(), SECOND);
}

#[test]
fn the_deadlines_clock_stands_still_while_content_comes() {
    let mut it = Journey::of(Policy { stream: false, caller: Some(SECOND * 10), ..Policy::default() });
    it.expect("choose ![]").choose("a").expect("send 1").connect(1).wait(SECOND * 4).content(1).expect("");
    for _ in 0..5 {
        it.wait(SECOND * 20).expect("");
        it.machine.on_token(AttemptNo(1), it.now);
    }
    it.fault(1, Cause::Reset).expect("choose ![a]").choose("b").expect("send 2").connect(2);
    it.expect("").wait_as_told().expect("abort 2; finish OutOfTime");
    assert_eq!(it.passed(), SECOND * (4 + 100 + 6));
}

#[test]
fn time_that_a_slow_caller_takes_is_not_the_servers_silence() {
    let gap = Policy::default().patience.gap;
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").content(1).expect("commit").wait(gap * 2);
    it.machine.on_held_back(AttemptNo(1), gap * 2);
    it.expect("").wait(gap).expect("abort 1, it stopped in the middle of its answer; choose ![a]");
}

#[test]
fn a_caller_that_leaves_ends_it_at_once() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1");
    it.machine.on_caller_gone();
    it.expect("abort 1; finish CallerGone").choose("b").end(1).expect("");

    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a");
    it.machine.on_caller_gone();
    it.expect("finish CallerGone");
}

#[test]
fn reports_about_an_attempt_of_the_past_change_nothing() {
    let mut it = Journey::stream();
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Reset);
    it.expect("choose ![a]").choose("b").expect("send 2");
    it.content(1).end(1).fault(1, Cause::Malformed).expect("");
}

#[test]
fn no_more_sends_than_the_budget() {
    let mut it = Journey::of(Policy { sends: 2, ..Policy::default() });
    it.expect("choose ![]").choose("a").expect("send 1").fault(1, Cause::Reset);
    it.expect("choose ![a]").choose("b").expect("send 2").fault(2, Cause::Reset).expect("finish Exhausted");
}
