//! The walk over a file's declarations that turns them into tasks of one graph.
//!
//! Declarations come sorted, so each finds what it uses already made. What cannot be made because a data file is missing
//! is kept as broken and breaks what uses it; what is a mistake of the author becomes a diagnostic, and what uses it is
//! passed over in silence, because one mistake should be said once.

use rask_arrays::{Array, Lowering};
use rask_frames::{Frame, FrameError, FrameLowering};
use rask_graphs::file::{DeclarationId, DeclarationKind, Diagnostic, FrameSource, GraphFile, OutputOf, Span, Text};
use rask_graphs::{FinishOptions, GraphBuilder, Registry, TaskIdx};

use super::{Plan, PlannedOutput, Summary};

/// What a declaration has become.
#[derive(Clone)]
pub(super) enum Made {
    /// Nothing needs it.
    Unneeded,
    /// A lazy table.
    Frame(Frame),
    /// A lazy array.
    Array(Array),
    /// A task of the builder.
    Task(TaskIdx),
    /// It cannot be made, and the reason is in the data, not in the file.
    Broken(String),
    /// It cannot be made; the mistake has been reported.
    Mistaken,
}

/// An output before its tasks have their final numbers.
pub(super) struct DraftOutput {
    pub(super) planned: PlannedOutput,
    /// In the builder.
    pub(super) tasks: Vec<TaskIdx>,
}

/// The state of the walk.
pub(super) struct Lowerer<'a> {
    pub(super) file: &'a GraphFile,
    pub(super) registry: &'a Registry,
    /// Holds the graph, too; see [`Lowerer::graph`].
    pub(super) arrays: Lowering<'a>,
    pub(super) frames: FrameLowering,
    pub(super) made: Vec<Made>,
    /// By declaration, how many declarations and outputs use it.
    pub(super) n_users: Vec<u32>,
    pub(super) notes: Vec<String>,
    pub(super) mistakes: Vec<Diagnostic>,
}

/// Lower `file` to a graph of what its outputs need.
///
/// # Errors
/// Mistakes that only show now: shapes that do not fit, unknown functions and columns, wrong SQL.
pub fn plan(file: &GraphFile, registry: &Registry) -> Result<Plan, Vec<Diagnostic>> {
    let mut graph = GraphBuilder::new();
    let mut lowerer = Lowerer {
        file,
        registry,
        arrays: Lowering::new(&mut graph),
        frames: FrameLowering::new(),
        made: vec![Made::Unneeded; file.declarations.len()],
        n_users: count_users(file),
        notes: Vec::new(),
        mistakes: Vec::new(),
    };
    for (at, declaration) in file.declarations.iter().enumerate() {
        if lowerer.n_users[at] > 0 {
            lowerer.made[at] = lowerer.make(at, &declaration.name);
        }
    }
    let drafts: Vec<DraftOutput> = file.outputs.iter().filter_map(|output| lowerer.output(output)).collect();
    if !lowerer.mistakes.is_empty() {
        lowerer.mistakes.sort();
        lowerer.mistakes.dedup();
        return Err(lowerer.mistakes);
    }
    for task in drafts.iter().flat_map(|draft| &draft.tasks) {
        lowerer.graph().output(*task);
    }
    let summary = lowerer.summary();
    let notes = lowerer.notes;
    finish(file, graph, drafts, notes, summary)
}

/// By declaration the number of needed declarations and outputs that use it; 0 for what no output needs.
fn count_users(file: &GraphFile) -> Vec<u32> {
    let mut n_users = vec![0; file.declarations.len()];
    let mut uses = |ids: &mut dyn Iterator<Item = DeclarationId>| ids.for_each(|id| n_users[id.index()] += 1);
    for output in &file.outputs {
        match &output.of {
            OutputOf::Name(id, _) => uses(&mut std::iter::once(*id)),
            OutputOf::Expression(formula) => uses(&mut formula.names.iter().map(|(_, id)| *id)),
        }
    }
    // Users stand behind what they use, so backwards each declaration's own need is known before it passes it on.
    for (at, declaration) in file.declarations.iter().enumerate().rev() {
        if n_users[at] > 0 {
            for used in declaration.kind.uses() {
                n_users[used.index()] += 1;
            }
        }
    }
    n_users
}

