//! What may be touched and what not, while nothing changes and while somebody exchanges directories and links.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// `inside` is a data root; `outside` lies beside it and has a file called `key`.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["inside/deep", "outside"] {
            fs::create_dir_all(place.path(name)).unwrap();
        }
        for (name, text) in [("inside/own", "own"), ("inside/deep/own", "deep"), ("outside/key", "secret")] {
            fs::write(place.path(name), text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> FileAccess {
        FileAccess::beneath(&[self.path("inside")], &[]).unwrap()
    }

    fn read(&self, files: &FileAccess, name: &str) -> Result<String, String> {
        let mut file = files.open(&self.path(name)).map_err(|error| error.why.to_string())?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }

    fn write(&self, files: &FileAccess, name: &str, directories: Directories) -> Result<(), String> {
        let target = files.target(&self.path(name), directories).map_err(|error| error.why.to_string())?;
        let mut file = target.begin().map_err(|error| error.why.to_string())?;
        file.file().write_all(b"written").map_err(|error| error.to_string())?;
        file.finish(true).map(|_| ()).map_err(|error| error.to_string())
    }

    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

const OUTSIDE: &str = "outside this worker's data roots";

#[test]
fn links_and_parents_lead_where_they_lead() {
    let place = Place::new();
    symlink(place.path("inside/deep"), place.path("inside/absolute")).unwrap();
    symlink("deep", place.path("inside/relative")).unwrap();
    symlink(place.path("outside"), place.path("inside/out")).unwrap();
    symlink("../../outside/key", place.path("inside/deep/out")).unwrap();
    symlink("loop", place.path("inside/loop")).unwrap();
    symlink(place.path("inside"), place.path("outside/in")).unwrap();
    let files = place.files();
    let good = [
        ("inside/own", "own"),
        ("inside/deep/../own", "own"),
        ("inside/deep/../../inside/own", "own"),
        ("inside/absolute/own", "deep"),
        ("inside/relative/own", "deep"),
        ("inside/relative/../own", "own"),
        ("outside/in/own", "own"),
        ("outside/in/deep/own", "deep"),
    ];
    for (name, text) in good {
        assert_eq!(place.read(&files, name).as_deref(), Ok(text), "{name}");
    }
    let bad = ["outside/key", "inside/../outside/key", "inside/out/key", "inside/deep/out", "inside/out/in/../key"];
    for name in bad {
        assert_eq!(place.read(&files, name), Err(OUTSIDE.to_owned()), "{name}");
        assert_eq!(place.write(&files, name, Directories::All), Err(OUTSIDE.to_owned()), "{name}");
    }
    assert!(place.read(&files, "inside/loop").unwrap_err().contains("symbolic link"));
    assert_eq!(place.names("outside"), ["in", "key"]);
    assert_eq!(fs::read_to_string(place.path("outside/key")).unwrap(), "secret");
}

#[test]
fn what_is_outside_is_not_told() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let files = place.files();
    let names = ["nowhere", "nowhere/at/all", "outside", "outside/key", "outside/nothing", "file/x", "inside/../nowhere/x"];
    for name in names {
        assert_eq!(place.read(&files, name), Err(OUTSIDE.to_owned()), "{name}");
        assert_eq!(place.write(&files, name, Directories::All), Err(OUTSIDE.to_owned()), "{name}");
    }
    assert!(place.read(&files, "inside/nothing").unwrap_err().contains("No such file"));
    let nothing = FileAccess::nothing();
    for name in ["inside/own", "nowhere"] {
        assert!(place.read(&nothing, name).unwrap_err().contains("--data-root"), "{name}");
        assert!(place.write(&nothing, name, Directories::All).unwrap_err().contains("--data-root"), "{name}");
    }
}

#[test]
fn only_regular_files_are_opened_and_nobody_waits() {
    let place = Place::new();
    let pipe = place.path("inside/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("inside/socket")).unwrap();
    let begun = Instant::now();
    for name in ["inside/pipe", "inside/socket", "inside/deep", "inside"] {
        assert_eq!(place.read(&place.files(), name), Err("not a regular file".to_owned()), "{name}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn directories_are_made_as_far_as_it_is_allowed() {
    let place = Place::new();
    let files = place.files();
    place.write(&files, "inside/a/b/c", Directories::All).unwrap();
    place.write(&files, "inside/d/e", Directories::Last).unwrap();
    place.write(&files, "inside/own", Directories::There).unwrap();
    assert_eq!(place.read(&files, "inside/own").as_deref(), Ok("written"));
    for (name, directories) in [
        ("inside/f/g", Directories::There),
        ("inside/f/g/h", Directories::Last),
        ("inside/f/../own", Directories::All),
        ("inside/f/../../outside/x", Directories::All),
        ("inside/deep", Directories::All),
    ] {
        assert!(place.write(&files, name, directories).is_err(), "{name}");
    }
    assert_eq!(place.names("inside"), ["a", "d", "deep", "own"]);
    assert_eq!(place.names("inside/a/b"), ["c"]);
}

#[test]
fn an_unfinished_file_leaves_nothing() {
    let place = Place::new();
    let mut file = place.files().target(&place.path("inside/x"), Directories::There).unwrap().begin().unwrap();
    assert_eq!(place.names("inside").len(), 3);
    fs::write(place.path("inside/x"), "another").unwrap();
    assert_eq!(file.finish(false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(file);
    assert_eq!(place.names("inside"), ["deep", "own", "x"]);
}

#[test]
fn secrets_are_kept_from_graphs_under_every_root() {
    let place = Place::new();
    for name in ["state/authority", "state/tokens", "spill/rask-worker-12-0", "given", "public/rask-worker-data"] {
        fs::create_dir_all(place.path("inside").join(name)).unwrap();
    }
    let keys = [
        "inside/state/authority/ca.key",
        "inside/state/tokens/1",
        "inside/state/epoch",
        "inside/spill/rask-worker-12-0/1",
        "inside/given/x",
        "inside/token",
    ];
    for name in keys {
        fs::write(place.path(name), "secret").unwrap();
    }
    fs::write(place.path("inside/public/rask-worker-data/x"), "public").unwrap();
    symlink("state", place.path("inside/link")).unwrap();
    fs::hard_link(place.path("inside/token"), place.path("inside/harmless")).unwrap();
    let secrets = [place.path("inside/given"), place.path("inside/token"), place.path("inside/to/be/made")];
    let kept = "kept from graphs, as all is that shows secrets of a cluster, processes or devices";
    for files in [FileAccess::beneath(&[place.path("inside")], &secrets).unwrap(), FileAccess::of_user(&secrets)] {
        for name in keys.into_iter().chain(["inside/link/authority/ca.key", "inside/state/nothing", "inside/harmless"]) {
            assert_eq!(place.read(&files, name), Err(kept.to_owned()), "{name}");
        }
        for name in ["inside/state/tokens/2", "inside/given/y", "inside/to/be/made", "inside/to/be/made/x"] {
            assert_eq!(place.write(&files, name, Directories::All), Err(kept.to_owned()), "{name}");
        }
        assert_eq!(place.read(&files, "inside/public/rask-worker-data/x").as_deref(), Ok("public"));
        place.write(&files, "inside/to/be/seen", Directories::All).unwrap();
        fs::remove_dir_all(place.path("inside/to")).unwrap();
    }
}

#[test]
fn what_is_hidden_in_a_home_is_not_given_with_it() {
    let place = Place::new();
    for name in ["inside/.ssh/deep", "inside/data/.cache", "inside/.cache/data"] {
        fs::create_dir_all(place.path(name)).unwrap();
        fs::write(place.path(name).join("x"), "x").unwrap();
    }
    fs::write(place.path("inside/.profile"), "x").unwrap();
    let home = Some(place.path("inside"));
    for root in [place.path("inside"), place.path("")] {
        let files = FileAccess::beneath_of(&[root], &[], home.clone()).unwrap();
        for name in ["inside/.ssh/deep/x", "inside/.ssh/nothing", "inside/.profile", "inside/.nothing", "inside/.cache/data/x"] {
            assert!(place.read(&files, name).unwrap_err().contains("kept from graphs"), "{name}");
            assert!(place.write(&files, name, Directories::All).unwrap_err().contains("kept from graphs"), "{name}");
        }
        for name in ["inside/own", "inside/data/.cache/x"] {
            assert!(place.read(&files, name).is_ok(), "{name}");
        }
    }
    // Somebody who names a hidden directory means it.
    let files = FileAccess::beneath_of(&[place.path("inside/.cache/data")], &[], home).unwrap();
    assert!(place.read(&files, "inside/.cache/data/x").is_ok());
}

#[test]
fn nothing_of_the_system_is_read() {
    let files = FileAccess::of_user(&[]);
    for name in ["/proc/self/environ", "/proc/1/status", "/proc/nothing", "/sys/kernel/mm", "/dev/null", "/dev/shm/x"] {
        let error = files.open(Path::new(name)).unwrap_err().to_string();
        assert!(error.contains("kept from graphs"), "{error}");
        assert!(files.target(Path::new(name), Directories::There).unwrap_err().to_string().contains("kept from"), "{name}");
    }
    assert!(FileAccess::beneath(&["/".into()], &[]).unwrap_err().to_string().contains("holds everything"));
    assert!(FileAccess::beneath(&["/proc/self/root".into()], &[]).is_err());
    let place = Place::new();
    symlink("/proc/self/environ", place.path("inside/environ")).unwrap();
    symlink("/proc/self/root", place.path("inside/root")).unwrap();
    for name in ["inside/environ", "inside/root/etc/hostname"] {
        assert_eq!(place.read(&place.files(), name), Err(OUTSIDE.to_owned()), "{name}");
    }
    assert!(place.read(&files, "inside/environ").unwrap_err().contains("kept from"));
    let proc = FileAccess::beneath(&["/proc/self".into()], &[]).unwrap();
    assert!(proc.open(Path::new("/proc/self/environ")).unwrap_err().to_string().contains("kept from"));
}

/// Somebody who may write in the root exchanges a directory and a link without pause.
#[test]
fn nobody_wins_a_race_against_a_walk() {
    let place = Place::new();
    fs::write(place.path("outside/own"), "secret").unwrap();
    symlink(place.path("outside"), place.path("inside/link")).unwrap();
    let is_over = AtomicBool::new(false);
    let files = place.files();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, other) = (place.path("inside/deep"), place.path("inside/link"));
            while !is_over.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, flags).unwrap();
            }
        });
        let begun = Instant::now();
        let (mut n_read, mut n_refused) = (0, 0);
        while begun.elapsed() < Duration::from_secs(2) || n_read == 0 || n_refused == 0 {
            match place.read(&files, "inside/deep/own") {
                Ok(text) => {
                    assert_eq!(text, "deep");
                    n_read += 1;
                }
                Err(_) => n_refused += 1,
            }
            let _ = place.write(&files, "inside/deep/new", Directories::There);
            let _ = place.write(&files, "inside/deep/made/new", Directories::All);
            assert!(begun.elapsed() < Duration::from_secs(60), "{n_read} read, {n_refused} refused");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(place.names("outside"), ["key", "own"]);
    assert_eq!(fs::read_to_string(place.path("outside/own")).unwrap(), "secret");
}
