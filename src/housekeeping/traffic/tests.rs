use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const A: &str = "a";

fn wait(traffic: &Traffic, priority: Priority, limit: u32) -> Ticket {
    traffic.wait(priority, vec![(A.into(), limit)]).unwrap()
}

fn called(ticket: &mut Ticket) -> Option<InFlight> {
    ticket.called().now_or_never()
}

#[test]
fn a_request_counts_until_its_guard_is_dropped() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let first = traffic.enter(&id, None).unwrap();
    let second = traffic.enter(&id, None).unwrap();
    assert_eq!(traffic.look().of(&id), 2);
    drop(first);
    assert_eq!(traffic.look().of(&id), 1);
    drop(second);
    assert_eq!(traffic.look().of(&id), 0);
}

#[test]
fn a_place_goes_to_who_waits_and_not_to_who_comes() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let held = traffic.enter(&id, Some(1)).unwrap();
    assert!(traffic.enter(&id, Some(1)).is_none());
    let mut batch = wait(&traffic, Priority::Batch, 1);
    let mut person = wait(&traffic, Priority::Interactive, 1);
    assert_eq!((traffic.queued(), traffic.queued_for(&id)), (2, 2));
    drop(held);
    assert!(traffic.enter(&id, Some(1)).is_none(), "the place is given already");
    assert!(called(&mut batch).is_none());
    let place = called(&mut person).unwrap();
    assert_eq!(place.server(), A);
    assert_eq!(traffic.look().of(&id), 1);
    drop((person, place));
    assert!(called(&mut batch).is_some());
    assert_eq!(traffic.look().of(&id), 0, "dropped with what it was given to");
    assert!(!traffic.look().is_full(&id, Some(1)));
}

#[test]
fn who_leaves_hands_on_what_it_was_given_and_did_not_take() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let held = traffic.enter(&id, Some(1)).unwrap();
    let first = wait(&traffic, Priority::Interactive, 1);
    let gone = wait(&traffic, Priority::Interactive, 1);
    let mut third = wait(&traffic, Priority::Interactive, 1);
    drop(gone);
    drop(held);
    assert!(called(&mut third).is_none());
    drop(first);
    assert!(called(&mut third).is_some());
    drop(third);
    assert_eq!((traffic.queued(), traffic.look().of(&id)), (0, 0));
}

#[test]
fn a_place_that_became_free_before_it_was_waited_for_is_given_at_once() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let held = traffic.enter(&id, Some(1)).unwrap();
    drop(held);
    assert!(called(&mut wait(&traffic, Priority::Interactive, 1)).is_some());
    // Nor is one missed that comes with a higher limit.
    let held = traffic.enter(&id, Some(1)).unwrap();
    let mut ticket = wait(&traffic, Priority::Interactive, 1);
    ticket.aim(vec![(id, 2)]);
    assert!(called(&mut ticket).is_some());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_ghost_keeps_its_place_until_it_is_gone() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    traffic.enter(&id, Some(1)).unwrap().leaves_a_ghost(Duration::from_secs(3));
    let look = traffic.look();
    assert_eq!((look.of(&id), look.taken(&id), look.is_full(&id, Some(1))), (0, 1, true));
    assert!(traffic.enter(&id, Some(1)).is_none() && traffic.is_occupied(&id));
    assert!(traffic.enter(&id, Some(2)).is_some(), "another place is free");
    let mut waiting = wait(&traffic, Priority::Interactive, 1);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert!(called(&mut waiting).is_none());
    // Who waits looks around from time to time.
    waiting.aim(vec![(id.clone(), 1)]);
    assert!(called(&mut waiting).is_some());
    assert!(!traffic.is_occupied(&id) && traffic.look().taken(&id) == 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_turned_one_away_gets_fewer_whatever_it_says() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let mut held: Vec<_> = (0..3).map(|_| traffic.enter(&id, None).unwrap()).collect();
    held.pop().unwrap().turned_away();
    assert!(traffic.enter(&id, None).is_none() && traffic.look().is_full(&id, None));
    assert_eq!((traffic.limit(&id, None), traffic.limit(&id, Some(1))), (Some(2), Some(1)));
    let mut waiting = wait(&traffic, Priority::Interactive, u32::MAX);
    assert!(called(&mut waiting).is_none());
    tokio::time::advance(Duration::from_secs(10)).await;
    held[0].answered();
    assert_eq!(traffic.limit(&id, None), Some(3));
    drop(held);
    assert!(called(&mut waiting).is_some());
}

