//! Writing to a person's terminal: what is shown as it is, what is escaped, and when there is colour at all.
//!
//! Names in graph files, messages of operators and names of workers come from others. Control characters in them could
//! move the cursor, set the title or hide text, so nothing of theirs is printed before [`escape`] has seen it.

use std::io::{IsTerminal, Write};

use crate::exit::Failure;

/// `text` with control and direction-changing characters written out (`\u{1b}`). Line breaks stay.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) {
            escaped.push(c);
        } else {
            escaped.extend(c.escape_default());
        }
    }
    escaped
}

/// As [`escape`], of a name: line breaks and tabs too, because a name that has them would write lines of its own.
pub(crate) fn escape_name(name: &str) -> String {
    escape(name).replace('\n', "\\n").replace('\t', "\\t")
}

fn is_harmless(c: char) -> bool {
    let changes_direction = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c == '\n' || c == '\t' || !(c.is_control() || changes_direction)
}

/// Whether standard error is a terminal that shows progress and colours.
pub(crate) fn is_interactive() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn has_colours() -> bool {
    is_interactive() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Print `error: message` and `hint: ...` to standard error.
pub(crate) fn print_failure(failure: &Failure) {
    print_error(&failure.message, failure.hint.as_deref());
}

/// Print `error: message` and `hint: ...` to standard error.
pub(crate) fn print_error(message: &str, hint: Option<&str>) {
    let (red, cyan, bold, plain) =
        if has_colours() { ("\x1b[31;1m", "\x1b[36;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "", "") };
    let mut lines = format!("{red}error{plain}{bold}:{plain} {}\n", escape(message));
    if let Some(hint) = hint {
        lines.push_str(&format!("{cyan}hint{plain}{bold}:{plain} {}\n", escape(hint)));
    }
    print_to_stderr(&lines);
}

/// Print a line of information to standard error.
pub(crate) fn print_note(text: &str) {
    print_to_stderr(&format!("{}\n", escape(text)));
}

/// A closed standard error is nobody's mistake, so failing to write there is not a failure.
fn print_to_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Write `text` and a line break to standard output.
///
/// # Errors
/// When standard output cannot be written. A reader that has gone (`| head`) is no failure.
pub(crate) fn print_to_stdout(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        assert_eq!(escape("a\x1b[2Jb\r\u{7}"), "a\\u{1b}[2Jb\\r\\u{7}");
        assert_eq!(escape("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(escape("dé\tf\n"), "dé\tf\n");
        assert_eq!(escape("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(escape_name("R\n\tw1 idle\u{1b}"), "R\\n\\tw1 idle\\u{1b}");
    }
}
