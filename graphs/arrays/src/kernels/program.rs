//! The small program of a fused elementwise task: postfix code, checked and given registers once per body.
//!
//! It says what is computed from which inputs and how each input's axes lie in the output; it names no shapes, so that
//! all chunks of an array share one body.

use rask_graphs::KernelError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::function::Function;
use crate::scalar::Scalar;

/// Arguments of `array.elementwise`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    /// The task's inputs, in order.
    pub inputs: Vec<ProgramInput>,
    /// What is done, operands before functions; one value must be left over.
    pub code: Vec<Instruction>,
}

/// An input of a [`Program`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProgramInput {
    /// Its element type.
    pub dtype: DType,
    /// For each axis of the output the axis of this input that runs along it; null where it is repeated.
    pub axes: Vec<Option<usize>>,
}

/// One step of a [`Program`].
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Instruction {
    /// Push an input.
    Input(usize),
    /// Push a number of a type.
    Constant(DType, Scalar),
    /// Convert the value on top from the first type to the second.
    Cast(DType, DType),
    /// Apply a function to the values on top, all of this type.
    Apply(Function, DType),
}

/// One operation on registers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Cast(DType, DType),
    Apply(Function, DType),
}

impl Operation {
    /// Bytes an element of the result takes.
    pub(crate) fn result_size(self) -> usize {
        match self {
            Operation::Cast(_, to) => to.size(),
            Operation::Apply(function, dtype) => result_type(function, dtype).size(),
        }
    }
}

/// An operation, the registers it reads and the one it writes, which is none of those.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) operands: Vec<usize>,
    pub(crate) out: usize,
}

/// A program with registers: first one per input, then one per constant, then temporaries.
pub(crate) struct Compiled {
    pub(crate) inputs: Vec<ProgramInput>,
    pub(crate) constants: Vec<(DType, Scalar)>,
    pub(crate) steps: Vec<Step>,
    /// Bytes an element of each register takes at most.
    pub(crate) widths: Vec<usize>,
    pub(crate) result: usize,
    pub(crate) dtype: DType,
    pub(crate) n_axes: usize,
}

impl Program {
    /// Check types and stack discipline, and hand out registers.
    pub(crate) fn compile(&self) -> Result<Compiled, String> {
        let n_axes = self.inputs.first().map_or(0, |input| input.axes.len());
        if self.inputs.is_empty() || self.inputs.iter().any(|input| input.axes.len() != n_axes) {
            return Err("a program needs inputs, all with an entry for each axis of the output".to_owned());
        }
        let mut compiler = Compiler {
            widths: self.inputs.iter().map(|input| input.dtype.size()).collect(),
            constants: self
                .code
                .iter()
                .filter_map(|step| if let Instruction::Constant(dtype, value) = step { Some((*dtype, *value)) } else { None })
                .collect(),
            stack: Vec::new(),
            free: Vec::new(),
            steps: Vec::new(),
            n_fixed: 0,
        };
        compiler.widths.extend(compiler.constants.iter().map(|(dtype, _)| dtype.size()));
        compiler.n_fixed = compiler.widths.len();
        let mut next_constant = self.inputs.len();
        for instruction in &self.code {
            match *instruction {
                Instruction::Input(idx) => {
                    let input = self.inputs.get(idx).ok_or_else(|| format!("there is no input {idx}"))?;
                    compiler.stack.push((idx, input.dtype));
                }
                Instruction::Constant(dtype, _) => {
                    compiler.stack.push((next_constant, dtype));
                    next_constant += 1;
                }
                Instruction::Cast(from, to) => compiler.emit(Operation::Cast(from, to), &[from], to)?,
                Instruction::Apply(function, dtype) => {
                    let operands = match function.n_operands() {
                        3 => vec![DType::Bool, dtype, dtype],
                        n => vec![dtype; n],
                    };
                    compiler.emit(Operation::Apply(function, dtype), &operands, result_type(function, dtype))?;
                }
            }
        }
        let [(result, dtype)] = compiler.stack[..] else {
            return Err(format!("the program leaves {} values, not one", compiler.stack.len()));
        };
        Ok(Compiled {
            inputs: self.inputs.clone(),
            constants: compiler.constants,
            steps: compiler.steps,
            widths: compiler.widths,
            result,
            dtype,
            n_axes,
        })
    }
}

fn result_type(function: Function, dtype: DType) -> DType {
    use Function as F;
    let is_truth = matches!(
        function,
        F::Equal
            | F::NotEqual
            | F::Less
            | F::LessEqual
            | F::Greater
            | F::GreaterEqual
            | F::LogicalNot
            | F::IsNan
            | F::IsInf
            | F::IsFinite
    );
    if is_truth { DType::Bool } else { dtype }
}

