//! Chunks from nothing: constants, ranges, the identity, and literal data small enough to travel in the graph.

use rask_graphs::{KernelError, TaskContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::check_size;
use crate::dtype::{DType, with_type};
use crate::kernels::convert::FromFloat;
use crate::kernels::number::Number;
use crate::scalar::Scalar;

/// Arguments of `array.create`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateArgs {
    /// What the elements are.
    pub fill: Fill,
    /// Shape of this chunk.
    pub shape: Vec<usize>,
    /// Element type.
    #[serde(default = "float")]
    pub dtype: DType,
    /// Where this chunk begins in the whole array; at its origin unless given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offset: Vec<usize>,
}

fn float() -> DType {
    DType::F64
}

/// Contents of a created array.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fill {
    /// The same number everywhere; 0 makes zeros, 1 ones.
    Full(Scalar),
    /// `start + i * step` along the only axis; in floating point the step is what lies between the first two.
    Range {
        /// First element.
        start: Scalar,
        /// From one element to the next.
        step: Scalar,
    },
    /// `n` numbers from `start` to `stop`, as `linspace` rounds them; rounded down for integers.
    Linspace {
        /// First element.
        start: Scalar,
        /// Last element, if `endpoint`.
        stop: Scalar,
        /// Number of elements of the whole array.
        n: usize,
        /// Whether the last element is `stop`.
        endpoint: bool,
    },
    /// Ones on diagonal `k`, zeros elsewhere; two axes.
    Eye {
        /// 0 is the main diagonal, positive lie above.
        k: i64,
    },
}

/// Arguments of `array.literal`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiteralArgs {
    /// Shape of the chunk.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// The elements' bytes (little endian, C order) in base64.
    pub base64: String,
}

pub(crate) fn create(ctx: &TaskContext, args: &CreateArgs) -> Result<Chunk, KernelError> {
    check_size(&args.shape, args.dtype)?;
    if let Fill::Full(value) = args.fill {
        args.dtype.check_holds(value)?;
    }
    let n: usize = args.shape.iter().product();
    let offset = |axis: usize| args.offset.get(axis).copied().unwrap_or(0);
    let nbytes = n * args.dtype.size();
    ctx.check_memory(nbytes as u64)?;
    let mut buffer = Buffer::zeroed(nbytes);
    match args.fill {
        Fill::Full(value) => {
            let element = value.to_bytes(args.dtype);
            if element.iter().any(|&byte| byte != 0) {
                for place in buffer.bytes_mut().chunks_exact_mut(element.len()) {
                    place.copy_from_slice(&element);
                }
            }
        }
        Fill::Range { start, step } => {
            one_axis(args)?;
            let first = offset(0);
            if let (Scalar::Int(_) | Scalar::Bool(_), Scalar::Int(_) | Scalar::Bool(_)) = (start, step) {
                // Integers are exact however long the range is.
                let integer = |scalar: Scalar| if let Scalar::Int(value) = scalar { value } else { scalar.to_f64() as i128 };
                let (start, step) = (integer(start), integer(step));
                each(&mut buffer, args.dtype, |idx| {
                    Scalar::Int(start.wrapping_add(step.wrapping_mul(first.wrapping_add(idx) as i128)))
                });
            } else if args.dtype.is_float() {
                let (start, step) = (start.to_f64(), (start.to_f64() + step.to_f64()) - start.to_f64());
                each(&mut buffer, args.dtype, |idx| Scalar::Float((first.wrapping_add(idx) as f64) * step + start));
            } else {
                // NumPy counts in the type asked for: what is between the first two elements of it.
                let start: i128 = whole(start.to_f64(), args.dtype);
                let step = whole(start_plus(args.fill), args.dtype) - start;
                each(&mut buffer, args.dtype, |idx| {
                    Scalar::Int(start.wrapping_add(step.wrapping_mul(first.wrapping_add(idx) as i128)))
                });
            }
        }
        Fill::Linspace { start, stop, n, endpoint } => {
            one_axis(args)?;
            let (start, stop) = (start.to_f64(), stop.to_f64());
            let n_steps = if endpoint { n.saturating_sub(1) } else { n } as f64;
            let (length, step) = (stop - start, (stop - start) / n_steps);
            let value = |at: usize| {
                if endpoint && n > 1 && at + 1 == n {
                    stop
                } else if n_steps == 0.0 {
                    (at as f64) * length + start
                } else if step == 0.0 {
                    (at as f64) / n_steps * length + start
                } else {
                    (at as f64) * step + start
                }
            };
            let rounds_down = args.dtype.is_integer();
            each(&mut buffer, args.dtype, |idx| {
                let value = value(offset(0).wrapping_add(idx));
                Scalar::Float(if rounds_down { value.floor() } else { value })
            });
        }
        Fill::Eye { k } => {
            let [_, n_columns] = args.shape[..] else { return Err(KernelError("eye needs two axes".to_owned())) };
            let one = Scalar::Int(1).to_bytes(args.dtype);
            for (row, place) in buffer.bytes_mut().chunks_exact_mut((n_columns * one.len()).max(1)).enumerate() {
                let column = offset(0) as i128 + row as i128 + i128::from(k) - offset(1) as i128;
                if let Ok(column) = usize::try_from(column)
                    && column < n_columns
                {
                    place[column * one.len()..(column + 1) * one.len()].copy_from_slice(&one);
                }
            }
        }
    }
    Ok(Chunk::from_buffer(args.dtype, args.shape.clone(), buffer))
}

fn one_axis(args: &CreateArgs) -> Result<(), KernelError> {
    if args.shape.len() == 1 { Ok(()) } else { Err(KernelError("a range has one axis".to_owned())) }
}

/// The whole part of `value`, as an element of `dtype` has it.
fn whole(value: f64, dtype: DType) -> i128 {
    with_type!(dtype, T => Number::to_f64(T::from_float(value)) as i128)
}

/// The second element of a range before it is made an integer.
fn start_plus(fill: Fill) -> f64 {
    if let Fill::Range { start, step } = fill { start.to_f64() + step.to_f64() } else { 0.0 }
}

fn each(buffer: &mut Buffer, dtype: DType, value: impl Fn(usize) -> Scalar) {
    if dtype == DType::Bool {
        for (idx, place) in buffer.bytes_mut().iter_mut().enumerate() {
            *place = u8::from(value(idx).to_f64() != 0.0);
        }
        return;
    }
    with_type!(dtype, T => {
        for (idx, place) in buffer.typed_mut::<T>().iter_mut().enumerate() {
            *place = value(idx).to_element::<T>();
        }
    });
}

pub(crate) fn literal(args: &LiteralArgs) -> Result<Chunk, KernelError> {
    let bytes = data_encoding::BASE64.decode(args.base64.as_bytes())?;
    Chunk::from_bytes(args.dtype, args.shape.clone(), Buffer::copy_of(&bytes).freeze()).map_err(KernelError)
}

impl LiteralArgs {
    /// The arguments that make `chunk` again.
    pub(crate) fn of(chunk: &Chunk) -> Self {
        Self { shape: chunk.shape().to_vec(), dtype: chunk.dtype(), base64: data_encoding::BASE64.encode(chunk.bytes()) }
    }
}
