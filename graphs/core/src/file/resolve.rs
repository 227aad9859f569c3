//! From text to sorted declarations: the sections are read, names are looked up, and uses are put in order.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use serde_json::Value as Json;

use super::diagnostic::Problems;
use super::document::{Entry, Format, Node, Raw, get, read};
use super::keys::TOP;
use super::names::{Draft, Names, UNRESOLVED, article, offset_at, split_part};
use super::{
    ArraySource, Declaration, DeclarationId, DeclarationKind, FORMAT_VERSION, Formula, FrameSource, OutputDeclaration, OutputOf,
    SqlNames, TaskInput, Text, arrays, frames, outputs, params, tasks,
};
use crate::expression::{Span, TYPE_NAMES};
use crate::graph::Part;

type Checked = (Vec<(String, Json)>, Vec<Declaration>, Vec<OutputDeclaration>);

/// Most inputs that all tasks of a file may have together, patterns spread out.
const MAX_INPUTS: usize = crate::limits::MAX_FILE_INPUTS;

/// Everything a file says. What is wrong is in `problems`; the result counts only when nothing is.
pub(super) fn file(
    text: &str,
    format: Format,
    overrides: &[(String, String)],
    sql: &dyn SqlNames,
    problems: &mut Problems,
) -> Option<Checked> {
    let mut entries = read(text, format, problems)?;
    check_top(&entries, problems)?;
    let params = params::read(get(&entries, "params"), overrides, problems);
    for entry in entries.iter_mut().filter(|entry| entry.key != "params") {
        params::substitute(&mut entry.node, &params, problems);
    }
    let mut drafts = read_sections(&entries, &params, problems);
    let resolutions: Vec<Option<DeclarationKind>> = drafts.iter_mut().map(|draft| draft.kind.take()).collect();
    let names = Names::new(&drafts, problems);
    let mut resolver = Resolver { names: &names, sql, patterns: HashMap::default(), n_inputs: 0 };
    let resolved: Vec<Option<DeclarationKind>> = resolutions
        .into_iter()
        .zip(&drafts)
        .map(|(kind, draft)| kind.map(|kind| resolver.resolve(kind, draft, problems)))
        .collect();
    let mut written = HashMap::new();
    let mut outputs: Vec<OutputDeclaration> =
        section(&entries, "output").iter().filter_map(|entry| outputs::read(entry, &names, &mut written, problems)).collect();
    let order = order(&drafts, &resolved, problems);
    if let (true, Some(at)) = (problems.is_empty(), resolved.iter().position(Option::is_none)) {
        // Whatever spoils a declaration reports it; should that ever be forgotten, the file must still not pass without it.
        problems.error(drafts[at].span, format!("\"{}\" cannot be read", drafts[at].name));
    }
    if !problems.is_empty() {
        return None;
    }
    if outputs.is_empty() {
        outputs = outputs::unused(&drafts, &resolved);
    }
    if outputs.is_empty() {
        problems.hinted(
            Span::default(),
            "the file declares nothing to compute",
            "add a [frame.NAME], [array.NAME] or [task.NAME]",
        );
        return None;
    }
    let (declarations, outputs) = renumber(drafts, resolved, outputs, &order);
    Some((params, declarations, outputs))
}

