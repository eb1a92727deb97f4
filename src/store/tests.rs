//! What must hold of a store on a real disk.

use std::{
    fs,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::*;

fn place() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    (root, dir)
}

fn pair(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn fill(dir: &Path) {
    let (store, _) = Store::open(dir).unwrap();
    for number in 0..200 {
        let record = format!("record {number} {}", "x".repeat(200));
        store.put(Shelf::Servers, format!("server-{number:03}").as_bytes(), record.into());
    }
    store.put(Shelf::Rollups, b"hour", b"sums".to_vec());
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all.sort();
    all
}

#[test]
fn spending_that_was_lost_is_told_from_none() {
    let (_root, dir) = place();
    let (store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.spending, Some(vec![]));
    store.put(Shelf::Spending, b"day", b"1".to_vec());
    drop(store);
    let (store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.spending, Some(vec![pair("day", "1")]));
    drop(store);
    fs::write(dir.join("registry/db"), b"no database").unwrap();
    let (_store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.spending, None);
}

#[test]
fn what_is_put_is_there_after_a_restart() {
    let (_root, dir) = place();
    let (store, loaded) = Store::open(&dir).unwrap();
    assert!(loaded.servers.is_empty() && loaded.rollups.is_empty());
    store.put(Shelf::Servers, b"a", b"1".to_vec());
    store.put(Shelf::Servers, b"b", b"2".to_vec());
    store.put(Shelf::Servers, b"a", b"3".to_vec());
    store.put(Shelf::Rollups, b"h", b"4".to_vec());
    store.delete(Shelf::Servers, b"b");
    drop(store);

    let (store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.servers, [pair("a", "3")]);
    assert_eq!(loaded.rollups, [pair("h", "4")]);
    let status = store.status();
    assert!(status.ok && status.bytes > 0 && status.dropped == 0 && status.reasons.is_empty());
    assert_eq!(status.path, Some(dir));
}

#[tokio::test]
async fn what_was_flushed_survives_a_sudden_death() {
    let (root, dir) = place();
    let (store, _) = Store::open(&dir).unwrap();
    store.put(Shelf::Servers, b"a", b"1".to_vec());
    assert!(store.flush().await);
    // What the disk holds now is what a killed process would leave.
    let left = root.path().join("left");
    copy(&dir, &left);
    drop(store);
    let (_store, loaded) = Store::open(&left).unwrap();
    assert_eq!(loaded.servers, [pair("a", "1")]);
}

#[tokio::test]
async fn a_change_is_flushed_without_being_asked() {
    let (root, dir) = place();
    let (store, _) = Store::open(&dir).unwrap();
    for number in 0..50_u8 {
        store.put(Shelf::Servers, b"a", vec![number]);
        let last = [(b"a".to_vec(), vec![number])];
        let until = Instant::now() + Duration::from_secs(5);
        for round in 0.. {
            let left = root.path().join(format!("left-{number}-{round}"));
            copy(&dir, &left);
            let (other, loaded) = Store::open(&left).unwrap();
            drop(other);
            if loaded.servers == last {
                break;
            }
            assert!(Instant::now() < until, "never flushed");
        }
        if number == 2 {
            break;
        }
    }
    drop(store);
}

#[test]
fn a_directory_in_use_is_refused_and_left_alone() {
    let (_root, dir) = place();
    let (store, _) = Store::open(&dir).unwrap();
    store.put(Shelf::Servers, b"a", b"1".to_vec());
    let held = Store::open(&dir).unwrap_err();
    assert_eq!(held, StoreError::Held { dir: dir.clone(), pid: Some(std::process::id()) });
    assert!(held.to_string().ends_with(&format!("is in use by process {}", std::process::id())));
    store.close();
    let (_store, loaded) = Store::open(&dir).unwrap();
    assert_eq!(loaded.servers, [pair("a", "1")]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "lock, registry, stats");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let (_root, dir) = place();
    fill(&dir);
    {
        let db = sled::open(dir.join("registry")).unwrap();
        db.open_tree("meta").unwrap().insert("schema", &7_u32.to_be_bytes()).unwrap();
        db.flush().unwrap();
    }
    let refused = Store::open(&dir).unwrap_err();
    assert_eq!(refused, StoreError::Future { dir: dir.clone(), found: 7, known: 1 });
    assert!(refused.to_string().contains("newer version of lovable (schema 7, this one knows 1)"));
    // The lock is free again, and nothing was touched.
    assert_eq!(Store::open(&dir).unwrap_err(), refused);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
}

#[test]
fn an_unreadable_schema_counts_as_damage() {
    for schema in [Some(&b"not a number"[..]), None] {
        let (_root, dir) = place();
        fill(&dir);
        {
            let db = sled::open(dir.join("registry")).unwrap();
            let meta = db.open_tree("meta").unwrap();
            match schema {
                Some(schema) => meta.insert("schema", schema).unwrap(),
                None => meta.remove("schema").unwrap(),
            };
            db.flush().unwrap();
        }
        let (store, loaded) = Store::open(&dir).unwrap();
        assert!(loaded.servers.is_empty());
        assert_eq!(loaded.rollups, [pair("hour", "sums")], "the other database is sound");
        let status = store.status();
        assert!(status.ok, "it works again");
        assert!(status.reasons[0].contains("registry.damaged-"), "{:?}", status.reasons);
    }
}

#[test]
fn a_damaged_database_is_moved_aside_or_read_but_never_stops_us() {
    let (root, dir) = place();
    fill(&dir);
    let mut random = fastrand::Rng::with_seed(7);
    let mut moved = 0;
    for round in 0..40 {
        let hurt = root.path().join(format!("hurt-{round}"));
        copy(&dir, &hurt);
        let all: Vec<PathBuf> = files(&hurt).into_iter().filter(|it| !it.ends_with("lock")).collect();
        let victim = &all[random.usize(..all.len())];
        let mut bytes = fs::read(victim).unwrap();
        match round % 4 {
            0 => bytes.truncate(random.usize(..=bytes.len())),
            1 => bytes.clear(),
            2 => bytes.fill_with(|| random.u8(..)),
            _ => {
                // Near the start, where the data is.
                let end = bytes.len().min(60_000);
                for _ in 0..64 {
                    if end > 0 {
                        bytes[random.usize(..end)] = random.u8(..);
                    }
                }
            }
        }
        fs::write(victim, bytes).unwrap();

        let (store, loaded) = Store::open(&hurt).unwrap();
        assert!(loaded.servers.len() <= 200);
        let status = store.status();
        assert!(status.ok, "round {round}: {status:?}");
        moved += status.reasons.len();
        store.put(Shelf::Servers, b"new", b"record".to_vec());
        drop(store);
        let (_store, loaded) = Store::open(&hurt).unwrap();
        assert!(loaded.servers.contains(&pair("new", "record")), "round {round}");
    }
    assert!(moved > 0, "none was seen to be damaged");
}

#[tokio::test]
async fn a_place_that_cannot_be_used_means_running_without() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    for dir in [file.join("state"), PathBuf::from("/proc/nothing/state"), PathBuf::from("/dev/null")] {
        let (store, _) = Store::open(&dir).unwrap();
        store.put(Shelf::Servers, b"a", b"1".to_vec());
        assert!(!store.flush().await);
        let status = store.status();
        assert!(!status.ok && status.path.is_none() && status.dropped == 1);
        assert!(status.reasons[0].contains("nothing is kept"), "{:?}", status.reasons);
    }
}