impl Lowerer<'_> {
    fn make(&mut self, at: usize, name: &str) -> Made {
        let file = self.file;
        let declaration = &file.declarations[at];
        for used in declaration.kind.uses() {
            match &self.made[used.index()] {
                Made::Broken(reason) => return Made::Broken(reason.clone()),
                Made::Mistaken => return Made::Mistaken,
                Made::Unneeded | Made::Frame(_) | Made::Array(_) | Made::Task(_) => {}
            }
        }
        match &declaration.kind {
            DeclarationKind::Frame(source) => {
                let made = self.frame(source, declaration);
                // What several queries share is computed once; files are not, since each query reads what it needs of them.
                match (&made, source) {
                    (Made::Frame(frame), FrameSource::Sql { .. }) if self.n_users[at] > 1 => {
                        match self.frames.lower(frame, self.arrays.graph(), name) {
                            Ok(_) => made,
                            Err(error) => self.frame_error(error, declaration.span, None),
                        }
                    }
                    (_, FrameSource::Read { .. } | FrameSource::Sql { .. } | FrameSource::FromArray { .. }) => made,
                }
            }
            DeclarationKind::Array(source) => self.array(source, declaration),
            DeclarationKind::Task(task) => self.task(task, declaration),
        }
    }

    /// Report a mistake of the author.
    pub(super) fn mistake(&mut self, span: Span, message: impl Into<String>, hint: Option<String>) -> Made {
        self.mistakes.push(self.file.diagnostic(span, message, hint));
        Made::Mistaken
    }

    /// A frame that cannot be made: the data's fault, or the author's. `sql` is the query the error may point into.
    pub(super) fn frame_error(&mut self, error: FrameError, span: Span, sql: Option<&Text>) -> Made {
        match error {
            FrameError::Io { .. } | FrameError::Data { .. } => Made::Broken(error.to_string()),
            FrameError::Sql(error) => {
                let place = error.line.zip(error.column);
                let span = match (sql, place) {
                    (Some(sql), Some((line, column))) => self.file.span_at(sql, line as usize, column as usize),
                    (Some(sql), None) => sql.span,
                    (None, _) => span,
                };
                self.mistake(span, error.message, None)
            }
            FrameError::Plan(message) => self.mistake(sql.map_or(span, |sql| sql.span), message, None),
        }
    }

    /// The graph under construction.
    pub(super) fn graph(&mut self) -> &mut GraphBuilder {
        self.arrays.graph()
    }
}

fn finish(
    file: &GraphFile,
    graph: GraphBuilder,
    drafts: Vec<DraftOutput>,
    notes: Vec<String>,
    summary: Vec<Summary>,
) -> Result<Plan, Vec<Diagnostic>> {
    let has_work = drafts.iter().any(|draft| !draft.tasks.is_empty());
    // Without an output a builder takes every result nobody uses for one; here nothing is wanted then.
    let mut graph = if has_work { graph } else { GraphBuilder::new() };
    // Names of tasks are made of those of the file, which may happen to be equal then. They are for people only.
    graph.distinguish_names();
    let finished = graph.finish(&FinishOptions::default()).map_err(|error| {
        let span = file.outputs.first().map_or(Span::new(0, 0), |output| output.span);
        vec![file.diagnostic(span, error.to_string(), None)]
    })?;
    let renumbered = |task: &TaskIdx| finished.renumbering.get(task.index()).copied().flatten();
    let outputs = drafts
        .into_iter()
        .map(|draft| PlannedOutput { tasks: draft.tasks.iter().filter_map(renumbered).collect(), ..draft.planned })
        .collect();
    Ok(Plan { graph: finished.graph, outputs, notes, summary })
}
