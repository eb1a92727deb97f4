//! What must hold of a store on a real disk.

use std::{fs, path::PathBuf};

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

fn copy(from: &Path, to: &Path) {
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