#[test]
fn too_many_waiting_keys_are_dropped_and_counted() {
    let (store, _) = {
        let shared = Arc::new(Shared::default());
        // No thread takes anything out.
        (Store { shared: shared.clone(), path: None, thread: Mutex::new(None) }, shared)
    };
    for number in 0..WAITING + 3 {
        store.put(Shelf::Servers, &number.to_be_bytes(), Vec::new());
    }
    store.put(Shelf::Servers, &0_usize.to_be_bytes(), b"again".to_vec());
    assert_eq!(store.status().dropped, 3);
}

#[test]
fn a_record_is_read_by_its_version() {
    let bytes = record(1, &vec!["a"]).unwrap();
    assert_eq!(read_record::<Vec<String>>(1, &bytes), Some(vec!["a".to_owned()]));
    assert_eq!(read_record::<Vec<String>>(2, &bytes), None);
    assert_eq!(read_record::<Vec<String>>(1, b"\x01[1]"), None);
    assert_eq!(read_record::<Vec<String>>(1, b""), None);
}

fn row(number: u64, hour: u32, bytes: usize) -> Row {
    Row { number, hour, bytes: vec![number as u8; bytes] }
}

/// The numbers of all rows that may be of these hours.
fn numbers(store: &Store, hours: std::ops::RangeInclusive<u32>, piece: usize) -> Vec<u64> {
    let mut walk = store.reader().walk(hours, 0, u64::MAX);
    let mut all = Vec::new();
    loop {
        let rows = walk.next_rows(piece).unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows.into_iter().map(|(number, _)| number));
    }
}

