use std::{fs, os::unix::fs::symlink};

use super::*;

const QUIET: Duration = Duration::from_millis(30);
/// Longer than any event takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until there was a change.
async fn told(folders: &mut Folders) {
    let settled = folders.settled(QUIET, 20 * QUIET);
    timeout(PATIENCE, settled).await.expect("the change is told");
}

/// Whether nothing is told of for a while.
async fn is_quiet(folders: &mut Folders) -> bool {
    timeout(8 * QUIET, folders.settled(QUIET, 20 * QUIET)).await.is_err()
}

async fn watching(target: Target) -> Folders {
    let mut folders = Folders::new().unwrap();
    folders.watch(vec![target]).await;
    folders
}

#[tokio::test]
async fn a_file_is_told_of_however_it_is_written() {
    let home = tempfile::tempdir().unwrap();
    let (file, other) = (home.path().join("a.toml"), home.path().join("b"));
    fs::write(&file, "1").unwrap();
    let mut folders = watching(Target::File(file.clone())).await;
    fs::write(&other, "beside it").unwrap();
    fs::read(&file).unwrap();
    assert!(is_quiet(&mut folders).await);
    fs::write(&file, "2").unwrap();
    told(&mut folders).await;
    fs::rename(&other, &file).unwrap();
    told(&mut folders).await;
    fs::remove_file(&file).unwrap();
    told(&mut folders).await;
    fs::write(&file, "3").unwrap();
    told(&mut folders).await;
    assert!(is_quiet(&mut folders).await);
}

#[tokio::test]
async fn what_is_not_there_yet_is_told_of_when_it_appears() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("a/b/c");
    let mut folders = watching(Target::File(folder.join("x.toml"))).await;
    fs::create_dir(home.path().join("a")).unwrap();
    told(&mut folders).await;
    fs::create_dir_all(&folder).unwrap();
    told(&mut folders).await;
    fs::write(folder.join("x.toml"), "1").unwrap();
    told(&mut folders).await;
}

#[tokio::test]
async fn a_folder_that_takes_the_place_of_another_is_the_one_that_is_watched() {
    let home = tempfile::tempdir().unwrap();
    let (folder, away) = (home.path().join("a"), home.path().join("away"));
    fs::create_dir(&folder).unwrap();
    let mut folders = watching(Target::File(folder.join("x"))).await;
    fs::rename(&folder, &away).unwrap();
    fs::create_dir(&folder).unwrap();
    told(&mut folders).await;
    fs::write(away.join("x"), "1").unwrap();
    assert!(is_quiet(&mut folders).await);
    fs::write(folder.join("x"), "1").unwrap();
    told(&mut folders).await;
}

#[tokio::test]
async fn links_on_the_way_are_followed_when_they_are_pointed_elsewhere() {
    // As a volume of a cluster is: the file is a link into a link, which is replaced.
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    for (version, text) in [("1", "one"), ("2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("x.toml"), text).unwrap();
    }
    fs::create_dir(at("here")).unwrap();
    symlink("../1", at("here/data")).unwrap();
    symlink("data/x.toml", at("here/x.toml")).unwrap();
    let mut folders = watching(Target::File(at("here/x.toml"))).await;
    fs::write(at("1/x.toml"), "one more").unwrap();
    told(&mut folders).await;
    symlink("../2", at("here/new")).unwrap();
    fs::rename(at("here/new"), at("here/data")).unwrap();
    told(&mut folders).await;
    fs::write(at("1/x.toml"), "nobody cares").unwrap();
    assert!(is_quiet(&mut folders).await);
    fs::write(at("2/x.toml"), "two more").unwrap();
    told(&mut folders).await;
    assert_eq!(fs::read_to_string(at("here/x.toml")).unwrap(), "two more");
}

#[tokio::test]
async fn in_a_tree_files_are_told_of_when_they_come_are_whole_and_go() {
    use std::io::Write as _;
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("models");
    let mut folders = watching(Target::Tree(tree.clone())).await;
    fs::create_dir_all(tree.join("library/qwen")).unwrap();
    told(&mut folders).await;
    let mut file = fs::File::create(tree.join("library/qwen/8b")).unwrap();
    told(&mut folders).await;
    file.write_all(b"a piece").unwrap();
    assert!(is_quiet(&mut folders).await);
    drop(file);
    told(&mut folders).await;
    fs::remove_dir_all(tree.join("library")).unwrap();
    told(&mut folders).await;
    fs::remove_dir_all(&tree).unwrap();
    told(&mut folders).await;
    fs::create_dir_all(tree.join("library")).unwrap();
    told(&mut folders).await;
}

#[test]
fn a_circle_of_links_ends() {
    let home = tempfile::tempdir().unwrap();
    symlink("b", home.path().join("a")).unwrap();
    symlink("a", home.path().join("b")).unwrap();
    let trail = Trail::of(&Target::File(home.path().join("a")));
    assert!(trail.is_about(&fs::canonicalize(home.path()).unwrap().join("b")));
}
