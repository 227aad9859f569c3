//! The operators that only benchmarks use: `bench.compute`, a known amount of arithmetic with a result of a known size,
//! `bench.stamp`, which says when it ran, and `bench.fill`, `bench.join` and `bench.total`, which make chunks of numbers, whole
//! or in parts, put parts together, and add up. Workers of this program know them.

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rask_graphs::builtin::{Opaque, Parts};
use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use serde::Deserialize;
use serde_json::json;

/// Numbers that one iteration advances: enough independent ones to keep the processor's pipelines full, few enough for its
/// registers.
const N_LANES: usize = 16;

/// A multiplication and an addition for each number.
pub(super) const FLOPS_PER_ITERATION: u64 = 2 * N_LANES as u64;

/// Every number goes to 1 by this factor an iteration: slowly, so that a million iterations still differ from a million and
/// one, and never into the subnormal range, where arithmetic is slower.
const DECAY: f64 = 1.0 - STEP;
const STEP: f64 = 1.0 / 1_048_576.0;

/// `iterations` times `x = x * DECAY + STEP` for each of 16 numbers. An iteration needs the one before and the compiler may not
/// reorder floating-point operations, so all of them are done. The multiply-adds are not fused: builds for any x86-64
/// processor cannot rely on that instruction.
pub(super) fn multiply_add(iterations: u64) -> [f64; N_LANES] {
    let mut lanes: [f64; N_LANES] = black_box(std::array::from_fn(|lane| 2.0 + lane as f64));
    for _ in 0..iterations {
        for x in &mut lanes {
            *x = *x * DECAY + STEP;
        }
    }
    lanes
}

/// Floating-point operations a second that `n_threads` threads reach with this kernel when nothing else runs in this process,
/// in about the time given.
pub(super) fn peak(n_threads: u32, time: Duration) -> f64 {
    const ITERATIONS: u64 = 4_096;
    let work = || {
        let begun = Instant::now();
        let mut iterations = 0;
        while begun.elapsed() < time {
            black_box(multiply_add(ITERATIONS));
            iterations += ITERATIONS;
        }
        (iterations * FLOPS_PER_ITERATION) as f64 / begun.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).sum()
    })
}

/// What the result of a `bench.compute` consists of, over and over: how deep in the graph it is, and a number that depends on
/// all its ancestors and on the order of inputs. So tasks check their inputs, and who gathers a result checks the whole graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Steps before this one.
    pub(super) depth: u64,
    /// From the digests of the inputs.
    pub(super) digest: u64,
}

impl Mark {
    /// Bytes of a mark.
    pub(super) const NBYTES: usize = 16;

    /// The mark of a task with these inputs.
    ///
    /// # Errors
    /// When they are not all equally deep: in Task Bench all inputs are of the step before.
    pub(super) fn after(inputs: impl IntoIterator<Item = Mark>) -> Result<Mark, KernelError> {
        let mut depth = None;
        let mut digest = 1_u64;
        for (position, input) in (1_u64..).zip(inputs) {
            if *depth.get_or_insert(input.depth) != input.depth {
                return Err(KernelError("an input is not of the step before".to_owned()));
            }
            // Any odd factor would do; a position of its own makes the order of inputs count.
            digest = digest.wrapping_mul(31).wrapping_add(input.digest.wrapping_mul(2 * position + 1));
        }
        Ok(Mark { depth: depth.map_or(0, |depth| depth + 1), digest })
    }

    fn to_bytes(self) -> [u8; Self::NBYTES] {
        (u128::from(self.depth) << 64 | u128::from(self.digest)).to_le_bytes()
    }

