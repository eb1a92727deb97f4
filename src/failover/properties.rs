//! Each rule over random traces.
//!
//! A trace is a policy, the answers to `Choose`, and what the world does. The
//! observer drives the machine through it, keeps a model of its own that is
//! simpler than the machine (it knows no patience and no rests), and complains
//! when a step breaks a rule. After the trace the world falls silent, and the
//! machine must come to its end by its own clock.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*};

use super::{
    machine::{LEAST_REST, is_death},
    *,
};
use crate::{
    fault::{Blame, Cause, Stage},
    server::Doing,
};

#[derive(Clone, Debug)]
enum Act {
    Wait(Duration),
    WaitAsTold,
    Report(What, Whose),
    CallerGone,
    News,
}

#[derive(Clone, Debug)]
enum What {
    Connected,
    Head,
    Doing(Doing),
    FirstToken,
    Token,
    Bound,
    HeldBack,
    End,
    Fault(Fault),
}

/// Whose report it is, counted back from the current attempt.
type Whose = u32;

#[derive(Clone, Debug)]
enum Answer {
    Server(u8, bool),
    Later(Duration),
    Nobody,
    Never,
}

#[derive(Clone, Debug)]
struct Trace {
    policy: Policy,
    seed: u64,
    answers: Vec<Answer>,
    acts: Vec<Act>,
}

/// What the observer knows.
struct Observer {
    machine: Failover,
    policy: Policy,
    start: Instant,
    now: Instant,
    deadline: Instant,
    answers: std::vec::IntoIter<Answer>,
    chosen: Option<String>,
    alive: Option<(u32, String)>,
    content_since: Option<Instant>,
    counted_sends: u32,
    servers: BTreeMap<String, Standing>,
    stopped: bool,
    /// Whether what was delivered cannot be gone on with.
    never: bool,
    /// Sends after the commit.
    resumptions: u32,
    steps: Vec<(Duration, Step)>,
}

#[derive(Clone, Copy)]
struct Standing {
    fault: Option<Fault>,
    since: Instant,
    /// Whether nobody else could be asked since, while the request itself was
    /// not suspected.
    nobody: bool,
}