/// The version and the names of the sections.
fn check_top(entries: &[Entry<'_>], problems: &mut Problems) -> Option<()> {
    match get(entries, "rask").map(|entry| &entry.node) {
        None => problems.hinted(Span::default(), "the version of the format is missing", "begin the file with rask = 1"),
        Some(Node { value: Raw::Integer(FORMAT_VERSION), .. }) => {}
        Some(Node { value: Raw::Integer(version), span }) => {
            let message = format!("format version {version} is not known here, this is version {FORMAT_VERSION}");
            problems.error(*span, message);
            // Another version may mean anything by the rest.
            return None;
        }
        Some(node) => problems.error(node.span, format!("\"rask\" must be the integer 1, found {}", node.found())),
    }
    for entry in entries {
        if !TOP.iter().any(|(name, _)| *name == entry.key) {
            let names = TOP.iter().map(|(name, _)| *name);
            let all = "the sections are params, frame, array, task and output".to_owned();
            problems.unknown(entry.key_span, "section", &entry.key, names, Some(all));
        } else if !matches!(entry.key.as_ref(), "rask" | "params") && !matches!(entry.node.value, Raw::Table(_)) {
            let found = entry.node.found();
            problems.error(entry.node.span, format!("\"{}\" must be a table, found {found}", entry.key));
        }
    }
    Some(())
}

fn section<'n, 'a>(entries: &'n [Entry<'a>], name: &str) -> &'n [Entry<'a>] {
    match get(entries, name).map(|entry| &entry.node.value) {
        Some(Raw::Table(entries)) => entries,
        Some(Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) | Raw::Text(_) | Raw::List(_)) | None => &[],
    }
}

/// All declarations in file order.
fn read_sections(entries: &[Entry<'_>], params: &[(String, Json)], problems: &mut Problems) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    drafts.extend(section(entries, "frame").iter().map(|entry| frames::read(entry, problems)));
    drafts.extend(section(entries, "array").iter().map(|entry| arrays::read(entry, problems)));
    let mut reader = tasks::Reader::new(params);
    for entry in section(entries, "task") {
        reader.read(entry, &mut drafts, problems);
    }
    drafts.sort_by_key(|draft| draft.span.start);
    drafts
}

struct Resolver<'a> {
    names: &'a Names<'a>,
    sql: &'a dyn SqlNames,
    /// Patterns looked up before: many tasks may share one.
    patterns: HashMap<String, Vec<DeclarationId>, FxBuildHasher>,
    n_inputs: usize,
}

