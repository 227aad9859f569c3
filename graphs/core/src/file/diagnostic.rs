//! What is wrong with a graph file, said to a person: a position, a sentence, and what was perhaps meant.
//!
//! Checks collect their findings in [`Problems`] and go on, so that one run shows all mistakes.

use std::collections::HashSet;
use std::fmt;

use super::source::Source;
use crate::expression::Span;

/// One mistake.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Diagnostic {
    /// The file's name as it was given, or `--set name=value`.
    pub file: String,
    /// From 1; 0 when the mistake is not in a file.
    pub line: usize,
    /// From 1, in characters; 0 when the mistake is not in a file.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, often `did you mean "..."?`.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "error: {}: {}", self.file, self.message)?,
            line => write!(f, "error: {}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// Enough for a person; a file with more mistakes than this is another kind of file.
const MAX_PROBLEMS: usize = 100;

/// The mistakes found so far.
pub(super) struct Problems {
    pub(super) source: Source,
    found: Vec<(Span, String, Option<String>)>,
    elsewhere: Vec<Diagnostic>,
    /// Where strings begin whose parameters could not be put in: what they would be is not known, so what is wrong with
    /// them as they stand is not worth saying.
    broken_strings: HashSet<u32>,
}

impl Problems {
    pub(super) fn new(source: Source) -> Self {
        Self { source, found: Vec::new(), elsewhere: Vec::new(), broken_strings: HashSet::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_PROBLEMS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.elsewhere.is_empty()
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.error_with(span, message, None);
    }

    pub(super) fn hinted(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.error_with(span, message, Some(hint.into()));
    }

    pub(super) fn error_with(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) {
        if !self.is_full() {
            self.found.push((span, message.into(), hint));
        }
    }

    /// `unknown WHAT "NAME"` with the nearest of `candidates`; `otherwise` is the hint when none is near.
    pub(super) fn unknown<'a>(
        &mut self,
        span: Span,
        what: &str,
        name: &str,
        candidates: impl IntoIterator<Item = &'a str>,
        otherwise: Option<String>,
    ) {
        // Looking for the nearest of very many names takes time; a full list has no use for it.
        if !self.is_full() {
            let hint = did_you_mean(name, candidates).or(otherwise);
            self.error_with(span, format!("unknown {what} \"{name}\""), hint);
        }
    }

    /// Remember that the string at `span` is not what it would be.
    pub(super) fn mark_broken(&mut self, span: Span) {
        self.broken_strings.insert(span.start);
    }

    pub(super) fn is_broken(&self, span: Span) -> bool {
        self.broken_strings.contains(&span.start)
    }

    /// A mistake on the command line.
    pub(super) fn on_command_line(&mut self, argument: String, message: String, hint: Option<String>) {
        self.elsewhere.push(Diagnostic { file: argument, line: 0, column: 0, message, hint });
    }

    /// All of them by position, each once.
    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Self { source, mut found, elsewhere: mut all, .. } = self;
        found.sort();
        found.dedup();
        all.extend(found.into_iter().map(|(span, message, hint)| diagnostic(&source, span, message, hint)));
        all
    }
}

pub(super) fn diagnostic(source: &Source, span: Span, message: String, hint: Option<String>) -> Diagnostic {
    let (line, column) = source.resolve(span.start);
    Diagnostic { file: source.name.clone(), line, column, message, hint }
}

/// `did you mean "..."?` for the nearest of `candidates`, if any is near: a third of the letters may differ.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let length = name.chars().count();
    let limit = (length / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len().abs_diff(name.len()) > 4 * limit || candidate == name {
            continue;
        }
        let distance = strsim::osa_distance(&name.to_lowercase(), &candidate.to_lowercase());
        if distance <= limit && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| format!("did you mean \"{candidate}\"?"))
}

/// `a, b or c`.
pub(super) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
