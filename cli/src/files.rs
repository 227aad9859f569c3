//! Graph files on the command line: read, checked, planned; mistakes printed with their positions.

use std::io::Read;
use std::path::Path;

use rask::graph_file::{self, Plan};
use rask_graphs::Registry;
use rask_graphs::file::{Diagnostic, GraphFile};

use crate::arguments::FileArguments;
use crate::exit::{Exit, Failure};
use crate::terminal::print_error;

/// A mistake in a graph file ends the command with code 2; the mistakes themselves are printed here.
pub(crate) enum Loaded<T> {
    /// The file is good.
    Good(T),
    /// It is not, and the mistakes have been printed.
    Bad(Exit),
}

/// The name that a file has in messages and reports.
pub(crate) fn display_name(path: &Path) -> String {
    if path.as_os_str() == "-" { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// Read and plan the file that `arguments` name.
///
/// # Errors
/// When the file cannot be read at all.
pub(crate) fn load_plan(arguments: &FileArguments, registry: &Registry) -> Result<Loaded<Plan>, Failure> {
    let file = match load(arguments, registry)? {
        Ok(file) => file,
        Err(mistakes) => return Ok(Loaded::Bad(print_mistakes(&mistakes))),
    };
    match graph_file::plan(&file, registry) {
        Ok(plan) => Ok(Loaded::Good(plan)),
        Err(mistakes) => Ok(Loaded::Bad(print_mistakes(&mistakes))),
    }
}

fn load(arguments: &FileArguments, registry: &Registry) -> Result<Result<GraphFile, Vec<Diagnostic>>, Failure> {
    let path = &arguments.file;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    let name = display_name(path);
    read.map_err(|error| Failure::misuse(format!("cannot read {name}: {}", plain_reason(&error))))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::misuse(format!("{name} is not UTF-8 text: byte {at} is not part of a character"))
    })?;
    Ok(graph_file::read(path, &text, &arguments.settings, registry))
}

/// An operating system's error without its number.
pub(crate) fn plain_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn print_mistakes(mistakes: &[Diagnostic]) -> Exit {
    for mistake in mistakes {
        let place = match mistake.line {
            0 => mistake.file.clone(),
            line => format!("{}:{line}:{}", mistake.file, mistake.column),
        };
        print_error(&format!("{place}: {}", mistake.message), mistake.hint.as_deref());
    }
    Exit::Misuse
}
