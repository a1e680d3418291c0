//! A disk that is full.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use super::one_service;
use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, each};
use super::support::{free_port, get};

/// A file that cannot be written keeps back no operation; it is written as soon as it can be.
#[tokio::test]
async fn a_full_disk_keeps_no_dead_server_in_the_pool_and_the_file_follows_later() {
    for program in each() {
        let lab_dir = tempfile::tempdir().unwrap();
        let dir = lab_dir.path().join("config");
        std::fs::create_dir(&dir).unwrap();
        let mut world = World::with(&program, |s| s.config_file = dir.join("haproxy.cfg"));
        world.lab.launch.config = dir.join("haproxy.cfg");
        world.restart();
        let (mut world, port, http) = one_service(world).await;
        let other = HttpBackend::start("b1").await;
        // What stands in the directory's place fails every write, for root too.
        let away = lab_dir.path().join("away");
        std::fs::rename(&dir, &away).unwrap();
        std::fs::write(&dir, "").unwrap();
        world.want("web", vec![backend("b1", other.address, port)]);
        // A turn that finds the file replaced looks at what runs first, and its pace may leave the file to a later one.
        let mut turns = 0..100;
        let error = loop {
            assert!(turns.next().is_some(), "nobody is told");
            match world.turn().await {
                Err(error) => break error,
                Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await, // between two turns, until one fails
            }
        };
        assert!(error.contains("haproxy.cfg"), "{error}");
        assert_eq!(get(port).await, "b1", "HAProxy {}", world.version());
        for _ in 0..3 {
            assert!(world.turn().await.is_err(), "it is said as long as it lasts");
        }
        std::fs::remove_file(&dir).unwrap();
        std::fs::rename(&away, &dir).unwrap();
        world.settle().await;
        assert_eq!(world.reloads(), ["start"]);
        assert_eq!(world.on_disk(), world.running().await);
        drop(http);
        world.assert_disk_is_what_runs().await;
    }
}

/// Where the small disk is, in the copy of this test that has one.
const DISK: &str = "TEST_SMALL_DISK";

/// Runs this very test again in a mount namespace of its own, so that what it mounts goes with it; true in the copy.
fn with_a_small_disk(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let Some(dir) = testing::in_own_mounts(test, DISK, dir.path()) else { return false };
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(dir).status().unwrap();
    assert!(mounted.success(), "mounting a small disk");
    true
}

/// Fills the disk to the last byte.
fn fill(dir: &Path) {
    let mut filler = File::options().create(true).append(true).open(dir.join("filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
}

/// A world whose files are on the small disk.
fn world_on(disk: &Path, program: &Path) -> World {
    let mut world = World::with(program, |s| s.config_file = disk.join("haproxy.cfg"));
    world.lab.launch.config = disk.join("haproxy.cfg");
    world.restart();
    world
}

/// Leaves the disk to the next HAProxy.
fn clear(disk: &Path) {
    for entry in std::fs::read_dir(disk).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// ENOSPC itself: servers go on changing, what needs the disk says so and harms nothing, and the file follows later.
#[tokio::test]
async fn on_a_disk_without_a_byte_left_servers_change_and_the_last_good_file_stays_whole() {
    if !with_a_small_disk("disk::on_a_disk_without_a_byte_left_servers_change_and_the_last_good_file_stays_whole") {
        return;
    }
    let disk = std::path::PathBuf::from(std::env::var_os(DISK).unwrap());
    for program in each() {
        let (mut world, port, http) = one_service(world_on(&disk, &program)).await;
        let other = HttpBackend::start("b1").await;
        world.want("second", vec![backend("b0", http.address, free_port())]);
        world.settle().await;
        let good = std::fs::read(disk.join("haproxy.cfg.last-good")).unwrap();
        fill(&disk);
        world.want("web", vec![backend("b1", other.address, port)]);
        let error = world.turn().await.unwrap_err();
        assert!(error.contains("No space left"), "{error}");
        assert_eq!(get(port).await, "b1", "HAProxy {}", world.version());
        // A reload needs the disk; room for the candidate alone must not spoil the last good file.
        world.want("third", vec![backend("b0", http.address, free_port())]);
        world.turns_until("it is tried", async |w| w.reloads().last().unwrap().ends_with('!')).await;
        let error = world.haproxy.status().lock().unwrap().reloads[0].error.clone().unwrap();
        assert!(error.contains("No space left"), "{error}");
        let filler = File::options().write(true).open(disk.join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - 4096).unwrap();
        drop(filler);
        let tried = world.reloads().len();
        world.turns_until("it is tried again", async |w| w.reloads().len() > tried).await;
        assert!(world.reloads().last().unwrap().ends_with('!'));
        assert_eq!(std::fs::read(disk.join("haproxy.cfg.last-good")).unwrap(), good);
        assert_eq!(get(port).await, "b1");
        assert!(world.on_disk().len() >= 2, "the file is whole");
        std::fs::remove_file(disk.join("filler")).unwrap();
        world.settle().await;
        assert_eq!(world.on_disk(), world.running().await);
        assert_eq!(world.file().unwrap().sections.len(), 3);
        world.assert_disk_is_what_runs().await;
        clear(&disk);
    }
}

/// A config directory that became read-only, as a disk with errors does: servers go on changing, and the rest follows.
#[tokio::test]
async fn on_a_read_only_disk_servers_change_and_reloads_follow_once_it_can_be_written() {
    if !with_a_small_disk("disk::on_a_read_only_disk_servers_change_and_reloads_follow_once_it_can_be_written") {
        return;
    }
    let disk = std::path::PathBuf::from(std::env::var_os(DISK).unwrap());
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&disk).status().unwrap();
        assert!(done.success(), "remounting the small disk {how}");
    };
    for program in each() {
        let (mut world, port, http) = one_service(world_on(&disk, &program)).await;
        let other = HttpBackend::start("b1").await;
        remount("ro");
        world.want("web", vec![backend("b1", other.address, port)]);
        let error = world.turn().await.unwrap_err();
        assert!(error.contains("Read-only file system"), "{error}");
        assert_eq!(get(port).await, "b1", "HAProxy {}", world.version());
        let second = free_port();
        world.want("second", vec![backend("b0", http.address, second)]);
        world.turns_until("it is tried", async |w| w.reloads().last().unwrap().ends_with('!')).await;
        assert_eq!(get(port).await, "b1");
        remount("rw");
        world.settle().await;
        assert_eq!((get(port).await, get(second).await), ("b1".to_owned(), "b0".to_owned()));
        assert_eq!(world.on_disk(), world.running().await);
        world.assert_disk_is_what_runs().await;
        clear(&disk);
    }
}
