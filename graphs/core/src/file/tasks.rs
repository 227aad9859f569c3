//! `[task.NAME]` sections: single tasks, and families spread out over the values of their variables.
//!
//! Arguments become JSON text here, shared by all tasks with the same: a hundred thousand explicit tasks often differ in
//! their inputs only.

use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use serde_json::Value as Json;

use super::diagnostic::Problems;
use super::document::{Entry, Raw};
use super::family::{Loops, MAX_MEMBERS, Pattern, Scope, Template};
use super::keys::TASK;
use super::names::Draft;
use super::params::is_identifier;
use super::values::{Fields, fields, to_json};
use super::{DeclarationKind, TaskDeclaration, Text};
use crate::expression::Span;
use crate::graph::TaskOptions;
use crate::limits::{MAX_FAMILY_NBYTES, MAX_FILE_INPUTS, MAX_FILE_NBYTES};

/// Reads all tasks of a file.
pub(super) struct Reader<'a> {
    pub(super) params: &'a [(String, Json)],
    /// Texts of operators and arguments seen so far.
    texts: HashSet<Arc<str>, FxBuildHasher>,
    n_members: u64,
    /// Inputs, and bytes of text, of all of them.
    n_inputs: u64,
    nbytes: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(params: &'a [(String, Json)]) -> Self {
        Self { params, texts: HashSet::default(), n_members: 0, n_inputs: 0, nbytes: 0 }
    }

    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    /// Append the task or tasks that `entry` declares. Members of a family that cannot be read get no draft: their names
    /// are not known.
    pub(super) fn read(&mut self, entry: &Entry<'_>, drafts: &mut Vec<Draft>, problems: &mut Problems) {
        let Some(fields) = fields(&TASK, entry, problems) else {
            drafts.push(Draft::new(&entry.key, entry.key_span, "task"));
            return;
        };
        match fields.table("for") {
            Some(loops) => {
                if self.family(entry, &fields, loops, drafts, problems).is_none() {
                    let mut draft = Draft::new(&entry.key, entry.key_span, "task");
                    draft.is_broken_family = true;
                    drafts.push(draft);
                }
            }
            None => {
                let mut draft = Draft::new(&entry.key, entry.key_span, "task");
                check_name(&entry.key, entry.key_span, problems);
                if entry.key.contains(['{', '}']) && fields.is_good {
                    let message = format!("\"{}\" has a placeholder but no \"for\"", entry.key);
                    problems.hinted(entry.key_span, message, "a family says for = { i = 4 }");
                }
                let args = fields.node("args").and_then(|node| to_json(node, problems));
                draft.inputs = fields.texts("inputs").unwrap_or_default();
                if let Some(task) = self.task(&fields, args.as_ref(), problems) {
                    draft.kind = Some(DeclarationKind::Task(Box::new(task)));
                }
                drafts.push(draft);
            }
        }
    }

    /// A task with everything but its inputs.
    fn task(&mut self, fields: &Fields<'_, '_>, args: Option<&Json>, problems: &mut Problems) -> Option<TaskDeclaration> {
        let op = fields.text("op")?;
        let args_span = fields.node("args").map_or(op.span, |node| node.span);
        let inputs_span = fields.node("inputs").map_or(op.span, |node| node.span);
        let arg_spans = fields.table("args").unwrap_or_default().iter().map(|entry| (entry.key_span, entry.node.span)).collect();
        Some(TaskDeclaration {
            op: self.share(&op.value),
            op_span: op.span,
            args: self.share(&args.map_or("{}".to_owned(), ToString::to_string)),
            args_span,
            arg_spans,
            inputs: Vec::new(),
            inputs_span,
            options: options(fields, problems),
        })
    }

    /// Whether what is written of a family is too much for so many members: products that are refused before they are made.
    fn is_too_long(&mut self, entry: &Entry<'_>, fields: &Fields<'_, '_>, n_members: u64, problems: &mut Problems) -> bool {
        let nbytes_of = |key| fields.node(key).map_or(0, |node| u64::from(node.span.end - node.span.start));
        let n_inputs = fields.texts("inputs").map_or(0, |texts| texts.len()) as u64;
        let nbytes = entry.key.len() as u64 + nbytes_of("args") + nbytes_of("inputs");
        self.n_inputs = self.n_inputs.saturating_add(n_inputs.saturating_mul(n_members));
        self.nbytes = self.nbytes.saturating_add(nbytes.saturating_mul(n_members));
        if self.n_inputs > MAX_FILE_INPUTS as u64 {
            let message = format!("the families have {} inputs together, at most {MAX_FILE_INPUTS} are possible", self.n_inputs);
            problems.error(entry.key_span, message);
            return true;
        }
        if self.nbytes > MAX_FILE_NBYTES {
            let message = format!(
                "the names, arguments and inputs of all members take {} bytes, at most {MAX_FILE_NBYTES} are possible",
                self.nbytes
            );
            problems.error(entry.key_span, message);
            return true;
        }
        false
    }

    /// Append the members of a family; `None` after a mistake.
    fn family(
        &mut self,
        entry: &Entry<'_>,
        fields: &Fields<'_, '_>,
        table: &[Entry<'_>],
        drafts: &mut Vec<Draft>,
        problems: &mut Problems,
    ) -> Option<()> {
        let n_members = Loops::count(table);
        self.n_members = self.n_members.saturating_add(n_members);
        let too_many = self.n_members > MAX_MEMBERS;
        if too_many {
            let message = format!("the families have {} members together, at most {MAX_MEMBERS} are possible", self.n_members);
            problems.error(entry.key_span, message);
        }
        let too_many = too_many || self.is_too_long(entry, fields, n_members, problems);
        for variable in table.iter().filter(|variable| !is_identifier(&variable.key)) {
            problems.error(variable.key_span, format!("\"{}\" cannot name a variable", variable.key));
        }
        if too_many || !fields.is_good {
            return None;
        }
        let loops = Loops::read(table);
        let scope = Scope { loops: &loops, params: self.params };
        let name = Template::compile(&entry.key, entry.key_span, &scope, problems)?;
        let used = name.variables();
        if let Some(missing) = (0..loops.0.len()).find(|variable| !used.contains(variable)) {
            let variable = &loops.0[missing].0;
            let message = format!("the name \"{}\" must contain every variable, {{{variable}}} is missing", entry.key);
            problems.hinted(entry.key_span, message, "without it several members would have one name");
            return None;
        }
        let args = match fields.node("args") {
            Some(node) => Pattern::compile(node, &scope, problems)?,
            None => Pattern::Fixed(Json::Object(serde_json::Map::new())),
        };
        let texts = fields.texts("inputs").unwrap_or_default();
        let mut inputs = Vec::with_capacity(texts.len());
        for text in &texts {
            inputs.push((Template::compile(&text.value, text.span, &scope, problems)?, text.span));
        }
        let task = self.task(fields, args.fixed().as_ref(), problems)?;
        let members = Members { name: &name, name_span: entry.key_span, args: &args, inputs: &inputs, task: &task };
        for values in loops.members() {
            match members.draft(&values, self) {
                Ok(draft) => {
                    if drafts.last().is_none_or(|last| last.span != draft.span) {
                        check_name(&draft.name, draft.span, problems);
                    }
                    drafts.push(draft);
                }
                Err((span, message)) => {
                    problems.error(span, message);
                    return None;
                }
            }
        }
        Some(())
    }
}

