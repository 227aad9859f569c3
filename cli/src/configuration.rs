//! The configuration file: what flags and `RASK_*` variables have not said.
//!
//! One TOML file, `RASK_CONFIG` or `~/.config/rask/rask.toml`. Every key is optional; unknown keys are mistakes, because a
//! misspelt one would silently do nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::arguments::{parse_duration, parse_nbytes};
use crate::exit::Failure;

/// What the file may set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Configuration {
    /// As `--log`.
    pub(crate) log: Option<String>,
    /// As `--state-dir`.
    pub(crate) state_dir: Option<PathBuf>,
    /// As `--scheduler`.
    pub(crate) scheduler: Option<String>,
    /// As `--token-file`.
    pub(crate) token_file: Option<PathBuf>,
    /// As `rask scheduler --listen`.
    pub(crate) listen: Option<String>,
    /// As `rask scheduler --grace`.
    #[serde(deserialize_with = "duration")]
    pub(crate) grace: Option<std::time::Duration>,
    /// As `rask worker --patience`.
    #[serde(deserialize_with = "duration")]
    pub(crate) patience: Option<std::time::Duration>,
    /// As `rask worker --drain-limit`.
    #[serde(deserialize_with = "duration")]
    pub(crate) drain_limit: Option<std::time::Duration>,
    /// As `rask run --workers`.
    pub(crate) workers: Option<u32>,
    /// As `--threads`.
    pub(crate) threads: Option<u32>,
    /// As `--memory`: a size with its unit, or bytes.
    #[serde(deserialize_with = "nbytes")]
    pub(crate) memory: Option<u64>,
    /// As `rask worker --spill-dir`.
    pub(crate) spill_dir: Option<PathBuf>,
    /// As `rask worker --spill-limit`: a size with its unit, or bytes.
    #[serde(deserialize_with = "nbytes")]
    pub(crate) spill_limit: Option<u64>,
    /// As `rask worker --name`.
    pub(crate) name: Option<String>,
    /// As `rask worker --resources`.
    pub(crate) resources: BTreeMap<String, f64>,
    /// As `rask worker --data-root`.
    pub(crate) data_roots: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

fn nbytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Size::deserialize(deserializer)? {
        Size::Bytes(nbytes) => Ok(Some(nbytes)),
        Size::Text(text) => parse_nbytes(&text).map(Some).map_err(D::Error::custom),
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<std::time::Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map(Some).map_err(D::Error::custom)
}

impl Configuration {
    /// Read `explicit`, which must exist then, or the file in its usual place, which need not.
    ///
    /// # Errors
    /// When the file cannot be read or says something it cannot say.
    pub(crate) fn load(explicit: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = explicit.map(Path::to_owned).or_else(usual_path) else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && explicit.is_none() => Ok(Self::default()),
            Err(error) => Err(Failure::misuse(format!("cannot read the configuration {}: {error}", path.display()))),
        }
    }

    fn parse(text: &str, name: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.get(..offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            Failure::misuse(format!("{name}:{line}:{column}: {}", error.message()))
        })
    }
}

fn usual_path() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").filter(|value| !value.is_empty())?).join(".config"),
    };
    Some(base.join("rask").join("rask.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_knows_and_points_at_what_it_does_not() {
        let text = "scheduler = \"10.0.0.5:8786\"\nmemory = \"2GiB\"\ngrace = \"1m\"\n[resources]\ngpu = 1\n";
        let read = Configuration::parse(text, "rask.toml").unwrap();
        assert_eq!(read.scheduler.as_deref(), Some("10.0.0.5:8786"));
        assert_eq!(read.memory, Some(2 << 30));
        assert_eq!(read.grace, Some(std::time::Duration::from_secs(60)));
        assert_eq!(read.resources["gpu"], 1.0);
        assert_eq!(Configuration::parse("memory = 1000", "rask.toml").unwrap().memory, Some(1000));

        let unknown = Configuration::parse("log = \"info\"\nschedular = \"x\"\n", "rask.toml").unwrap_err();
        assert!(unknown.message.starts_with("rask.toml:2:1: unknown field `schedular`"), "{}", unknown.message);
        let wrong = Configuration::parse("memory = \"much\"\n", "rask.toml").unwrap_err();
        assert!(wrong.message.starts_with("rask.toml:1:10: \"much\" is no size"), "{}", wrong.message);
        assert_eq!(wrong.exit, crate::exit::Exit::Misuse);
    }
}
