//! The operators of arrays: what workers run, one chunk at a time.
//!
//! [`register`] puts every one of them into a registry with the schema of its arguments, so that a task in a graph file
//! can name any of them. Kernels read the shapes of their inputs when they run, so one body serves all chunks.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod evaluate;
pub(crate) mod layout;
pub(crate) mod linalg;
mod loops;
pub(crate) mod npy;
pub(crate) mod number;
mod partial;
pub(crate) mod program;
pub mod random;
pub mod reduce;
pub(crate) mod scan;

use std::sync::Arc;

use rask_graphs::builtin::Parts;
use rask_graphs::{Arity, Kernel, KernelError, OperatorSpec, Registry, TaskContext, Value};

use crate::chunk::{self, Chunk, KIND};
use crate::dtype::DType;
use crate::function::Function;
use create::{CreateArgs, LiteralArgs};
use layout::{AssembleArgs, ConcatenateArgs, ReshapeArgs, SliceArgs, SplitArgs, TransposeArgs};
use linalg::{LstsqFinishArgs, NoArgs, TsqrArgs};
use npy::{LoadArgs, WriteArgs};
use partial::PARTIAL_KIND;
use program::{Compiled, Program};
use random::RandomArgs;
use reduce::{ReduceArgs, Reduction};

/// The version of every operator here.
pub(crate) const VERSION: u32 = 1;

fn chunks(inputs: &[Value]) -> Result<Vec<&Chunk>, KernelError> {
    inputs.iter().map(|input| input.expect::<Chunk>("an array")).collect()
}

/// Bytes of all elements of the inputs: the size of what is put together from them.
fn nbytes_of(inputs: &[Value]) -> u64 {
    inputs.iter().fold(0, |sum: u64, input| sum.saturating_add(input.nbytes()))
}

struct ProgramKernel(Compiled);

impl Kernel for ProgramKernel {
    fn run(&self, ctx: &TaskContext, inputs: &[Value]) -> Result<Value, KernelError> {
        if inputs.len() != self.0.inputs.len() {
            return Err(KernelError(format!("the program has {} inputs, the task {}", self.0.inputs.len(), inputs.len())));
        }
        Ok(Value::new(evaluate::run(ctx, &self.0, &chunks(inputs)?)?))
    }
}

fn apply(ctx: &TaskContext, function: Function, inputs: &[Value]) -> Result<Value, KernelError> {
    let inputs = chunks(inputs)?;
    let types: Vec<(DType, usize)> = inputs.iter().map(|input| (input.dtype(), input.shape().len())).collect();
    let compiled = program::program_of(function, &types)?.compile().map_err(KernelError)?;
    Ok(Value::new(evaluate::run(ctx, &compiled, &inputs)?))
}

/// Apply a function to chunks here and now.
pub(crate) fn apply_now(function: Function, operands: &[Chunk]) -> Result<Chunk, KernelError> {
    let types: Vec<(DType, usize)> = operands.iter().map(|operand| (operand.dtype(), operand.shape().len())).collect();
    let compiled = program::program_of(function, &types)?.compile().map_err(KernelError)?;
    evaluate::run(&TaskContext::detached("constant"), &compiled, &operands.iter().collect::<Vec<&Chunk>>())
}

fn spec<A: schemars::JsonSchema>(name: &'static str, inputs: Arity, doc: &'static str) -> OperatorSpec {
    OperatorSpec::new::<A>(name, VERSION, inputs, KIND, doc)
}

/// Register the kinds and operators of arrays.
///
/// # Panics
/// When one of their names is taken, which is a programming error.
pub fn register(registry: &mut Registry) {
    registry.register_kind(KIND, chunk::decode);
    registry.register_kind(PARTIAL_KIND, partial::decode_partial);
    register_sources(registry);
    register_elementwise(registry);
    register_layout(registry);
    register_linalg(registry);
    register_scans(registry);
    for reduction in Reduction::ALL {
        registry.register(
            spec::<ReduceArgs>(reduction.operator(), Arity::at_least(1), reduction.doc()),
            move |ctx, args: &ReduceArgs, inputs| reduce::reduce(ctx, reduction, args, inputs),
        );
    }
}

