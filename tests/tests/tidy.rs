//! The house rules that a compiler does not check: headings, sizes, pure machines, who may name what, who may depend on whom.

use std::path::{Path, PathBuf};

const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every source file of the workspace, with its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let from_root = path.strip_prefix(root()).expect("inside the workspace").to_string_lossy().into_owned();
                found.push((from_root, std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    found.sort();
    assert!(found.len() > 40, "the sources were not found");
    found
}

/// Lines of code: comments and what only tests compile do not count.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").filter(|line| !line.trim_start().starts_with("//"))
}

fn report(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_file_says_what_it_is_for() {
    let offenders: Vec<_> = sources().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    report("files begin with `//!`", &offenders);
}

#[test]
fn no_file_is_a_god() {
    let sizes = sources().into_iter().map(|(path, text)| (path, text.lines().count()));
    let offenders: Vec<_> = sizes.filter(|(_, n)| *n > MAX_LINES).map(|(path, n)| format!("{path}: {n} lines")).collect();
    report("a file above 600 lines is two ideas", &offenders);
}

#[test]
fn machines_are_pure() {
    let forbidden = [
        "tokio",
        "std::time::Instant",
        "SystemTime",
        "std::thread",
        "std::net::Udp",
        "std::net::Tcp",
        "std::fs",
        "rand::",
        "async fn",
        "std::env",
        "HashMap::new",
        "HashSet::new",
        "std::collections::HashMap",
        "std::collections::HashSet",
    ];
    let mut offenders = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| path.contains("src/machine/")) {
        for word in forbidden {
            offenders.extend(code(&text).filter(|line| line.contains(word)).map(|line| format!("{path}: {}", line.trim())));
        }
    }
    report("machines know no clock, thread, socket, file, randomness or hash order", &offenders);
}

#[test]
fn each_library_has_one_home() {
    let homes: [(&str, &str); 4] =
        [("quinn::", "comm/"), ("bincode::", "comm/"), ("dashmap::", "worker/src/store/"), ("petgraph::", "graphs/core/")];
    let mut offenders = Vec::new();
    for (path, text) in sources() {
        for (library, home) in homes {
            if !path.starts_with(home) && code(&text).any(|line| line.contains(library) && !line.contains('"')) {
                offenders.push(format!("{path} names {library}"));
            }
        }
    }
    report("a library is named in one room only", &offenders);
}

/// The names of the dependencies in the manifest of `room`, without those that only its tests use.
fn dependencies(room: &str) -> Vec<String> {
    let path = root().join(room).join("Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(path).expect("a manifest").parse().expect("TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn dependencies_point_the_right_way() {
    let forbidden: [(&str, &[&str]); 8] = [
        (
            "graphs/core",
            &["rask-arrays", "rask-frames", "datafusion", "rask-comm", "rask-scheduler", "rask-worker", "rask", "tokio"],
        ),
        ("graphs/arrays", &["rask-comm", "rask-scheduler", "rask-worker", "rask", "rask-frames"]),
        ("graphs/frames", &["rask-comm", "rask-scheduler", "rask-worker", "rask"]),
        ("comm", &["rask-arrays", "rask-frames", "datafusion", "rask-scheduler", "rask-worker", "rask", "petgraph", "dashmap"]),
        (
            "scheduler",
            &["rask-arrays", "rask-frames", "datafusion", "rask-worker", "rask", "quinn", "bincode", "dashmap", "petgraph"],
        ),
        ("worker", &["rask-arrays", "rask-frames", "datafusion", "rask-scheduler", "rask", "quinn", "bincode", "petgraph"]),
        ("client", &["quinn", "bincode", "dashmap", "petgraph"]),
        ("tests", &["rask-arrays", "rask-frames", "datafusion", "rask"]),
    ];
    let mut offenders = Vec::new();
    for (room, unwanted) in forbidden {
        let there = dependencies(room);
        offenders.extend(there.iter().filter(|name| unwanted.contains(&name.as_str())).map(|name| format!("{room} on {name}")));
    }
    report("a room depends on what it must not know", &offenders);
}
