//! Rows and sums after a sudden death at any point.

use std::path::Path;

use proptest::{collection::vec, prelude::*, strategy::ValueTree};

use super::*;
use crate::{
    ledger::{self, Filter},
    registry,
    stats::{By, Query, Row},
    store::tests::copy,
};

const MOST: u64 = 64 << 20;

fn house(dir: &Path, tracking: bool) -> Arc<Housekeeping> {
    let opened = if tracking { Store::open_with_rows(dir, MOST) } else { Store::open(dir) };
    let (store, stored) = opened.unwrap();
    let (registry, figures) = restore(&store, &stored, registry::Settings::default(), now());
    Housekeeping::new(Furnishing {
        registry,
        figures,
        store,
        spent: Stored::Lost,
        instance: String::new(),
        ours: Box::new(|_| false),
        owner_of: Box::new(|_| None),
        settings: Settings { tracking, queue: 10, ..Settings::default() },
    })
}

/// All outcomes that are on the disk.
async fn stored(house: &Housekeeping) -> Vec<Outcome> {
    let mut export = house.export(Filter::default()).await;
    let mut all = Vec::new();
    loop {
        let piece = export.next().await.unwrap();
        if piece.is_empty() {
            return all;
        }
        all.extend(piece);
    }
}

/// All rows that do not hang on when hours are folded.
fn reports(stats: &Stats) -> Vec<Vec<Row>> {
    let by = |by| Query { by: Some(by), ..Query::default() };
    By::ALL.into_iter().filter(|it| *it != By::Hour).map(|it| stats.report(&by(it))).collect()
}

fn summed(outcomes: &[Outcome]) -> Stats {
    let mut stats = Stats::default();
    outcomes.iter().for_each(|it| {
        stats.add_past(it);
    });
    stats
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Finish(usize),
    /// Sums go to the store, and all is written.
    Save,
    /// Rows are written, sums are not.
    Flush,
    /// A shared database gets what it does not have.
    Send,
    /// It is killed and started again.
    Die,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![3 => (1_usize..4).prop_map(Step::Finish), 1 => Just(Step::Save), 1 => Just(Step::Flush)],
        1..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_and_sums_agree_after_a_sudden_death_and_nothing_is_there_twice(
        outcomes in vec(ledger::tests::outcome(), 40),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        let (dir, left) = (root.path().join("state"), root.path().join("left"));
        let mut outcomes = outcomes;
        let this_hour = wall_ms();
        for (outcome, at) in outcomes.iter_mut().zip(0..) {
            // Within the days that are not folded; what has a number only is no id twice.
            outcome.at_ms = this_hour - outcome.at_ms % (5 * 86_400_000);
            outcome.request_id = format!("r-{at}");
        }
        let outcomes = &outcomes;
        runtime.block_on(async {
            let living = house(&dir, true);
            let (mut done, mut safe) = (0, 0);
            for step in steps {
                match step {
                    Step::Finish(more) => {
                        let more = outcomes.iter().skip(done).take(more);
                        done += more.map(|it| living.finished(it.clone(), None)).count();
                    }
                    Step::Save => {
                        living.close().await;
                        safe = done;
                    }
                    Step::Flush => {
                        living.store.flush().await;
                        safe = done;
                    }
                    Step::Send | Step::Die => {}
                }
            }
            // What the disk holds now is what a killed process would leave.
            copy(&dir, &left);
            drop(living);

            let again = house(&left, true);
            let kept = stored(&again).await;
            assert!(kept.len() >= safe && kept.len() <= done, "{} of {safe} to {done}", kept.len());
            assert_eq!(kept, outcomes[..kept.len()]);
            let expected = summed(&kept);
            again.with_stats(|it| assert_eq!(reports(it), reports(&expected)));
            // It goes on where it was, and nothing is summed a second time.
            again.finished(outcomes[39].clone(), None);
            again.close().await;
            drop(again);
            let last = house(&left, true);
            let kept = stored(&last).await;
            assert_eq!(kept.last(), outcomes.last());
            let expected = summed(&kept);
            last.with_stats(|it| assert_eq!(reports(it), reports(&expected)));
        });
    }

    /// A shared database tells rows by their numbers and bytes; here it is a set.
    #[test]
    fn whoever_dies_when_a_shared_database_has_each_row_once_and_none_that_is_not_here(
        outcomes in vec(ledger::tests::outcome(), 40),
        steps in vec(
            prop_oneof![
                3 => (1_usize..4).prop_map(Step::Finish), 2 => Just(Step::Send), 1 => Just(Step::Save), 1 => Just(Step::Die)
            ],
            1..16,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let mut dir = root.path().join("0");
            let mut living = house(&dir, true);
            let mut database = BTreeSet::new();
            let mut outcomes = outcomes.into_iter();
            for (step, at) in steps.into_iter().chain([Step::Die, Step::Send]).zip(1..) {
                match step {
                    Step::Finish(more) => outcomes.by_ref().take(more).for_each(|it| living.finished(it, None)),
                    Step::Save => living.close().await,
                    Step::Flush => drop(living.store.flush().await),
                    Step::Send => {
                        let mut unsent = living.unsent(living.sent_to("db")).await.unwrap();
                        while let Some((last, _)) = {
                            let rows = unsent.next(2).await.unwrap();
                            database.extend(rows.iter().cloned());
                            rows.last().cloned()
                        } {
                            living.is_sent("db", last);
                        }
                        living.is_sent("db", unsent.last);
                    }
                    Step::Die => {
                        let left = root.path().join(at.to_string());
                        copy(&dir, &left);
                        dir = left;
                        living = house(&dir, true);
                    }
                }
            }
            let mut walk = living.store.reader().walk_from(0, u64::MAX).unwrap();
            let rows: BTreeSet<_> = walk.next_rows(1000).unwrap().into_iter().collect();
            assert_eq!(database, rows);
            assert_eq!(living.sent_to("another"), 0);
        });
    }

    /// Of hours that are only in part within a span the outcomes themselves are counted.
    #[test]
    fn a_span_is_exact_to_the_millisecond(
        outcomes in vec(ledger::tests::outcome(), 30),
        since in 0_u64..4 * 3_600_000,
        long in 1_u64..4 * 3_600_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let house = house(&root.path().join("state"), true);
            let first = wall_ms() - 4 * 3_600_000;
            let mut all = Vec::new();
            for mut outcome in outcomes {
                outcome.at_ms = first + outcome.at_ms % (4 * 3_600_000);
                house.finished(outcome.clone(), None);
                all.push(outcome);
            }
            let span = Span { since_ms: Some(first + since), until_ms: Some(first + since + long) };
            let filter = Filter { since_ms: span.since_ms, until_ms: span.until_ms, ..Filter::default() };
            all.retain(|it| filter.lets(it));
            for by in By::ALL {
                let query = Query { by: Some(by), ..Query::default() };
                assert_eq!(house.report_of(&query, span).await, summed(&all).report(&query), "{by:?}");
            }
        });
    }
}