fn register_sources(registry: &mut Registry) {
    registry.register(
        spec::<RandomArgs>(
            "array.random",
            Arity::exactly(0),
            "Random numbers; each depends on the seed and its position only, not on how the array is cut.",
        ),
        |ctx, args: &RandomArgs, _inputs| Ok(Value::new(random::random(ctx, args)?)),
    );
    registry.register(
        spec::<CreateArgs>(
            "array.create",
            Arity::exactly(0),
            "A constant, a range, evenly spaced numbers or an identity matrix.",
        ),
        |ctx, args: &CreateArgs, _inputs| Ok(Value::new(create::create(ctx, args)?)),
    );
    registry.register(
        spec::<LiteralArgs>("array.literal", Arity::exactly(0), "Data that travels in the graph itself; for small arrays."),
        |_ctx, args: &LiteralArgs, _inputs| Ok(Value::new(create::literal(args)?)),
    );
    registry.register(
        spec::<LoadArgs>("array.load", Arity::exactly(0), "A box of the array in an npy file."),
        |ctx, args: &LoadArgs, _inputs| Ok(Value::new(npy::load(ctx, args)?)),
    );
    registry.register(
        OperatorSpec::new::<WriteArgs>(
            "array.write",
            VERSION,
            Arity::at_least(1),
            "file",
            "Write chunks as one npy file, which appears when it is complete.",
        ),
        |ctx, args: &WriteArgs, inputs| Ok(Value::new(npy::write(ctx, args, &chunks(inputs)?)?)),
    );
}

fn register_elementwise(registry: &mut Registry) {
    registry.register_prepared(
        spec::<Program>(
            "array.elementwise",
            Arity::at_least(1),
            "A fused tree of elementwise functions, in one pass over memory.",
        ),
        |args| {
            let program: Program = serde_json::from_str(args).map_err(|error| error.to_string())?;
            Ok(Arc::new(ProgramKernel(program.compile()?)))
        },
    );
    for &function in Function::ALL {
        registry.register(
            spec::<NoArgs>(function.operator(), Arity::exactly(function.n_operands()), function.doc()),
            move |ctx, _args: &NoArgs, inputs| apply(ctx, function, inputs),
        );
    }
}

fn register_layout(registry: &mut Registry) {
    registry.register(
        spec::<SliceArgs>("array.slice", Arity::exactly(1), "Every step-th element from start to stop along each axis."),
        |_ctx, args: &SliceArgs, inputs| Ok(Value::new(layout::slice(args, chunks(inputs)?[0])?)),
    );
    registry.register(
        spec::<TransposeArgs>("array.transpose", Arity::exactly(1), "Axes in another order, dropped or added."),
        |_ctx, args: &TransposeArgs, inputs| Ok(Value::new(layout::transpose(args, chunks(inputs)?[0])?)),
    );
    registry.register(
        spec::<ReshapeArgs>("array.reshape", Arity::exactly(1), "The same elements in another shape."),
        |_ctx, args: &ReshapeArgs, inputs| Ok(Value::new(layout::reshape(args, chunks(inputs)?[0])?)),
    );
    registry.register(
        OperatorSpec::new::<SplitArgs>(
            "array.split",
            VERSION,
            Arity::exactly(1),
            "parts",
            "Cut into pieces that can be fetched one by one.",
        ),
        |_ctx, args: &SplitArgs, inputs| Ok(Value::new(Parts(layout::split(args, chunks(inputs)?[0])?))),
    );
    registry.register(
        spec::<AssembleArgs>("array.assemble", Arity::at_least(1), "One array of a grid of pieces."),
        |ctx, args: &AssembleArgs, inputs| {
            ctx.check_memory(nbytes_of(inputs))?;
            Ok(Value::new(layout::assemble(&args.counts, &chunks(inputs)?)?))
        },
    );
    registry.register(
        spec::<ConcatenateArgs>("array.concatenate", Arity::at_least(1), "Arrays one after another along an axis."),
        |ctx, args: &ConcatenateArgs, inputs| {
            ctx.check_memory(nbytes_of(inputs))?;
            Ok(Value::new(layout::concatenate(args, &chunks(inputs)?)?))
        },
    );
    registry.register(
        spec::<NoArgs>("array.diag", Arity::exactly(1), "The diagonal of a matrix, or the matrix with this diagonal."),
        |ctx, _args: &NoArgs, inputs| Ok(Value::new(layout::diagonal(ctx, chunks(inputs)?[0])?)),
    );
}