/// The directories of rows.
fn parts(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("outcomes")).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn rows_come_back_in_their_order_by_hour_and_after_a_restart() {
    let (_root, dir) = place();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    let march = 492_000;
    for number in 1..=1000 {
        store.append(row(number, march + (number / 100) as u32, 100));
        // One arrived hours before it was over.
        if number == 500 {
            assert!(store.flush().await);
        }
    }
    store.append(row(1001, march, 100));
    drop(store);
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    assert_eq!(numbers(&store, 0..=u32::MAX, 7), (1..=1001).collect::<Vec<_>>());
    assert_eq!(numbers(&store, march + 2..=march + 3, 1000), (200..400).collect::<Vec<_>>());
    assert_eq!(numbers(&store, march..=march, 1000).len(), 1001, "from its first to its last");
    assert!(numbers(&store, 0..=march - 1, 10).is_empty());
    assert_eq!(store.reader().last_number(), Ok(Some(1001)));
    let mut newest = Vec::new();
    let see = |number, bytes: &[u8]| {
        newest.push((number, bytes.to_vec()));
        if newest.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    store.reader().back(1001, see).unwrap();
    assert_eq!(newest, [(1000, vec![232; 100]), (999, vec![231; 100])]);
    // A month later rows go into another directory.
    store.append(row(1002, march + 31 * 24, 10));
    assert!(store.flush().await);
    assert_eq!(parts(&dir), ["000001-2026-02", "000002-2026-03"]);
    assert_eq!(numbers(&store, 0..=u32::MAX, 900).len(), 1002);
    let mut walk = store.reader().walk_from(1000, u64::MAX).unwrap();
    assert_eq!(walk.next_rows(10).unwrap().len(), 2, "of the directory that has it");
    assert_eq!(walk.next_rows(10).unwrap().len(), 1);
}

#[test]
fn what_was_read_stays_open_for_a_while() {
    let (_root, dir) = place();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    (1..=10).for_each(|it| store.append(row(it, 492_000, 100)));
    drop(store);
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    let library = &store.shared.library;
    let is_open = || guard(&library.from(0).unwrap().open).upgrade().is_some();
    assert!(!is_open());
    assert_eq!(store.reader().last_number(), Ok(Some(10)));
    assert!(is_open());
    guard(&library.read).until = Some(Instant::now());
    store.shared.woken.notify_one();
    let begun = Instant::now();
    while is_open() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the store's thread lets go of it");
        std::thread::yield_now();
    }
    // Nobody said that more would be read.
    assert_eq!(Reader(library.clone()).last_number(), Ok(Some(10)));
    assert!(!is_open());
}

#[tokio::test]
async fn the_oldest_rows_go_when_there_is_no_more_space() {
    let (_root, dir) = place();
    let most = 16 << 20;
    let (store, _) = Store::open_with_rows(&dir, most).unwrap();
    for number in 1..=4000 {
        store.append(row(number, 500_000, 10_000));
        if number % 100 == 0 {
            assert!(store.flush().await);
            assert!(store.status().bytes < most + (4 << 20), "{:?}", store.status());
        }
    }
    let left = numbers(&store, 0..=u32::MAX, 1000);
    assert!(left.len() > 300 && left.len() < 2000, "{}", left.len());
    assert_eq!(left, (left[0]..=4000).collect::<Vec<_>>(), "the newest, without a hole");
    assert!(parts(&dir).len() > 2, "{:?}", parts(&dir));
    drop(store);
    let (store, _) = Store::open_with_rows(&dir, most / 2).unwrap();
    assert!(numbers(&store, 0..=u32::MAX, 1000).len() < left.len(), "less space was given");
}

