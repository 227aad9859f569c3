//! Fusing elementwise trees: all functions, casts and views above the same chunks become one program, one task a chunk.
//!
//! A program is made once per node and shared by all its chunks; what differs between chunks is only which tasks are the
//! inputs. An elementwise node below that several others use is computed by each of them: reading memory costs more than
//! arithmetic, as long as programs stay short.

use std::sync::Arc;

use rask_graphs::TaskIdx;

use super::{Lowering, json, whole};
use crate::array::{Array, Op, Operand};
use crate::chunking::ravel;
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::kernels::program::{Instruction, Program, ProgramInput};

/// Instructions after which a tree is cut and its parts become tasks of their own.
const MAX_INSTRUCTIONS: usize = 64;
/// Levels after which a tree is cut, which bounds the walk as well.
const MAX_LEVELS: usize = 64;
/// Inputs after which a tree is cut.
const MAX_INPUTS: usize = 16;

/// The program of a node, and what its inputs are.
pub(super) struct Fused {
    args: String,
    inputs: Vec<FusedInput>,
}

struct FusedInput {
    array: Array,
    /// For each axis of the output the input's axis.
    axes: Vec<Option<usize>>,
}

/// The chunk of `input` that lies under the chunk at `position` of an array whose axes map to the input's as `axes` say.
pub(super) fn chunk_under(input: &Array, axes: &[Option<usize>], position: &[usize]) -> usize {
    let counts = input.counts();
    let mut own = vec![0; counts.len()];
    for (&place, axis) in position.iter().zip(axes) {
        if let Some(axis) = axis
            && counts[*axis] > 1
        {
            own[*axis] = place;
        }
    }
    ravel(&own, &counts)
}

struct Fuser<'a> {
    code: Vec<Instruction>,
    inputs: Vec<FusedInput>,
    /// Nodes that are tasks already: their results are at hand.
    is_done: &'a dyn Fn(&Array) -> bool,
}

impl Fuser<'_> {
    fn leaf(&mut self, array: &Array, axes: &[Option<usize>]) {
        let known = self.inputs.iter().position(|input| Arc::ptr_eq(&input.array.0, &array.0) && input.axes == axes);
        let idx = known.unwrap_or_else(|| {
            self.inputs.push(FusedInput { array: array.clone(), axes: axes.to_vec() });
            self.inputs.len() - 1
        });
        self.code.push(Instruction::Input(idx));
    }

    /// Emit code that leaves the value of `array` seen through `axes`.
    fn emit(&mut self, array: &Array, axes: &[Option<usize>], level: usize) {
        let is_long = self.code.len() >= MAX_INSTRUCTIONS || self.inputs.len() >= MAX_INPUTS || level >= MAX_LEVELS;
        if level > 0 && (is_long || (self.is_done)(array)) {
            return self.leaf(array, axes);
        }
        match &array.0.op {
            Op::Apply { function, compute, operands } => {
                for (idx, operand) in operands.iter().enumerate() {
                    let want = if function.n_operands() == 3 && idx == 0 { DType::Bool } else { *compute };
                    match operand {
                        Operand::Scalar(scalar) => self.code.push(Instruction::Constant(want, scalar.settled(want))),
                        Operand::Array(operand) => {
                            self.emit(operand, &through(array, operand, axes), level + 1);
                            if operand.dtype() != want {
                                self.code.push(Instruction::Cast(operand.dtype(), want));
                            }
                        }
                    }
                }
                self.code.push(Instruction::Apply(*function, *compute));
            }
            Op::Cast(input) => {
                self.emit(input, axes, level + 1);
                self.code.push(Instruction::Cast(input.dtype(), array.dtype()));
            }
            Op::View { input, axes: own }
                if own.iter().zip(array.chunks()).all(|(axis, sizes)| axis.is_some() || sizes.len() == 1) =>
            {
                let axes: Vec<Option<usize>> = axes.iter().map(|axis| axis.and_then(|axis| own[axis])).collect();
                self.emit(input, &axes, level + 1);
            }
            Op::View { .. } | Op::Create(_) | Op::Random { .. } | Op::Load(_) | Op::Literal(_) | Op::Tasks(_) => {
                self.leaf(array, axes)
            }
            Op::Slice { .. } | Op::Rechunk(_) | Op::Reshape(_) | Op::Concatenate { .. } | Op::Reduce { .. } | Op::Scan { .. } => {
                self.leaf(array, axes)
            }
            Op::MatMul(..) | Op::Diagonal(_) | Op::Lstsq { .. } | Op::Solve(..) => self.leaf(array, axes),
        }
    }
}

/// How the axes of the output map to those of `operand`, an operand of `array`, aligned at the last axes.
fn through(array: &Array, operand: &Array, axes: &[Option<usize>]) -> Vec<Option<usize>> {
    let missing = array.n_axes() - operand.n_axes();
    axes.iter().map(|axis| axis.and_then(|axis| axis.checked_sub(missing))).collect()
}

impl Lowering<'_> {
    pub(super) fn fused(&mut self, array: &Array, chunk: usize, position: &[usize], hint: &str) -> Result<TaskIdx, ArrayError> {
        let fused = match &self.node(array, hint).fused {
            Some(fused) => Arc::clone(fused),
            None => {
                let fused = Arc::new(self.fuse(array));
                self.node(array, hint).fused = Some(Arc::clone(&fused));
                fused
            }
        };
        let tasks = fused
            .inputs
            .iter()
            .map(|input| self.chunk(&input.array, chunk_under(&input.array, &input.axes, position), hint))
            .collect::<Result<Vec<TaskIdx>, ArrayError>>()?;
        self.add(array, chunk, "array.elementwise", &fused.args, whole(tasks))
    }

    fn fuse(&self, array: &Array) -> Fused {
        let is_done = |array: &Array| self.nodes.get(&Arc::as_ptr(&array.0)).is_some_and(|node| node.n_done == node.tasks.len());
        let mut fuser = Fuser { code: Vec::new(), inputs: Vec::new(), is_done: &is_done };
        let axes: Vec<Option<usize>> = (0..array.n_axes()).map(Some).collect();
        fuser.emit(array, &axes, 0);
        let inputs =
            fuser.inputs.iter().map(|input| ProgramInput { dtype: input.array.dtype(), axes: input.axes.clone() }).collect();
        Fused { args: json(&Program { inputs, code: fuser.code }), inputs: fuser.inputs }
    }
}