#[tokio::test]
async fn what_is_cleared_stays_gone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut outcome = ledger::tests::outcome().new_tree(&mut runner).unwrap().current();
    outcome.at_ms = wall_ms();
    let first = house(&dir, true);
    (0..10).for_each(|_| first.finished(outcome.clone(), None));
    first.close().await;
    (0..10).for_each(|_| first.finished(outcome.clone(), None));
    assert!(first.clear_stats().await);
    assert!(stored(&first).await.is_empty() && first.report(&Query::default()).is_empty());
    assert!(first.requests(100, &Filter::default()).await.is_empty());
    outcome.request_id = "later".to_owned();
    first.finished(outcome.clone(), None);
    first.close().await;
    drop(first);
    let again = house(&dir, true);
    assert_eq!(again.report(&Query::default())[0].endings.all(), 1);
    assert_eq!(stored(&again).await, [outcome.clone()]);
    assert_eq!(again.request("later", &Filter::default()).await.as_deref(), Some(&outcome));
    assert_eq!(again.requests(100, &Filter::default()).await.len(), 1);
    let others = Filter { uid: Some(outcome.caller.uid.unwrap_or(0) ^ 1), ..Filter::default() };
    assert_eq!(again.request("later", &others).await, None);
}

#[tokio::test]
async fn what_was_cleared_is_not_sent_any_more_and_nothing_is_missed() {
    let root = tempfile::tempdir().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let outcome = ledger::tests::outcome().new_tree(&mut runner).unwrap().current();
    let house = house(root.path(), true);
    (0..3).for_each(|_| house.finished(outcome.clone(), None));
    house.close().await;
    house.is_sent("db", 1);
    let name = house.ledger_name();
    assert!(house.clear_stats().await);
    house.finished(outcome, None);
    let mut unsent = house.unsent(house.sent_to("db")).await.unwrap();
    assert_eq!(unsent.next(10).await.unwrap().len(), 1);
    assert!(!unsent.is_cut, "what a person deletes is not missed");
    assert_eq!(house.ledger_name(), name);
    // What had to make room is.
    let mut unsent = house.unsent(1).await.unwrap();
    assert_eq!(unsent.next(10).await.unwrap().len(), 1);
    assert!(unsent.is_cut);
}

#[tokio::test]
async fn without_tracking_nothing_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let outcome = ledger::tests::outcome().new_tree(&mut runner).unwrap().current();
    let house_ = house(&dir, false);
    house_.finished(outcome.clone(), None);
    house_.close().await;
    assert_eq!(house_.recent(10).len(), 1);
    drop(house_);
    assert!(!dir.join("outcomes").exists());
    let again = house(&dir, true);
    assert!(again.report(&Query::default()).is_empty() && stored(&again).await.is_empty());
}

#[tokio::test]
async fn what_came_while_tracking_was_off_is_not_stored_with_what_came_after() {
    let root = tempfile::tempdir().unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let outcome = ledger::tests::outcome().new_tree(&mut runner).unwrap().current();
    let track = |house: &Housekeeping, tracking| {
        house.configure(Settings { tracking, queue: 10, ..Settings::default() });
    };
    let first = house(root.path(), true);
    let counted = |house: &Housekeeping| house.report(&Query::default())[0].endings.all();
    track(&first, false);
    first.finished(outcome.clone(), None);
    track(&first, true);
    first.finished(outcome, None);
    assert_eq!(counted(&first), 2, "both are shown");
    first.close().await;
    drop(first);
    let again = house(root.path(), true);
    assert_eq!(counted(&again), 1);
    assert_eq!(stored(&again).await.len(), 1);
}
