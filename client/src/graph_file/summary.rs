//! What a plan will compute, declaration by declaration: what `rask check` shows.

use rask_frames::type_name;
use rask_graphs::file::DeclarationKind;

use super::frames::shape_text;
use super::lower::{Lowerer, Made};

/// One declaration that an output needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// `frame`, `array` or `task`.
    pub section: &'static str,
    /// What it is, in a few words: columns, shape and chunks, operator.
    pub description: String,
}

/// Columns named in a description; a wide table has hundreds.
const N_COLUMNS_SHOWN: usize = 8;

impl Lowerer<'_> {
    /// The needed declarations, in the order in which they are made.
    pub(super) fn summary(&self) -> Vec<Summary> {
        let needed = self.file.declarations.iter().zip(&self.made);
        needed
            .filter_map(|(declaration, made)| {
                let description = match made {
                    Made::Unneeded | Made::Mistaken => return None,
                    Made::Broken(reason) => format!("cannot be made: {reason}"),
                    Made::Frame(frame) => {
                        let fields = frame.schema().fields();
                        let shown = fields.iter().take(N_COLUMNS_SHOWN);
                        let shown: Vec<String> =
                            shown.map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
                        let rest = if fields.len() > N_COLUMNS_SHOWN { ", ..." } else { "" };
                        format!("{} columns: {}{rest}", fields.len(), shown.join(", "))
                    }
                    Made::Array(array) => {
                        let n_chunks: usize = array.chunks().iter().map(Vec::len).product();
                        let plural = if n_chunks == 1 { "" } else { "s" };
                        format!("{} {} in {n_chunks} chunk{plural}", array.dtype(), shape_text(&array.shape()))
                    }
                    Made::Task(_) => match &declaration.kind {
                        DeclarationKind::Task(task) => task.op.to_string(),
                        DeclarationKind::Frame(_) | DeclarationKind::Array(_) => return None,
                    },
                };
                let section = match &declaration.kind {
                    DeclarationKind::Frame(_) => "frame",
                    DeclarationKind::Array(_) => "array",
                    DeclarationKind::Task(_) => "task",
                };
                Some(Summary { name: declaration.name.clone(), section, description })
            })
            .collect()
    }
}