impl Observer {
    fn run(trace: &Trace) -> Self {
        let start = Instant::now();
        let patience = trace.policy.patience.before_commit;
        let mut it = Self {
            machine: Failover::new(trace.policy, start, trace.seed),
            policy: trace.policy,
            start,
            now: start,
            deadline: start + trace.policy.caller.unwrap_or(patience).min(patience),
            answers: trace.answers.clone().into_iter(),
            chosen: None,
            alive: None,
            content_since: None,
            counted_sends: 0,
            servers: BTreeMap::new(),
            stopped: false,
            never: false,
            resumptions: 0,
            steps: Vec::new(),
        };
        it.obey();
        for act in &trace.acts {
            it.act(act);
            it.obey();
        }
        // The silent world: only the machine's own clock goes on.
        for _ in 0..1000 {
            if it.machine.is_over() {
                return it;
            }
            it.act(&Act::WaitAsTold);
            it.obey();
        }
        panic!("it never ends: {:?}", it.machine);
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(wait) => self.now += *wait,
            Act::WaitAsTold => self.now = self.machine.poll_timeout().unwrap_or(self.now).max(self.now),
            Act::News => self.machine.on_news(),
            Act::CallerGone => self.machine.on_caller_gone(),
            Act::Report(what, back) => {
                let number = self.machine.attempts().saturating_sub(*back);
                let current = self.alive.as_ref().is_some_and(|(alive, _)| *alive == number);
                let before = format!("{:?}", self.machine);
                self.report(what, AttemptNo(number), current);
                if !current {
                    assert_eq!(before, format!("{:?}", self.machine), "rule 8: {what:?} of {number}");
                }
            }
        }
    }

    fn report(&mut self, what: &What, attempt: AttemptNo, current: bool) {
        let now = self.now;
        match what {
            What::Connected => self.machine.on_connected(attempt),
            What::Head => self.machine.on_head(attempt),
            What::Doing(doing) => self.machine.on_doing(attempt, *doing, now),
            What::Token => self.machine.on_token(attempt, now),
            What::HeldBack => self.machine.on_held_back(attempt, Duration::ZERO),
            What::FirstToken | What::Bound => {
                if current {
                    self.content_since.get_or_insert(now);
                }
                match what {
                    What::Bound => self.machine.on_bound_reached(attempt, now),
                    _ => self.machine.on_first_token(attempt, now),
                }
            }
            What::End => {
                self.machine.on_end(attempt);
                if current {
                    self.alive = None;
                }
            }
            What::Fault(fault) => {
                self.machine.on_fault(attempt, fault, now);
                if current {
                    self.failed(Some(*fault));
                }
            }
        }
    }

    fn failed(&mut self, fault: Option<Fault>) {
        let (_, server) = self.alive.take().expect("an attempt is alive");
        let since = self.content_since.take();
        let spoke = since.is_some() && self.committed();
        if spoke {
            self.deadline = self.now + self.policy.patience.before_commit;
        } else if let Some(since) = since {
            self.deadline += self.now - since;
        }
        let Some(fault) = fault else { return };
        match fault.blame() {
            Blame::Caller | Blame::Daemon => self.stopped = true,
            // Given back only where the answer may still go on elsewhere.
            Blame::Loading => self.counted_sends -= 1,
            Blame::Server | Blame::Busy { .. } | Blame::Misfit => {}
        }
        self.servers.insert(server, Standing { fault: Some(fault), since: self.now, nobody: false });
    }

    /// Takes steps until there are none, and checks each.
    fn obey(&mut self) {
        while let Some(step) = self.machine.poll(self.now) {
            self.check(&step);
            self.steps.push((self.now - self.start, step));
            if step == Step::Choose {
                self.choose();
            }
        }
        let over = self.machine.is_over();
        if self.content_since.is_none() {
            assert!(over || self.now < self.deadline, "rule 7: it goes on after the deadline");
        }
        match self.machine.poll_timeout() {
            None => assert!(over, "it would sleep for ever"),
            Some(at) => {
                assert!(!over);
                assert!(at > self.now, "it would spin");
                assert!(self.content_since.is_some() || at <= self.deadline, "rule 7: it oversleeps");
            }
        }
    }

    fn choose(&mut self) {
        let chosen = match self.answers.next() {
            Some(Answer::Server(number, loading)) => {
                Chosen::Server { server: number.to_string().into(), loading }
            }
            Some(Answer::Later(wait)) => Chosen::Later(self.now + wait),
            Some(Answer::Never) => Chosen::Never,
            Some(Answer::Nobody) | None => Chosen::Nobody,
        };
        self.never |= chosen == Chosen::Never;
        self.chosen = match &chosen {
            Chosen::Server { server, .. } if !self.machine.tried().contains(server) => {
                Some(server.to_string())
            }
            Chosen::Server { .. } | Chosen::Later(_) | Chosen::Nobody | Chosen::Never => {
                let had_it = |it: &Fault| {
                    it.blame() == Blame::Server
                        && (it.stage != Stage::Connect || !matches!(it.cause, Cause::Refused | Cause::Reset))
                };
                let had_it: Vec<_> = self.servers.values().filter_map(|it| it.fault).filter(had_it).collect();
                let all_died = had_it.iter().all(|it| is_death(*it));
                let suspected = !self.committed() && had_it.len() > 1 && !all_died;
                for it in self.servers.values_mut() {
                    let struck = it.fault.is_some_and(|it| it.blame() == Blame::Server);
                    it.nobody |= !(struck && suspected);
                }
                None
            }
        };
        self.machine.on_chosen(chosen, self.now);
    }

    fn seen(&self, wanted: fn(&Step) -> bool) -> usize {
        self.steps.iter().filter(|(_, step)| wanted(step)).count()
    }

    fn committed(&self) -> bool {
        self.seen(|it| *it == Step::Commit) > 0
    }

    fn check(&mut self, step: &Step) {
        assert_eq!(self.seen(|it| matches!(it, Step::Finish(_))), 0, "rule 6: {step:?} after the end");
        match *step {
            Step::Choose => {
                assert!(self.alive.is_none(), "rule 1");
                assert!(!self.stopped && !self.never, "rules 2 and 5");
            }
            Step::Send(AttemptNo(number)) => {
                assert!(self.alive.is_none(), "rule 1");
                assert!(!self.never, "rule 2");
                self.resumptions += u32::from(self.committed());
                assert!(!self.stopped, "rule 5");
                let server = self.chosen.take().expect("a server was chosen");
                self.check_again(&server);
                self.counted_sends += 1;
                assert!(self.counted_sends <= self.policy.sends, "rule 4");
                self.servers.insert(server.clone(), Standing { fault: None, since: self.now, nobody: false });
                self.alive = Some((number, server));
                self.content_since = None;
            }
            Step::Abort { attempt, fault } => {
                assert_eq!(self.alive.as_ref().map(|it| it.0), Some(attempt.0), "only what lives is aborted");
                self.failed(fault);
            }
            Step::Open => {
                assert!(self.policy.stream && !self.committed());
                assert_eq!(self.seen(|it| *it == Step::Open), 0, "opened twice");
                assert!(self.now - self.start >= self.policy.patience.open_after, "opened early");
            }
            Step::Commit => assert!(!self.committed(), "committed twice"),
            Step::Finish(ending) => {
                assert!(self.alive.is_none(), "rule 6: finished with a live attempt");
                self.content_since = None;
                self.check_ending(ending);
            }
        }
    }

    fn check_again(&self, server: &str) {
        let Some(Standing { fault, since, nobody, .. }) = self.servers.get(server) else { return };
        let blame = fault.expect("rule 3: it is still being asked").blame();
        assert!(*nobody, "rule 3: {server} again while others were free, or the request is suspected");
        assert!(self.now - *since >= LEAST_REST / 2, "rule 3: {server} again without a rest");
        assert!(
            matches!(blame, Blame::Server | Blame::Busy { .. } | Blame::Loading),
            "rule 3: {server} again after {blame:?}"
        );
    }

    fn check_ending(&self, ending: Ending) {
        let faults: Vec<_> = self.servers.values().map(|it| it.fault).collect();
        let committed = self.committed();
        match ending {
            Ending::Delivered => assert!(committed && self.resumptions == 0),
            Ending::Resumed => assert!(committed && self.resumptions > 0, "rule 2"),
            Ending::CutShort => assert!(committed),
            Ending::Refused => {
                let misfit = |it: &Option<Fault>| it.is_some_and(|it| it.blame() == Blame::Misfit);
                assert!(!committed && (self.stopped || faults.iter().all(misfit)));
            }
            Ending::Exhausted => {
                assert!(!committed && !self.stopped);
                let errors: Option<Vec<Fault>> = faults.iter().copied().collect();
                let errors = errors.expect("each that was tried has failed");
                let same = |it: &Fault| {
                    (it.cause, it.status) == (errors[0].cause, errors[0].status)
                        && it.blame() == Blame::Server
                        && it.stage != Stage::Connect
                };
                let poison = errors.len() > 1 && errors.iter().all(same);
                assert_eq!(self.machine.is_poison(), poison, "rule 10: {errors:?}");
            }
            Ending::OutOfTime => assert!(!committed && self.now >= self.deadline),
            Ending::CallerGone => {}
        }
    }
}