#[test]
fn one_that_was_sent_earlier_is_overtaken_by_one_that_is_answered() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let mut all = [(); 3].map(|()| traffic.enter(&id, None).unwrap());
    for (place, model) in all.iter_mut().zip(["m", "m", "n"]) {
        place.uses(&model.into());
    }
    assert!(traffic.look().uses_others(&id, &"m".into()));
    all[2].speaks();
    assert!(!all[0].is_overtaken(), "another model has slots of its own");
    all[0].speaks();
    assert!(!all[1].is_overtaken(), "its turn comes after");
    all[1].speaks();
    assert!(all[0].is_overtaken());
    drop(all);
    assert!(!traffic.look().uses_others(&id, &"m".into()));
}

#[test]
fn a_server_is_occupied_while_it_answers_somebody() {
    let traffic = Traffic::new(4);
    let id = ServerId::from(A);
    let (mut one, _other) = (traffic.enter(&id, None).unwrap(), traffic.enter(&id, None).unwrap());
    assert!(!traffic.is_occupied(&id), "two that are silent do not explain each other");
    one.speaks();
    one.speaks();
    assert!(traffic.is_occupied(&id));
    drop(one);
    assert!(!traffic.is_occupied(&id));
}

#[test]
fn a_full_queue_takes_nobody() {
    let traffic = Traffic::new(1);
    let _held = traffic.enter(&A.into(), Some(1)).unwrap();
    let first = wait(&traffic, Priority::Interactive, 1);
    let second = || traffic.wait(Priority::Interactive, vec![(A.into(), 1)]);
    assert!(second().is_err());
    drop(first);
    assert!(second().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever comes, waits, is called and leaves: no server has more than its limit, no
    /// place stays free while somebody waits for it, and in the end all is given back.
    #[test]
    fn never_above_the_limit_and_nothing_is_lost(
        story in prop::collection::vec((0..4_u8, 0..2_usize, any::<prop::sample::Index>()), 0..200),
    ) {
        let traffic = Traffic::new(16);
        let servers: [Limited; 2] = [("a".into(), 1), ("b".into(), 3)];
        let (mut places, mut tickets) = (Vec::new(), Vec::new());
        for (what, at, which) in story {
            let (id, limit) = &servers[at];
            match what {
                0 => places.extend(traffic.enter(id, Some(*limit))),
                1 => {
                    let wanted = if at == 0 { servers.to_vec() } else { vec![servers[1].clone()] };
                    let priority = if limit % 2 == 0 { Priority::Batch } else { Priority::Interactive };
                    tickets.extend(traffic.wait(priority, wanted).ok());
                }
                2 if !places.is_empty() => drop(places.swap_remove(which.index(places.len()))),
                3 if !tickets.is_empty() => drop(tickets.swap_remove(which.index(tickets.len()))),
                _ => {}
            }
            let mut still = Vec::new();
            for mut ticket in tickets {
                match called(&mut ticket) {
                    Some(place) => places.push(place),
                    None => still.push(ticket),
                }
            }
            tickets = still;
            for (id, limit) in &servers {
                let count = traffic.look().of(id);
                prop_assert_eq!(count as usize, places.iter().filter(|it| it.server() == id).count());
                prop_assert!(count <= *limit);
                prop_assert!(count == *limit || traffic.queued_for(id) == 0, "a place stays free");
            }
        }
        drop((places, tickets));
        prop_assert_eq!((traffic.queued(), traffic.look().of(&"a".into()), traffic.look().of(&"b".into())), (0, 0, 0));
    }
}