#[tokio::test]
async fn what_is_cleared_is_gone_from_the_disk_and_what_comes_later_is_kept() {
    let (_root, dir) = place();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    for number in 1..=300 {
        store.append(row(number, 500_000, 300));
    }
    store.put_all(Shelf::Rollups, [(b"hour".to_vec(), Some(b"phrase-in-sums".to_vec()))]);
    store.put(Shelf::Servers, b"a", b"1".to_vec());
    assert!(store.flush().await);
    fs::create_dir(dir.join("outcomes/000001-2026-01.damaged-20260101T000000Z")).unwrap();
    let mut walk = store.reader().walk(0..=u32::MAX, 0, u64::MAX);
    assert_eq!(walk.next_rows(10).unwrap().len(), 10);
    // These wait while it is cleared.
    store.append(row(301, 500_000, 300));
    store.clear();
    store.append(row(302, 500_000, 300));
    store.put_all(Shelf::Rollups, [(b"later".to_vec(), Some(b"1".to_vec()))]);
    assert!(store.flush().await);
    assert_eq!(numbers(&store, 0..=u32::MAX, 10), [302]);
    assert_eq!(parts(&dir).len(), 1);
    // Whoever was reading misses the rest and nothing worse.
    while !walk.next_rows(100).unwrap().is_empty() {}
    drop((store, walk));
    for file in files(&dir) {
        let bytes = fs::read(&file).unwrap();
        assert!(memchr::memmem::find(&bytes, b"phrase-in-sums").is_none(), "{}", file.display());
    }
    let (store, loaded) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    assert_eq!((loaded.rollups, loaded.servers), (vec![pair("later", "1")], vec![pair("a", "1")]));
    assert_eq!(numbers(&store, 0..=u32::MAX, 10), [302]);
}

#[tokio::test]
async fn rows_that_cannot_be_written_are_counted_and_the_rest_is_kept() {
    let (_root, dir) = place();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    fs::write(dir.join("outcomes"), "in the way").unwrap();
    (1..=3).for_each(|number| store.append(row(number, 500_000, 10)));
    store.put(Shelf::Servers, b"a", b"1".to_vec());
    assert!(store.flush().await, "the other databases work");
    let status = store.status();
    assert!(!status.ok && store.is_ok() && status.dropped == 3, "{status:?}");
    assert!(status.reasons[0].contains("outcomes are lost"), "{status:?}");
    // It is not tried each time.
    fs::remove_file(dir.join("outcomes")).unwrap();
    store.append(row(4, 500_000, 10));
    assert!(store.flush().await);
    assert_eq!((store.status().dropped, parts(&dir).len()), (4, 0));
    drop(store);
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    store.append(row(5, 500_000, 10));
    assert!(store.flush().await && store.status().ok);
    assert_eq!(numbers(&store, 0..=u32::MAX, 10), [5]);
}

#[tokio::test]
async fn a_damaged_directory_of_rows_is_moved_aside_and_the_others_are_read() {
    let (_root, dir) = place();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    for number in 1..=3 {
        store.append(row(number, 492_000 + 800 * number as u32, 100));
        assert!(store.flush().await);
    }
    drop(store);
    // One that was opened again has what it can be checked against.
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    assert_eq!(numbers(&store, 0..=u32::MAX, 10), [1, 2, 3]);
    drop(store);
    let names = parts(&dir);
    assert_eq!(names.len(), 3);
    fs::write(dir.join("outcomes").join(&names[1]).join("db"), b"no database").unwrap();
    let (store, _) = Store::open_with_rows(&dir, 64 << 20).unwrap();
    assert_eq!(numbers(&store, 0..=u32::MAX, 10), [1, 3]);
    assert!(parts(&dir).iter().any(|it| it.contains(".damaged-")), "{:?}", parts(&dir));
    assert!(store.status().reasons[0].contains("was damaged"), "{:?}", store.status());
}