impl Resolver<'_> {
    fn resolve(&mut self, mut kind: DeclarationKind, draft: &Draft, problems: &mut Problems) -> DeclarationKind {
        match &mut kind {
            DeclarationKind::Frame(FrameSource::Read { .. }) => {}
            DeclarationKind::Array(ArraySource::Random { .. } | ArraySource::Create { .. } | ArraySource::Load { .. }) => {}
            DeclarationKind::Frame(FrameSource::Sql { sql, tables }) => *tables = self.tables(sql, problems),
            DeclarationKind::Frame(FrameSource::FromArray { array, of, .. }) => *array = self.of_kind(of, "array", problems),
            DeclarationKind::Array(ArraySource::FromFrame { frame, of, .. }) => *frame = self.of_kind(of, "frame", problems),
            DeclarationKind::Array(ArraySource::Expression(formula)) => {
                resolve_formula(formula, self.names, problems);
            }
            DeclarationKind::Task(task) => {
                for input in &draft.inputs {
                    self.input(input, &mut task.inputs, problems);
                }
            }
        }
        kind
    }

    /// The frame or array called `of`, or a task, whose result may be either.
    fn of_kind(&self, of: &Text, wanted: &'static str, problems: &mut Problems) -> DeclarationId {
        match self.names.get(&of.value) {
            Some(id) if self.names.draft(id).section == wanted || self.names.draft(id).section == "task" => return id,
            Some(id) => {
                let section = self.names.draft(id).section;
                let (name, article, wanted_article) = (&of.value, article(section), article(wanted));
                problems.error(of.span, format!("\"{name}\" is {article} {section}, not {wanted_article} {wanted}"));
            }
            None => problems.unknown(of.span, wanted, &of.value, self.names.of_section(wanted), None),
        }
        UNRESOLVED
    }

    fn tables(&self, sql: &Text, problems: &mut Problems) -> Vec<(String, DeclarationId)> {
        let place = |problems: &Problems, at: Option<(usize, usize)>| match at {
            Some((line, column)) => {
                let offset = offset_at(&sql.value, line, column);
                problems.source.within(sql.span, Span::new(offset, offset))
            }
            None => sql.span,
        };
        let tables = match self.sql.tables(&sql.value) {
            Ok(tables) => tables,
            Err((message, at)) => {
                problems.error(place(problems, at), message);
                return Vec::new();
            }
        };
        let mut found: Vec<(String, DeclarationId)> = Vec::new();
        for (name, at) in tables {
            match self.names.get(&name).or_else(|| self.names.get_ignoring_case(&name)) {
                Some(id) if self.names.draft(id).section == "array" => {
                    let hint = format!("make a frame of it: [frame.NAME] with from_array = \"{name}\"");
                    problems.hinted(place(problems, at), format!("\"{name}\" is an array, not a frame"), hint);
                }
                Some(id) if found.iter().all(|(known, _)| *known != name) => found.push((name, id)),
                Some(_) => {}
                None => problems.unknown(place(problems, at), "frame", &name, self.names.of_section("frame"), None),
            }
        }
        found
    }

    /// Append what one string of `inputs` names.
    fn input(&mut self, text: &Text, inputs: &mut Vec<TaskInput>, problems: &mut Problems) {
        if let Some(of) = self.names.get(&text.value) {
            inputs.push(TaskInput { of, part: Part::WHOLE });
            return;
        }
        let (name, part) = split_part(&text.value).unwrap_or((&text.value, Part::WHOLE));
        if name.contains('*') {
            let known = self.patterns.entry(name.to_owned()).or_insert_with(|| self.names.matches_in_order(name));
            self.n_inputs = self.n_inputs.saturating_add(known.len());
            if known.is_empty() && self.names.is_incomplete {
                return;
            }
            if known.is_empty() {
                problems.error(text.span, format!("no task has a name like \"{name}\""));
            } else if self.n_inputs > MAX_INPUTS {
                problems.error(text.span, format!("the tasks have more than {MAX_INPUTS} inputs together"));
            } else {
                inputs.extend(known.iter().map(|&of| TaskInput { of, part }));
            }
            return;
        }
        match self.names.get(name) {
            Some(of) if self.names.draft(of).section == "task" => inputs.push(TaskInput { of, part }),
            Some(of) => {
                let section = self.names.draft(of).section;
                problems
                    .error(text.span, format!("\"{name}\" is {} {section}; only results of tasks have parts", article(section)));
            }
            None if self.names.is_incomplete => {}
            None => problems.unknown(text.span, "input", name, self.names.all(), None),
        }
    }
}

/// Look up the names of an expression; false after a mistake.
pub(super) fn resolve_formula(formula: &mut Formula, names: &Names<'_>, problems: &mut Problems) -> bool {
    let mut is_good = true;
    for (name, inner) in formula.expression.names() {
        let span = problems.source.within(formula.text.span, inner);
        match names.get(&name) {
            Some(id) if names.draft(id).section == "frame" => {
                let hint = format!("make an array of it: [array.NAME] with from_frame = \"{name}\"");
                problems.hinted(span, format!("\"{name}\" is a frame, not an array"), hint);
                is_good = false;
            }
            Some(id) => formula.names.push((name, id)),
            None if names.is_incomplete => is_good = false,
            None if TYPE_NAMES.contains(&name.as_str()) => {}
            None => {
                problems.unknown(span, "name", &name, names.of_section("array").chain(names.of_section("task")), None);
                is_good = false;
            }
        }
    }
    is_good
}

