//! Which files a worker lets graphs touch: what `--data-root` says, and what is out of reach whatever it says.
//!
//! | worker | `--data-root` | graphs of the same user | other clients' graphs |
//! |---|---|---|---|
//! | any | given | beneath the roots | beneath the roots |
//! | of the scheduler's user | not given | what the user may touch | nothing |
//! | that joined by a token | not given | nothing | nothing |

use std::path::PathBuf;

use rask_comm::StateDir;
use rask_worker::exec::FilePolicy;

use crate::arguments::WorkerArguments;
use crate::exit::Failure;
use crate::settings::Settings;

/// What graphs may touch on a worker that is started with these arguments and joins by a token, or by none.
///
/// # Errors
/// When a data root cannot be one.
pub(crate) fn file_policy(arguments: &WorkerArguments, settings: &Settings, has_token: bool) -> Result<FilePolicy, Failure> {
    let roots = if arguments.data_root.is_empty() { &settings.file.data_roots } else { &arguments.data_root };
    let secrets = secrets(arguments, settings);
    if roots.is_empty() {
        return Ok(if has_token { FilePolicy::nothing() } else { FilePolicy::of_user(&secrets) });
    }
    for root in roots {
        FilePolicy::beneath(std::slice::from_ref(root), &secrets).map_err(|error| {
            Failure::misuse(format!("cannot use the data root {}: {error}", root.display()))
                .with_hint("a data root is a directory that is there, for data alone")
        })?;
    }
    FilePolicy::beneath(roots, &secrets).map_err(|error| Failure::misuse(format!("cannot use the data roots: {error}")))
}

/// What stays out of reach beneath a data root too.
fn secrets(arguments: &WorkerArguments, settings: &Settings) -> Vec<PathBuf> {
    let usual = StateDir::default();
    let state_dirs = [&settings.state_dir, &usual].into_iter().filter_map(|state| state.path().ok());
    let mut secrets: Vec<PathBuf> = state_dirs.map(ToOwned::to_owned).collect();
    let spill_dir = arguments.spill_dir.iter().chain(&settings.file.spill_dir);
    let token_files = arguments.connect.token_file.iter().chain(&settings.file.token_file);
    secrets.extend(spill_dir.chain(token_files).cloned());
    // As names, they mean what they mean now.
    secrets.into_iter().map(|secret| std::path::absolute(&secret).unwrap_or(secret)).collect()
}