    /// The mark that the result of a `bench.compute` is full of.
    ///
    /// # Errors
    /// When it is no such result.
    pub(super) fn read(value: &Value) -> Result<Mark, KernelError> {
        let bytes = &value.expect::<Opaque>("the result of bench.compute")?.0;
        let (marks, rest) = bytes.as_chunks::<{ Self::NBYTES }>();
        let wrong = || KernelError("a result is not made of one mark only".to_owned());
        let first = marks.first().ok_or_else(wrong)?;
        if !rest.is_empty() || marks.iter().any(|mark| mark != first) {
            return Err(wrong());
        }
        let both = u128::from_le_bytes(*first);
        Ok(Mark { depth: (both >> 64) as u64, digest: both as u64 })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ComputeArgs {
    iterations: u64,
    payload_nbytes: usize,
}

fn compute(_ctx: &TaskContext, args: &ComputeArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let marks = inputs.iter().map(Mark::read).collect::<Result<Vec<Mark>, KernelError>>()?;
    let mark = Mark::after(marks)?;
    black_box(multiply_add(args.iterations));
    Ok(Value::new(Opaque(mark.to_bytes().repeat(args.payload_nbytes / Mark::NBYTES).into())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

fn stamp(_ctx: &TaskContext, _args: &NoArgs, _inputs: &[Value]) -> Result<Value, KernelError> {
    Ok(Value::new(Opaque(nanoseconds(SystemTime::now()).to_le_bytes().to_vec().into())))
}

/// Nanoseconds since 1970: the clock that processes of a machine share.
pub(super) fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// How long after `begin` the task ran whose result `stamp` is. Zero when the clock was set back in between.
///
/// # Errors
/// When it is not the result of `bench.stamp`.
pub(super) fn time_until_stamp(begin: SystemTime, stamp: &Value) -> Result<Duration, KernelError> {
    let bytes = &stamp.expect::<Opaque>("the result of bench.stamp")?.0;
    let at = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| KernelError("a stamp has eight bytes".to_owned()))?;
    Ok(Duration::from_nanos(u64::from_le_bytes(at).saturating_sub(nanoseconds(begin))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FillArgs {
    seed: u64,
    nbytes: usize,
    n_parts: usize,
}

/// Arguments of `bench.blend`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlendArgs {
    seed: u64,
    nbytes: usize,
}

/// The seed of what a `bench.blend` with this seed of its own makes of inputs whose numbers have these sums.
pub(super) fn blended_seed(seed: u64, sums: impl IntoIterator<Item = u64>) -> u64 {
    let mix = |number: u64| (number ^ (number >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let all = sums.into_iter().fold(mix(seed), |all, sum| mix(all.rotate_left(7) ^ sum));
    (all ^ (all >> 32)) & 0x3fff_ffff
}

fn blend(_ctx: &TaskContext, args: &BlendArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let sums = inputs.iter().map(sum_of).collect::<Result<Vec<u64>, KernelError>>()?;
    let bytes = bytes_of_chunk(blended_seed(args.seed, sums), args.nbytes);
    Ok(Value::new(Opaque(bytes.into())))
}

/// The numbers of a chunk: without a pattern that a compressor would find, and cheap.
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let first = (seed + 1) << 32;
    (first..).map(|at| {
        let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    })
}

fn bytes_of_chunk(seed: u64, nbytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(nbytes);
    for number in numbers(seed).take(nbytes / 8) {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn fill(_ctx: &TaskContext, args: &FillArgs, _inputs: &[Value]) -> Result<Value, KernelError> {
    let bytes = Bytes::from(bytes_of_chunk(args.seed, args.nbytes));
    if args.n_parts == 0 {
        return Ok(Value::new(Opaque(bytes)));
    }
    // Bounds are multiples of eight, so that no number is cut.
    let bound = |part: usize| args.nbytes / 8 * part / args.n_parts * 8;
    let parts = (0..args.n_parts).map(|part| Value::new(Opaque(bytes.slice(bound(part)..bound(part + 1)))));
    Ok(Value::new(Parts(parts.collect())))
}

fn join(_ctx: &TaskContext, _args: &NoArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let pieces = inputs.iter().map(|input| Ok(&input.expect::<Opaque>("a part of a chunk")?.0));
    let pieces = pieces.collect::<Result<Vec<&Bytes>, KernelError>>()?;
    Ok(Value::new(Opaque(
        pieces
            .into_iter()
            .fold(Vec::new(), |mut bytes, piece| {
                bytes.extend_from_slice(piece);
                bytes
            })
            .into(),
    )))
}

fn total(_ctx: &TaskContext, _args: &NoArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let sums = inputs.iter().map(sum_of);
    let sum = sums.collect::<Result<Vec<u64>, KernelError>>()?.into_iter().fold(0, u64::wrapping_add);
    Ok(Value::new(Opaque(sum.to_le_bytes().to_vec().into())))
}

/// The sum of the numbers of a result.
fn sum_of(value: &Value) -> Result<u64, KernelError> {
    let (numbers, rest) = value.expect::<Opaque>("a chunk or a sum")?.0.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(KernelError("a chunk has eight bytes a number".to_owned()));
    }
    Ok(numbers.iter().fold(0, |sum: u64, number| sum.wrapping_add(u64::from_le_bytes(*number))))
}

/// Whether `value` is the chunk of `nbytes` that `seed` makes, number by number.
pub(super) fn is_chunk(value: &Value, seed: u64, nbytes: u64) -> bool {
    let Ok(Opaque(bytes)) = value.expect::<Opaque>("a chunk") else { return false };
    let (found, rest) = bytes.as_chunks::<8>();
    let expected = numbers(seed).map(u64::to_le_bytes);
    rest.is_empty() && bytes.len() as u64 == nbytes && found.iter().zip(expected).all(|(found, expected)| *found == expected)
}

/// The sum of the numbers of part `part` of a chunk of `n_parts`.
pub(super) fn sum_of_part(seed: u64, nbytes: u64, part: u64, n_parts: u64) -> u64 {
    let bound = |part: u64| usize::try_from(nbytes / 8 * part / n_parts).unwrap_or(usize::MAX);
    numbers(seed).skip(bound(part)).take(bound(part + 1) - bound(part)).fold(0, u64::wrapping_add)
}

/// The sum of the numbers of a chunk.
pub(super) fn sum_of_chunk(seed: u64, nbytes: u64) -> u64 {
    let n_numbers = usize::try_from(nbytes / 8).unwrap_or(usize::MAX);
    numbers(seed).take(n_numbers).fold(0, u64::wrapping_add)
}

/// What the result of a `bench.total` says.
///
/// # Errors
/// When it is no such result.
pub(super) fn total_of(value: &Value) -> Result<u64, KernelError> {
    let bytes = &value.expect::<Opaque>("the result of bench.total")?.0;
    let bytes = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| KernelError("a sum has eight bytes".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Register the operators of this module.
///
/// # Panics
/// When they are registered already.
pub(super) fn register(registry: &mut Registry) {
    let compute_schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["iterations", "payload_nbytes"],
        "properties": {
            "iterations": { "type": "integer", "minimum": 0, "description": "Iterations of 32 floating-point operations." },
            "payload_nbytes": { "type": "integer", "minimum": 16, "description": "Size of the result, a multiple of 16." },
        },
    });
    let compute_spec = OperatorSpec {
        name: "bench.compute",
        version: 1,
        inputs: Arity::any(),
        output: "bytes",
        doc: "Check that the inputs are of the step before, do arithmetic, and return bytes; a task of Task Bench.",
        args_schema: compute_schema,
    };
    registry.register(compute_spec, compute);
    let stamp_spec = OperatorSpec {
        name: "bench.stamp",
        version: 1,
        inputs: Arity::any(),
        output: "bytes",
        doc: "Return the time at which it runs.",
        args_schema: json!({ "type": "object", "additionalProperties": false, "properties": {} }),
    };
    registry.register(stamp_spec, stamp);
    register_chunks(registry);
}

fn register_chunks(registry: &mut Registry) {
    let no_args = json!({ "type": "object", "additionalProperties": false, "properties": {} });
    let fill_schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["seed", "nbytes", "n_parts"],
        "properties": {
            "seed": { "type": "integer", "minimum": 0, "description": "Which numbers." },
            "nbytes": { "type": "integer", "minimum": 0, "description": "Size of the result, a multiple of 8." },
            "n_parts": { "type": "integer", "minimum": 0, "description": "Parts of the result; 0 for a whole." },
        },
    });
    let blend_schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["seed", "nbytes"],
        "properties": {
            "seed": { "type": "integer", "minimum": 0, "description": "Which numbers, together with the inputs." },
            "nbytes": { "type": "integer", "minimum": 0, "description": "Size of the result, a multiple of 8." },
        },
    });
    let spec = |name, output, doc, args_schema| OperatorSpec { name, version: 1, inputs: Arity::any(), output, doc, args_schema };
    registry.register(spec("bench.fill", "bytes", "Make a chunk of numbers, or several parts of one.", fill_schema), fill);
    let doc = "Make a chunk of numbers that depend on every number of the inputs and on the inputs' order.";
    registry.register(spec("bench.blend", "bytes", doc, blend_schema), blend);
    registry.register(spec("bench.join", "bytes", "Put parts together.", no_args.clone()), join);
    registry.register(spec("bench.total", "bytes", "Add up the numbers of all inputs.", no_args), total);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every iteration multiplies the distance from 1 by DECAY, so the result tells how many there were.
    #[test]
    fn the_kernel_does_as_many_iterations_as_it_is_asked_for() {
        for iterations in [0_u64, 1, 2, 1_000, 1_000_000] {
            for (lane, x) in multiply_add(iterations).into_iter().enumerate() {
                let distance = (1.0 + lane as f64) * (iterations as f64 * DECAY.ln()).exp();
                // One iteration changes the distance by a millionth; rounding accumulates to far less.
                assert!(((x - 1.0) / distance - 1.0).abs() < 1e-8, "lane {lane} after {iterations}: {x}");
            }
        }
    }

    fn run(operator: &str, args: &str, inputs: &[Value]) -> Result<Value, KernelError> {
        let mut registry = Registry::new();
        register(&mut registry);
        registry.prepare(operator, 1, args).unwrap().run(&TaskContext::detached("x"), inputs)
    }

    #[test]
    fn a_result_has_the_size_asked_for_and_knows_its_ancestors() {
        let first = run("bench.compute", r#"{"iterations": 3, "payload_nbytes": 16}"#, &[]).unwrap();
        let other =
            run("bench.compute", r#"{"iterations": 3, "payload_nbytes": 4096}"#, &[first.clone(), first.clone()]).unwrap();
        assert_eq!((first.nbytes(), other.nbytes()), (16, 4096));
        let (first_mark, other_mark) = (Mark::read(&first).unwrap(), Mark::read(&other).unwrap());
        assert_eq!((first_mark.depth, other_mark.depth), (0, 1));
        assert_eq!(Mark::after([first_mark, first_mark]).unwrap(), other_mark);
        assert_ne!(Mark::after([first_mark]).unwrap(), other_mark);
        let mixed = run("bench.compute", r#"{"iterations": 3, "payload_nbytes": 16}"#, &[first.clone(), other.clone()]);
        assert!(mixed.is_err(), "inputs of two steps");
        let (a, b) = (Mark { depth: 1, digest: 5 }, Mark { depth: 1, digest: 6 });
        assert_ne!(Mark::after([a, b]).unwrap(), Mark::after([b, a]).unwrap());
    }

    #[test]
    fn a_damaged_input_is_found() {
        let whole = Mark { depth: 2, digest: 9 }.to_bytes().repeat(64);
        for at in [0, 500, 1023] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Mark::read(&Value::new(Opaque(damaged.into()))).is_err(), "byte {at}");
        }
        assert!(Mark::read(&Value::new(Opaque(whole[..1000].to_vec().into()))).is_err());
        assert!(Mark::read(&Value::new(Opaque(Vec::new().into()))).is_err());
        assert_eq!(Mark::read(&Value::new(Opaque(whole.into()))), Ok(Mark { depth: 2, digest: 9 }));
    }

    #[test]
    fn a_stamp_is_the_time_of_the_run() {
        let begin = SystemTime::now();
        std::thread::sleep(Duration::from_millis(2));
        let stamp = run("bench.stamp", "{}", &[]).unwrap();
        let until = time_until_stamp(begin, &stamp).unwrap();
        assert!(until >= Duration::from_millis(2) && until <= begin.elapsed().unwrap(), "{until:?}");
    }
}
