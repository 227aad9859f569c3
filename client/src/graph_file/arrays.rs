//! Stand-in while the lazy arrays are on their way. NOT TO BE COMMITTED.
use super::OutputKind;
use super::lower::{Lowerer, Made};
use rask_graphs::TaskIdx;
use rask_graphs::file::{ArraySource, Declaration, Formula, Span};
#[derive(Clone)]
pub(super) struct Array;
#[derive(Default)]
pub(super) struct Memo;
impl Array {
    pub(super) fn shape(&self) -> Vec<usize> {
        vec![]
    }
    pub(super) fn chunks(&self) -> Vec<Vec<usize>> {
        vec![]
    }
    pub(super) fn dtype(&self) -> rask_arrays::DType {
        rask_arrays::DType::F64
    }
}
impl Lowerer<'_> {
    pub(super) fn array(&mut self, _s: &ArraySource, d: &Declaration) -> Made {
        self.mistake(d.span, "no arrays yet", None)
    }
    pub(super) fn formula(&mut self, f: &Formula) -> Made {
        self.mistake(f.text.span, "no arrays yet", None)
    }
    pub(super) fn assembled(&mut self, _a: &Array, _n: &str, s: Span) -> Result<TaskIdx, Made> {
        Err(self.mistake(s, "no arrays yet", None))
    }
    pub(super) fn row_blocks(&mut self, _a: &Array, _n: &str, s: Span) -> Result<Vec<TaskIdx>, Made> {
        Err(self.mistake(s, "no arrays yet", None))
    }
    pub(super) fn printed_array(&mut self, _a: &Array, _n: &str, s: Span) -> Result<(OutputKind, Vec<TaskIdx>), Made> {
        Err(self.mistake(s, "no arrays yet", None))
    }
    pub(super) fn write_npy(&mut self, _a: &Array, _k: &str, _n: &str, _p: &str, s: Span) -> Result<TaskIdx, Made> {
        Err(self.mistake(s, "no arrays yet", None))
    }
}