struct Compiler {
    widths: Vec<usize>,
    constants: Vec<(DType, Scalar)>,
    stack: Vec<(usize, DType)>,
    free: Vec<usize>,
    steps: Vec<Step>,
    n_fixed: usize,
}

impl Compiler {
    fn emit(&mut self, operation: Operation, wanted: &[DType], result: DType) -> Result<(), String> {
        let at = self.stack.len().checked_sub(wanted.len()).ok_or("a function has too few operands")?;
        let operands = self.stack.split_off(at);
        if let Some(((_, got), want)) = operands.iter().zip(wanted).find(|((_, got), want)| got != *want) {
            return Err(format!("{operation:?} takes {want}, got {got}"));
        }
        let out = self.free.pop().unwrap_or_else(|| {
            self.widths.push(0);
            self.widths.len() - 1
        });
        self.widths[out] = self.widths[out].max(result.size());
        // An operand's register is free for the next step, not for this one: no step writes what it reads.
        let mut done: Vec<usize> =
            operands.iter().map(|(register, _)| *register).filter(|register| *register >= self.n_fixed).collect();
        done.dedup();
        self.free.extend(done);
        self.steps.push(Step { operation, operands: operands.into_iter().map(|(register, _)| register).collect(), out });
        self.stack.push((out, result));
        Ok(())
    }
}

/// The program that applies one function to inputs of these types, aligned at their last axes as NumPy broadcasts.
pub(crate) fn program_of(function: Function, inputs: &[(DType, usize)]) -> Result<Program, KernelError> {
    let types: Vec<crate::function::OperandType> =
        inputs.iter().map(|(dtype, _)| crate::function::OperandType::Typed(*dtype)).collect();
    let resolved = function.resolve(&types)?;
    let n_axes = inputs.iter().map(|(_, n_axes)| *n_axes).max().unwrap_or(0);
    let mut code = Vec::new();
    match inputs {
        [(left, _), (right, _)] if function.is_comparison() && left.is_signed() && *right == DType::U64 => {
            mixed_comparison(function, *left, [0, 1], &mut code);
        }
        [(left, _), (right, _)] if function.is_comparison() && *left == DType::U64 && right.is_signed() => {
            mixed_comparison(function.mirrored(), *right, [1, 0], &mut code);
        }
        _ => {
            for (idx, (dtype, _)) in inputs.iter().enumerate() {
                let want = if function == Function::Where && idx == 0 { DType::Bool } else { resolved.compute };
                code.push(Instruction::Input(idx));
                if *dtype != want {
                    code.push(Instruction::Cast(*dtype, want));
                }
            }
            code.push(Instruction::Apply(resolved.function, resolved.compute));
        }
    }
    let inputs = inputs
        .iter()
        .map(|(dtype, own)| ProgramInput {
            dtype: *dtype,
            axes: (0..n_axes).map(|axis| (axis + own).checked_sub(n_axes)).collect(),
        })
        .collect();
    Ok(Program { inputs, code })
}

/// The comparison of input `signed`, of type `dtype`, with the u64 input: what is negative is smaller, the rest is compared
/// without sign.
fn mixed_comparison(function: Function, dtype: DType, [signed, unsigned]: [usize; 2], code: &mut Vec<Instruction>) {
    use Function as F;
    let smaller_is_true = matches!(function, F::Less | F::LessEqual | F::NotEqual);
    let (sign, join) = if smaller_is_true { (F::Less, F::BitwiseOr) } else { (F::GreaterEqual, F::BitwiseAnd) };
    code.extend([
        Instruction::Input(signed),
        Instruction::Constant(dtype, Scalar::Int(0)),
        Instruction::Apply(sign, dtype),
        Instruction::Input(signed),
        Instruction::Cast(dtype, DType::U64),
        Instruction::Input(unsigned),
        Instruction::Apply(function, DType::U64),
        Instruction::Apply(join, DType::Bool),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(dtype: DType) -> ProgramInput {
        ProgramInput { dtype, axes: vec![Some(0)] }
    }

    #[test]
    fn registers_are_reused_but_never_read_and_written_at_once() {
        let mut code = vec![Instruction::Input(0)];
        for _ in 0..10 {
            code.push(Instruction::Apply(Function::Square, DType::F64));
        }
        let compiled = Program { inputs: vec![input(DType::F64)], code }.compile().unwrap();
        assert_eq!(compiled.widths.len(), 3);
        assert!(compiled.steps.iter().all(|step| !step.operands.contains(&step.out)));
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            vec![],
            vec![Instruction::Input(1)],
            vec![Instruction::Apply(Function::Square, DType::F64)],
            vec![Instruction::Input(0), Instruction::Input(0)],
            vec![Instruction::Input(0), Instruction::Apply(Function::Square, DType::F32)],
        ];
        for code in cases {
            assert!(Program { inputs: vec![input(DType::F64)], code: code.clone() }.compile().is_err(), "{code:?}");
        }
    }
}