fn waits() -> impl Strategy<Value = Duration> {
    prop_oneof![0_u64..200, 200_u64..3_000, 3_000_u64..90_000].prop_map(Duration::from_millis)
}

fn faults() -> impl Strategy<Value = Fault> {
    let cause = prop_oneof![
        6 => prop::sample::select(vec![Cause::Refused, Cause::Reset, Cause::Status, Cause::EarlyEnd]),
        2 => option::of(waits()).prop_map(|retry_after| Cause::Busy { retry_after }),
        2 => Just(Cause::Loading),
        2 => prop::sample::select(vec![Cause::ContextOverflow, Cause::Unsupported]),
        1 => prop::sample::select(vec![Cause::Malformed, Cause::Internal]),
    ];
    let stage = prop::sample::select(vec![Stage::Connect, Stage::Head, Stage::Head, Stage::FirstToken]);
    (cause, stage, prop::sample::select(vec![None, Some(500)])).prop_map(|(cause, stage, status)| Fault {
        stage,
        cause,
        status,
    })
}

fn doing() -> impl Strategy<Value = Doing> {
    prop::sample::select(vec![
        Doing::Loading,
        Doing::Queued,
        Doing::Working,
        Doing::Unknown,
        Doing::Idle,
        Doing::Dead,
        Doing::Gone,
    ])
}

