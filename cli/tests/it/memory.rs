//! Workloads that are larger than the workers' memory, on processes: the benchmark checks each sum against one made in its own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{Place, Running};

/// A file system of its own, as small as it is told. It goes when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, and the reason is printed, where this user may not mount anything.
    fn mount(place: &Place, size: &str) -> Option<Self> {
        let path = place.path("disk");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                println!("skipped, since nothing can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped, since nothing can be mounted: {error}");
                None
            }
        }
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let resized = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(resized.success(), "{} becomes {size}", self.0.display());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

const OF_A_SMALL_DISK: [&str; 10] =
    ["bench", "memory", "--case", "persisted-sum", "--memory", "512MiB", "--chunk", "8MiB", "--worker-log", "info"];

#[test]
fn a_small_disk_that_is_full_ends_no_worker_and_what_fits_is_finished() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "64MiB") else { return };
    let ended = place.run(OF_A_SMALL_DISK.into_iter().chain(["--data", "352MiB", "--spill-dir", disk.0.to_str().unwrap()]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("no space is left for spill files"), "the disk was to be full: {ended:?}");
    assert!(!ended.stderr.contains("out of memory"), "{ended:?}");
}

#[test]
fn what_does_not_fit_waits_until_the_disk_has_room() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(&place, "64MiB") else { return };
    let running = Running::start(place.command(OF_A_SMALL_DISK.into_iter().chain([
        "--data",
        "640MiB",
        "--spill-dir",
        disk.0.to_str().unwrap(),
    ])));
    std::thread::sleep(Duration::from_secs(4));
    disk.resize("1GiB");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("out of memory"), "{ended:?}");
    let line: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    assert!(line["seconds"].as_f64().unwrap() > 3.0, "it was to wait: {line}");
}

#[test]
fn a_soak_ends_well_with_faults_and_leaves_nothing() {
    let place = Place::new();
    let spill = place.path("spill");
    let sizes = ["--minutes", "0.05", "--graphs", "3", "--memory", "1GiB", "--spill-dir", spill.to_str().unwrap()];
    let ended = place.run(["bench", "soak"].into_iter().chain(sizes));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let last: serde_json::Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["verdict"], last["n_graphs"].as_u64() >= Some(9)), (&"good".into(), true), "{last}");
    assert_eq!(place.names_in("spill"), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn what_memory_is_too_short_for_comes_back_from_disk() {
    let place = Place::new();
    let spill = place.path("spill");
    let sizes = ["--memory", "1GiB", "--data", "1536MiB", "--chunk", "16MiB"];
    let command = ["bench", "memory", "--spill-dir", spill.to_str().unwrap()];
    let ended = place.run(command.into_iter().chain(sizes));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let spilled: Vec<(&str, bool)> =
        lines.iter().map(|line| (line["case"].as_str().unwrap(), line["nbytes_spilled"].as_u64().unwrap() > 256 << 20)).collect();
    assert_eq!(spilled, [("persisted-sum", true), ("streaming-sum", false), ("rechunk", true)], "{}", ended.stdout);
    assert_eq!(place.names_in("spill"), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn a_client_scatters_and_gathers_several_times_the_memory_of_the_workers_and_of_its_own() {
    let place = Place::new();
    let spill = place.path("spill");
    let (memory, data) = (384 << 20, 1 << 30);
    // Every byte that comes back is compared.
    let command = ["bench", "client", "--json", "--case", "large", "--repetitions", "1", "--spill-dir", spill.to_str().unwrap()];
    let sizes = ["--data", "1GiB", "--value", "4MiB", "--memory", "384MiB", "--in-flight", "16MiB"];
    let ended = place.run(command.into_iter().chain(sizes));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<serde_json::Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let benches: Vec<&str> = lines.iter().map(|line| line["bench"].as_str().unwrap()).collect();
    assert_eq!(benches, ["scatter", "gather"], "{}", ended.stdout);
    for line in &lines {
        let number = |name: &str| line[name].as_u64().unwrap();
        assert!(number("nbytes_spilled") > data - memory, "what is beyond the memory is on disk: {line}");
        // On a busy machine a worker may be above its limit for a moment; at 120 % it would end itself.
        assert!(number("peak_workers_nbytes") < memory / 5 * 6, "the workers never have much more than their limit: {line}");
        assert!(number("peak_client_nbytes") < data / 8, "the client never has much of it: {line}");
    }
    assert_eq!(place.names_in("spill"), Vec::<String>::new(), "nothing is left behind");
}
