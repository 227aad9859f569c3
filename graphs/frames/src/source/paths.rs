//! Which files: names, patterns and directories as people write them, as a list of files.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use crate::error::FrameError;
use crate::text::input::unpacked_name;

use super::options::Format;

/// The files that match, each once: patterns in the order given, the matches of one pattern by name. A directory stands
/// for the files in it.
pub(super) fn expand(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, FrameError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut seen: HashSet<PathBuf> = HashSet::new();
    for pattern in patterns {
        let found = if pattern.is_file() {
            vec![pattern.clone()]
        } else if pattern.is_dir() {
            in_directory(pattern)?
        } else {
            matches(pattern)?
        };
        if found.is_empty() {
            // A plain path that is not there has an error of its own to show; a pattern just matched nothing.
            let reason = if pattern.is_dir() {
                "no file in this directory"
            } else if is_pattern(pattern) {
                "no file matches"
            } else {
                "no such file"
            };
            return Err(FrameError::Io { path: pattern.clone(), reason: reason.to_owned() });
        }
        for path in found {
            if seen.insert(path.clone()) {
                paths.push(path);
            }
        }
    }
    if paths.is_empty() {
        return Err(FrameError::Plan("no path given".to_owned()));
    }
    Ok(paths)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// Names that other programs put beside data: files still being written (`.part`), marks (`_SUCCESS`), summaries
/// (`_metadata`) and logs.
fn is_beside_data(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']))
}

/// The files of a directory. Directories in it are refused: leaving their files out would lose rows without a word.
fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, FrameError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| FrameError::io(directory, &error))? {
        let path = entry.map_err(|error| FrameError::io(directory, &error))?.path();
        if is_beside_data(&path) {
            continue;
        }
        if path.is_dir() {
            let message = "a directory in a directory of files; name the files with a pattern (dir/*/*.parquet); values in \
                           names of directories do not become columns";
            return Err(FrameError::data(&path, message));
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

fn matches(pattern: &Path) -> Result<Vec<PathBuf>, FrameError> {
    let text = as_pattern(pattern);
    let text = text.to_str().ok_or_else(|| FrameError::Plan(format!("{}: not UTF-8", pattern.display())))?;
    let entries = glob::glob(text).map_err(|error| FrameError::Plan(format!("{text}: {}", error.msg)))?;
    // Who names such files wants them.
    let asks_for_all = is_beside_data(pattern);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| FrameError::io(error.path(), error.error()))?;
        // A link to nothing is kept, so that opening it says so.
        let is_file = path.is_file() || !path.exists();
        if is_file && (asks_for_all || !is_beside_data(&path)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// `path` as a pattern in which the directories that are there under exactly this name stand for themselves: brackets in their
/// names are no patterns.
fn as_pattern(path: &Path) -> PathBuf {
    let mut so_far = PathBuf::new();
    let mut pattern = PathBuf::new();
    let mut is_literal = true;
    for component in path.components() {
        so_far.push(component);
        is_literal &= so_far.exists();
        match component {
            Component::Normal(name) if is_literal => match name.to_str() {
                Some(name) => pattern.push(glob::Pattern::escape(name)),
                None => pattern.push(name),
            },
            Component::Normal(_) | Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
                pattern.push(component)
            }
        }
    }
    pattern
}

/// The format that the names of all files agree on.
pub(super) fn format_of(paths: &[PathBuf]) -> Result<Format, FrameError> {
    let mut common = None;
    for path in paths {
        let format = Format::of_path(path).ok_or_else(|| {
            FrameError::Plan(format!("{}: format unknown from the name; say csv, parquet, json or arrow", path.display()))
        })?;
        match common {
            None => common = Some(format),
            Some(other) if other == format => {}
            Some(other) => {
                return Err(FrameError::Plan(format!("{}: {format} among {other} files", path.display())));
            }
        }
    }
    common.ok_or_else(|| FrameError::Plan("no path given".to_owned()))
}

/// One of several files whose name says another format than the one asked for was matched by mistake; who names a single file
/// knows what it is.
pub(super) fn check_format(format: Format, paths: &[PathBuf]) -> Result<(), FrameError> {
    for path in paths {
        if let Some(other) = Format::of_path(path)
            && other != format
            && paths.len() > 1
        {
            return Err(FrameError::data(path, format!("a {other} file by its name, to be read as {format}")));
        }
        if !format.is_text() && unpacked_name(path) != *path {
            return Err(FrameError::data(path, format!("a packed {format} file: unpack it; {format} packs by itself")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(dir: &Path, names: &[&str]) {
        for name in names {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x\n1\n").unwrap();
        }
    }

    #[test]
    fn globs_are_sorted_and_each_file_comes_once() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["b.csv", "a.csv", ".hidden.csv", "_mark.csv", "c.txt"]);
        let found = expand(&[dir.path().join("*.csv"), dir.path().join("a.csv")]).unwrap();
        assert_eq!(found, [dir.path().join("a.csv"), dir.path().join("b.csv")]);
        assert_eq!(expand(&[dir.path().join("_*.csv")]).unwrap(), [dir.path().join("_mark.csv")]);
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        for (name, reason) in [("*.csv", "no file matches"), ("gone.csv", "no such file"), ("empty", "no file in this directory")]
        {
            let path = dir.path().join(name);
            let error = expand(std::slice::from_ref(&path)).unwrap_err();
            assert_eq!(error, FrameError::Io { path, reason: reason.to_owned() });
        }
    }

    #[test]
    fn brackets_in_names_of_directories_are_no_patterns() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["sub [v1] dir/a.csv", "sub [v1] dir/b.csv", "sub v dir/c.csv"]);
        let below = |name: &str| dir.path().join("sub [v1] dir").join(name);
        assert_eq!(expand(&[below("*.csv")]).unwrap(), [below("a.csv"), below("b.csv")]);
        assert_eq!(expand(&[below("[a].csv")]).unwrap(), [below("a.csv")]);
        assert_eq!(expand(&[dir.path().join("sub [v] dir/*.csv")]).unwrap(), [dir.path().join("sub v dir/c.csv")]);
        assert_eq!(expand(&[dir.path().join("sub [v1] dir")]).unwrap().len(), 2);
    }

    #[test]
    fn directories_are_their_files_and_nothing_is_lost_in_them() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["d/p0.parquet", "d/p1.parquet", "d/_SUCCESS", "d/.p0.crc", "d/_delta_log/0.json"]);
        let found = expand(&[dir.path().join("d")]).unwrap();
        assert_eq!(found, [dir.path().join("d/p0.parquet"), dir.path().join("d/p1.parquet")]);
        touch(dir.path(), &["d/year=2024/p.parquet"]);
        let error = expand(&[dir.path().join("d")]).unwrap_err().to_string();
        assert!(error.contains("year=2024: a directory in a directory"), "{error}");
    }

    #[test]
    fn links_to_nothing_are_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["a.csv"]);
        std::os::unix::fs::symlink(dir.path().join("gone"), dir.path().join("b.csv")).unwrap();
        assert_eq!(expand(&[dir.path().join("*.csv")]).unwrap().len(), 2);
    }

    #[test]
    fn formats_do_not_mix() {
        let error = format_of(&["a.csv".into(), "b.parquet".into()]).unwrap_err();
        assert_eq!(error.to_string(), "b.parquet: parquet among csv files");
        assert!(format_of(&["a.xyz".into()]).is_err());
        assert_eq!(format_of(&["a.csv".into(), "b.csv.gz".into()]).unwrap(), Format::Csv);
        assert!(check_format(Format::Csv, &["a.csv".into(), "part-0".into()]).is_ok());
        assert!(check_format(Format::Csv, &["a.csv".into(), "b.parquet".into()]).is_err());
        assert!(check_format(Format::Parquet, &["a.parquet.gz".into()]).unwrap_err().to_string().contains("unpack"));
    }
}
