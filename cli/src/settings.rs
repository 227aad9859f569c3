//! What flags, variables and the configuration file say together, in that order, and the defaults behind them.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rask_comm::authority::StateDir;

use crate::arguments::GlobalArguments;
use crate::configuration::Configuration;
use crate::exit::Failure;
use crate::terminal::print_note;

/// Where a scheduler listens, and is looked for, unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8786);

/// What is valid for all commands, and the file's word on the rest.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What to log; `None` for the command's own choice.
    pub(crate) log: Option<String>,
    /// The cluster's certificates.
    pub(crate) state_dir: StateDir,
    /// The configuration file.
    pub(crate) file: Configuration,
}

impl Settings {
    /// Read the configuration file and lay the global flags over it.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub(crate) fn load(arguments: &GlobalArguments) -> Result<Self, Failure> {
        let file = Configuration::load(arguments.config.as_deref())?;
        let state_dir = arguments.state_dir.clone().or_else(|| file.state_dir.clone());
        Ok(Self {
            log: arguments.log.clone().or_else(|| file.log.clone()),
            state_dir: state_dir.map_or_else(StateDir::default, StateDir::at),
            file,
        })
    }

    /// The scheduler to talk to.
    pub(crate) fn scheduler(&self, flag: Option<&String>) -> String {
        flag.or(self.file.scheduler.as_ref()).cloned().unwrap_or_else(|| DEFAULT_ADDRESS.to_string())
    }

    /// Where to spill: as a flag, a variable or the file say, or by default; `None` when that is "none".
    ///
    /// # Errors
    /// Those of the default.
    pub(crate) fn spill_dir<E>(
        &self,
        flag: Option<&PathBuf>,
        default: impl FnOnce() -> Result<PathBuf, E>,
    ) -> Result<Option<PathBuf>, E> {
        let said = flag.or(self.file.spill_dir.as_ref()).cloned();
        said.map_or_else(|| default().map(Some), |directory| Ok((directory.as_os_str() != "none").then_some(directory)))
    }

    /// The join token, if one was given: in a file, or in `RASK_TOKEN`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn token(&self, flag: Option<&PathBuf>) -> Result<Option<String>, Failure> {
        if let Some(path) = flag {
            return read_token(path).map(Some);
        }
        if let Some(token) = std::env::var("RASK_TOKEN").ok().filter(|token| !token.trim().is_empty()) {
            return Ok(Some(token.trim().to_owned()));
        }
        self.file.token_file.as_ref().map(read_token).transpose()
    }
}

fn read_token(path: &PathBuf) -> Result<String, Failure> {
    let failed = |error| Failure::misuse(format!("cannot read the token file {}: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(failed)?;
    // Files that systems hand out (mounted secrets) are often so, and nobody can change that: it is said, not refused.
    if let Some(mode) = rask_comm::exposed_mode(&file).map_err(failed)? {
        let path = path.display();
        print_note(&format!("note: others than its owner may read the token file {path} (mode {mode:o}): chmod 600 {path}"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text.trim().to_owned())
}