fn acts() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        2 => Just(What::Connected),
        1 => Just(What::Head),
        2 => doing().prop_map(What::Doing),
        2 => Just(What::FirstToken),
        2 => Just(What::Token),
        1 => Just(What::Bound),
        1 => Just(What::HeldBack),
        1 => Just(What::End),
        5 => faults().prop_map(What::Fault),
    ];
    let whose = prop_oneof![8 => Just(0_u32), 1 => 1_u32..4];
    prop_oneof![
        3 => waits().prop_map(Act::Wait),
        3 => Just(Act::WaitAsTold),
        1 => Just(Act::News),
        12 => (what, whose).prop_map(|(what, whose)| Act::Report(what, whose)),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let patience = (waits(), waits(), waits(), waits(), waits(), waits()).prop_map(
        |(connect, first_token, load, gap, before_commit, open_after)| Patience {
            connect: connect.max(Duration::from_millis(1)),
            first_token: first_token.max(Duration::from_millis(1)),
            load: load.max(Duration::from_millis(1)),
            gap: gap.max(Duration::from_millis(1)),
            before_commit: before_commit * 3,
            open_after,
        },
    );
    (patience, option::of(waits()), any::<bool>(), 1_u32..7, 0_u32..5, 0_u64..500).prop_map(
        |(patience, caller, stream, sends, rests, rest)| Policy {
            patience,
            caller,
            stream,
            sends,
            rests,
            rest: Duration::from_millis(rest),
        },
    )
}

fn traces() -> impl Strategy<Value = Trace> {
    let answers = vec(
        prop_oneof![
            8 => (0_u8..4, any::<bool>()).prop_map(|(server, loading)| Answer::Server(server, loading)),
            1 => waits().prop_map(Answer::Later),
            3 => Just(Answer::Nobody),
            1 => Just(Answer::Never),
        ],
        0..24,
    );
    let end = prop_oneof![4 => Just(None), 1 => Just(Some(Act::CallerGone))];
    (policies(), any::<u64>(), answers, vec(acts(), 0..40), end).prop_map(
        |(policy, seed, answers, mut acts, end)| {
            acts.extend(end);
            Trace { policy, seed, answers, acts }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_trace_breaks_a_rule(trace in traces()) {
        let observer = Observer::run(&trace);
        prop_assert_eq!(observer.seen(|it| matches!(it, Step::Finish(_))), 1, "rule 6");
    }

    #[test]
    fn same_inputs_same_steps(trace in traces()) {
        prop_assert_eq!(Observer::run(&trace).steps, Observer::run(&trace).steps, "rule 9");
    }

    #[test]
    fn a_good_server_answers_whatever_the_others_do_before_content(
        faults in vec(faults().prop_filter("the caller's", |it| {
            !matches!(it.blame(), Blame::Caller | Blame::Daemon)
        }), 0..7),
        stream: bool,
    ) {
        let now = Instant::now();
        let mut machine = Failover::new(Policy { stream, ..Policy::default() }, now, 0);
        let good = faults.len();
        let mut sends = 0;
        let mut ending = None;
        while let Some(step) = machine.poll(now) {
            match step {
                Step::Choose => {
                    let server = machine.tried().len().to_string().into();
                    machine.on_chosen(Chosen::Server { server, loading: false }, now);
                }
                Step::Send(attempt) => {
                    match faults.get(attempt.0 as usize - 1) {
                        Some(fault) => machine.on_fault(attempt, fault, now),
                        None => {
                            machine.on_first_token(attempt, now);
                            machine.on_end(attempt);
                            sends += 1;
                        }
                    }
                }
                Step::Finish(it) => ending = Some(it),
                Step::Commit => prop_assert_eq!(machine.attempts() as usize, good + 1),
                Step::Open | Step::Abort { .. } => prop_assert!(false, "{step:?}"),
            }
        }
        prop_assert_eq!((ending, sends), (Some(Ending::Delivered), 1));
    }
}