/// Positions of the drafts so that each stands behind what it uses, else as in the file. Cycles are reported.
fn order(drafts: &[Draft], kinds: &[Option<DeclarationKind>], problems: &mut Problems) -> Vec<u32> {
    const NEW: u8 = 0;
    const OPEN: u8 = 1;
    const DONE: u8 = 2;
    let uses = |at: u32| kinds[at as usize].as_ref().map(DeclarationKind::uses).unwrap_or_default().into_iter();
    let mut state = vec![NEW; drafts.len()];
    let mut order = Vec::with_capacity(drafts.len());
    for start in 0..u32::try_from(drafts.len()).unwrap_or(u32::MAX) {
        if state[start as usize] != NEW {
            continue;
        }
        state[start as usize] = OPEN;
        let mut path = vec![(start, uses(start))];
        while let Some((at, rest)) = path.last_mut() {
            let Some(next) = rest.next() else {
                state[*at as usize] = DONE;
                order.push(*at);
                path.pop();
                continue;
            };
            match state.get(next.index()) {
                Some(&NEW) => {
                    state[next.index()] = OPEN;
                    path.push((next.0, uses(next.0)));
                }
                // A way with many ends is walked once more for each that is reported, so not for those that are not.
                Some(&OPEN) if !problems.is_full() => {
                    let first = path.iter().position(|(at, _)| *at == next.0).unwrap_or(0);
                    let members: Vec<u32> = path[first..].iter().map(|(at, _)| *at).collect();
                    report_cycle(&members, drafts, problems);
                }
                // Done, or not resolved after a mistake.
                Some(_) | None => {}
            }
        }
    }
    order
}

/// `members` use one another in this order, the last one the first.
fn report_cycle(members: &[u32], drafts: &[Draft], problems: &mut Problems) {
    let first = (0..members.len()).min_by_key(|&at| members[at]).unwrap_or(0);
    let rotated = members[first..].iter().chain(&members[..=first]);
    let mut names: Vec<&str> = rotated.map(|&at| drafts[at as usize].name.as_str()).collect();
    if names.len() > 12 {
        names.splice(8..names.len() - 3, ["..."]);
    }
    let span = drafts[members[first] as usize].span;
    problems.hinted(span, format!("these names form a cycle: {}", names.join(" -> ")), "a -> b means that a uses b");
}

/// Put everything into `order`, with all references following.
fn renumber(
    drafts: Vec<Draft>,
    kinds: Vec<Option<DeclarationKind>>,
    mut outputs: Vec<OutputDeclaration>,
    order: &[u32],
) -> (Vec<Declaration>, Vec<OutputDeclaration>) {
    let mut rank = vec![0u32; drafts.len()];
    for (new, &old) in (0u32..).zip(order) {
        rank[old as usize] = new;
    }
    let mut slots: Vec<Option<Declaration>> = Vec::with_capacity(drafts.len());
    for (draft, kind) in drafts.into_iter().zip(kinds) {
        slots.push(kind.map(|mut kind| {
            renumber_kind(&mut kind, &rank);
            Declaration { name: draft.name, span: draft.span, kind }
        }));
    }
    for output in &mut outputs {
        match &mut output.of {
            OutputOf::Name(id, _) => follow(id, &rank),
            OutputOf::Expression(formula) => formula.names.iter_mut().for_each(|(_, id)| follow(id, &rank)),
        }
    }
    let declarations = order.iter().filter_map(|&old| slots[old as usize].take()).collect();
    (declarations, outputs)
}

fn follow(id: &mut DeclarationId, rank: &[u32]) {
    id.0 = rank.get(id.index()).copied().unwrap_or(id.0);
}

fn renumber_kind(kind: &mut DeclarationKind, rank: &[u32]) {
    match kind {
        DeclarationKind::Frame(FrameSource::Read { .. }) => {}
        DeclarationKind::Array(ArraySource::Random { .. } | ArraySource::Create { .. } | ArraySource::Load { .. }) => {}
        DeclarationKind::Frame(FrameSource::Sql { tables, .. }) => tables.iter_mut().for_each(|(_, id)| follow(id, rank)),
        DeclarationKind::Frame(FrameSource::FromArray { array, .. }) => follow(array, rank),
        DeclarationKind::Array(ArraySource::FromFrame { frame, .. }) => follow(frame, rank),
        DeclarationKind::Array(ArraySource::Expression(formula)) => formula.names.iter_mut().for_each(|(_, id)| follow(id, rank)),
        DeclarationKind::Task(task) => task.inputs.iter_mut().for_each(|input| follow(&mut input.of, rank)),
    }
}