fn register_scans(registry: &mut Registry) {
    for (kind, doc) in [
        (scan::Scan::Sum, "For each element the sum of it and all before it along an axis."),
        (scan::Scan::Product, "For each element the product of it and all before it along an axis."),
    ] {
        registry.register(spec::<scan::ScanArgs>(kind.operator(), Arity::exactly(1), doc), move |ctx, args, inputs| {
            Ok(Value::new(scan::scan(ctx, kind, args, chunks(inputs)?[0])?))
        });
    }
}

fn register_linalg(registry: &mut Registry) {
    registry.register(
        spec::<NoArgs>(
            "array.matmul",
            Arity::at_least(2),
            "The product of two matrices or stacks of matrices, or the sum of the products of pairs a1, b1, a2, b2, ...",
        ),
        |ctx, _args: &NoArgs, inputs| Ok(Value::new(linalg::multiply(ctx, &chunks(inputs)?)?)),
    );
    registry.register(
        spec::<NoArgs>("array.norm", Arity::at_least(1), "Euclidean norm of all elements of all inputs."),
        |ctx, _args: &NoArgs, inputs| norm(ctx, inputs),
    );
    registry.register(
        spec::<TsqrArgs>("array.tsqr", Arity::at_least(1), "The triangular QR factor of matrices stacked on each other."),
        |_ctx, args: &TsqrArgs, inputs| Ok(Value::new(linalg::tsqr(args, &chunks(inputs)?)?)),
    );
    registry.register(
        spec::<LstsqFinishArgs>("array.lstsq_finish", Arity::exactly(1), "Least-squares solution from a triangular factor."),
        |ctx, args: &LstsqFinishArgs, inputs| Ok(Value::new(linalg::lstsq_finish(ctx, args, chunks(inputs)?[0])?)),
    );
    registry.register(
        spec::<NoArgs>("array.solve", Arity::exactly(2), "x with a @ x == b, for a square matrix a."),
        |_ctx, _args: &NoArgs, inputs| {
            let inputs = chunks(inputs)?;
            Ok(Value::new(linalg::solve(inputs[0], inputs[1])?))
        },
    );
}

fn norm(ctx: &TaskContext, inputs: &[Value]) -> Result<Value, KernelError> {
    let squares = inputs
        .iter()
        .map(|input| {
            let magnitude = apply(ctx, Function::Absolute, std::slice::from_ref(input))?;
            let chunk = magnitude.expect::<Chunk>("an array")?;
            let real = program::Program {
                inputs: vec![program::ProgramInput { dtype: chunk.dtype(), axes: (0..chunk.shape().len()).map(Some).collect() }],
                code: vec![
                    program::Instruction::Input(0),
                    program::Instruction::Cast(chunk.dtype(), DType::F64),
                    program::Instruction::Apply(Function::Square, DType::F64),
                ],
            };
            Ok(Value::new(evaluate::run(ctx, &real.compile().map_err(KernelError)?, &[chunk])?))
        })
        .collect::<Result<Vec<Value>, KernelError>>()?;
    apply(ctx, Function::Sqrt, &[reduce::reduce(ctx, Reduction::Sum, &ReduceArgs::default(), &squares)?])
}