/// What the members of a family are made from.
struct Members<'a> {
    name: &'a Template,
    name_span: Span,
    args: &'a Pattern,
    inputs: &'a [(Template, Span)],
    task: &'a TaskDeclaration,
}

impl Members<'_> {
    fn draft(&self, values: &[super::family::Value], reader: &mut Reader<'_>) -> Result<Draft, (Span, String)> {
        let name = self.name.text(values).map_err(|message| (self.name_span, message))?;
        let mut draft = Draft::new(&name, self.name_span, "task");
        let mut task = self.task.clone();
        if self.args.fixed().is_none() {
            let args = self.args.json(values).map_err(|message| (task.args_span, format!("{message}, for \"{name}\"")))?;
            task.args = reader.share(&args.to_string());
        }
        for (template, span) in self.inputs {
            let value = template.text(values).map_err(|message| (*span, format!("{message}, for \"{name}\"")))?;
            draft.inputs.push(Text { value, span: *span });
        }
        draft.kind = Some(DeclarationKind::Task(Box::new(task)));
        Ok(draft)
    }
}

fn check_name(name: &str, span: Span, problems: &mut Problems) {
    if name.is_empty() {
        problems.error(span, "a task's name cannot be empty");
    } else if name.len() > MAX_FAMILY_NBYTES {
        problems.error(span, format!("the name is {} bytes long, at most {MAX_FAMILY_NBYTES} are possible", name.len()));
    } else if let Some(wrong) = name.chars().find(|&c| c.is_control() || matches!(c, '*' | '[' | ']')) {
        let message = format!("a task's name cannot contain {:?}", wrong.to_string());
        problems.error(span, message);
    }
}

fn options(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<Box<TaskOptions>> {
    let amount = |entry: &Entry<'_>| match entry.node.value {
        #[expect(clippy::cast_precision_loss, reason = "amounts of resources are small numbers")]
        Raw::Integer(value) => Some((entry.key.to_string(), value as f64)),
        Raw::Float(value) => Some((entry.key.to_string(), value)),
        Raw::Null | Raw::Boolean(_) | Raw::Text(_) | Raw::List(_) | Raw::Table(_) => None,
    };
    let priority = fields.integer("priority").map(|value| i32::try_from(value).map_err(|_| "priority"));
    let retries = fields.natural("retries").map(|value| u32::try_from(value).map_err(|_| "retries"));
    let out_of_range = [priority.and_then(Result::err), retries.and_then(Result::err)];
    for key in out_of_range.into_iter().flatten() {
        if let Some(node) = fields.node(key) {
            problems.error(node.span, format!("\"{key}\" does not fit 32 bits"));
        }
    }
    let options = TaskOptions {
        priority: priority.and_then(Result::ok).unwrap_or(0),
        retries: retries.and_then(Result::ok).unwrap_or(0),
        resources: fields.table("resources").unwrap_or_default().iter().filter_map(amount).collect(),
        workers: fields.strings("workers").unwrap_or_default(),
        allow_other_workers: fields.boolean("allow_other_workers").unwrap_or(false),
    };
    if let Some(fault) = options.fault() {
        let node = fields.node("resources").or_else(|| fields.node("workers"));
        node.into_iter().for_each(|node| problems.error(node.span, fault.clone()));
    }
    (options != TaskOptions::default()).then(|| Box::new(options))
}
