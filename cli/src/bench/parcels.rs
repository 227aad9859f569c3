//! The operators of `rask bench transfer`: results of a known size and content, and tasks that look at what came.
//!
//! `bench.parcel` makes one result and `bench.unpack` looks into many. `bench.relay` is a link of a chain that says how long
//! its input was on the way. `bench.blocks` and `bench.sum` are an all-to-all exchange whose outcome is known beforehand.

use std::time::SystemTime;

use rask_graphs::builtin::{Opaque, Parts};
use rask_graphs::{Arity, KernelError, OperatorSpec, Registry, TaskContext, Value};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::kernels::nanoseconds;

/// Bytes between two looks into a parcel: one into each page, so that every page is known to be there.
const LOOK_NBYTES: usize = 4_096;
const WORD_NBYTES: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParcelArgs {
    seed: u64,
    nbytes: usize,
}

/// Word `idx` of the parcel `seed`; word 0 is the seed itself.
fn word(seed: u64, idx: usize) -> u64 {
    seed ^ (idx as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn parcel(ctx: &TaskContext, args: &ParcelArgs, _inputs: &[Value]) -> Result<Value, KernelError> {
    ctx.check_memory(args.nbytes as u64)?;
    let mut bytes = Vec::with_capacity(args.nbytes);
    for idx in 0..args.nbytes / WORD_NBYTES {
        bytes.extend_from_slice(&word(args.seed, idx).to_le_bytes());
    }
    bytes.resize(args.nbytes, 0);
    Ok(Value::new(Opaque(bytes.into())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

/// The sum of the inputs' seeds, once every page of every input has been found to be right.
fn unpack(_ctx: &TaskContext, _args: &NoArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let mut sum = 0_u64;
    for input in inputs {
        let bytes = &input.expect::<Opaque>("the result of bench.parcel")?.0;
        let (words, _rest) = bytes.as_chunks::<WORD_NBYTES>();
        let seed = words.first().map_or(0, |first| u64::from_le_bytes(*first));
        let last = words.len().saturating_sub(1);
        for idx in (0..words.len()).step_by(LOOK_NBYTES / WORD_NBYTES).chain([last]) {
            if words.get(idx).is_some_and(|found| u64::from_le_bytes(*found) != word(seed, idx)) {
                return Err(KernelError(format!("word {idx} of parcel {seed} is wrong")));
            }
        }
        sum = sum.wrapping_add(seed);
    }
    Ok(Value::new(Opaque(sum.to_le_bytes().to_vec().into())))
}

/// Size of what `bench.relay` returns: when its run ended, how long its input was on the way, and filling.
pub(super) const RELAY_NBYTES: usize = 100;

fn relay(_ctx: &TaskContext, _args: &NoArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let begun = nanoseconds(SystemTime::now());
    let mut on_the_way = 0;
    if let Some(input) = inputs.first() {
        on_the_way = begun.saturating_sub(read_word(input, 0)?);
    }
    let mut bytes = vec![0; RELAY_NBYTES];
    bytes[WORD_NBYTES..2 * WORD_NBYTES].copy_from_slice(&on_the_way.to_le_bytes());
    bytes[..WORD_NBYTES].copy_from_slice(&nanoseconds(SystemTime::now()).to_le_bytes());
    Ok(Value::new(Opaque(bytes.into())))
}

/// Nanoseconds from the end of the run before `result`'s until the beginning of its own.
///
/// # Errors
/// When it is no result of `bench.relay`.
pub(super) fn time_on_the_way(result: &Value) -> Result<u64, KernelError> {
    read_word(result, 1)
}

/// Word `idx` of plain bytes.
///
/// # Errors
/// When there is none.
pub(super) fn read_word(value: &Value, idx: usize) -> Result<u64, KernelError> {
    let bytes = &value.expect::<Opaque>("plain bytes")?.0;
    let (words, _rest) = bytes.as_chunks::<WORD_NBYTES>();
    let found = words.get(idx).ok_or_else(|| KernelError(format!("a result of {} bytes has no word {idx}", bytes.len())))?;
    Ok(u64::from_le_bytes(*found))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlocksArgs {
    row: u32,
    n_parts: u32,
    /// Numbers in each part, a multiple of 16.
    n_numbers: usize,
}

/// Number `idx` of the block at `row`, `column`: a small integer, so that sums are exact in any order.
fn number(row: u32, column: u32, idx: usize) -> f64 {
    f64::from(row + column) + (idx % 16) as f64
}

/// What `bench.sum` must find in all blocks of `n_rows` rows and as many columns.
pub(super) fn expected_sum(n_rows: u32, n_numbers: usize) -> f64 {
    let of_places = f64::from(n_rows) * f64::from(n_rows) * f64::from(n_rows - 1) * n_numbers as f64;
    of_places + f64::from(n_rows) * f64::from(n_rows) * (n_numbers / 16 * 120) as f64
}

/// One row of blocks in one piece of memory, a part a block.
fn blocks(_ctx: &TaskContext, args: &BlocksArgs, _inputs: &[Value]) -> Result<Value, KernelError> {
    let part_nbytes = args.n_numbers * size_of::<f64>();
    let mut row = Vec::with_capacity(part_nbytes * args.n_parts as usize);
    for column in 0..args.n_parts {
        for idx in 0..args.n_numbers {
            row.extend_from_slice(&number(args.row, column, idx).to_le_bytes());
        }
    }
    let row = Opaque(row.into());
    let part = |idx: usize| Value::new(Opaque(row.0.slice(idx * part_nbytes..(idx + 1) * part_nbytes)));
    Ok(Value::new(Parts((0..args.n_parts as usize).map(part).collect())))
}

fn sum(_ctx: &TaskContext, _args: &NoArgs, inputs: &[Value]) -> Result<Value, KernelError> {
    let mut sum = 0.0;
    for input in inputs {
        let bytes = &input.expect::<Opaque>("numbers as bytes")?.0;
        let (numbers, _rest) = bytes.as_chunks::<{ size_of::<f64>() }>();
        // Four sums side by side: one alone would wait for every addition.
        let (fours, rest) = numbers.as_chunks::<4>();
        let mut sums = [0.0; 4];
        for four in fours {
            for (sum, number) in sums.iter_mut().zip(four) {
                *sum += f64::from_le_bytes(*number);
            }
        }
        sum += sums.iter().sum::<f64>() + rest.iter().map(|number| f64::from_le_bytes(*number)).sum::<f64>();
    }
    Ok(Value::new(Opaque(sum.to_le_bytes().to_vec().into())))
}

/// Register the operators of this module.
///
/// # Panics
/// When they are registered already.
pub(super) fn register(registry: &mut Registry) {
    let count = |description: &str| json!({ "type": "integer", "minimum": 0, "description": description });
    let parcel_args = json!({ "seed": count("What the content is made from."), "nbytes": count("Size of the result.") });
    let doc = "Return bytes of a known content.";
    registry.register(spec("bench.parcel", "bytes", doc, parcel_args), parcel);
    let doc = "Look into every page of results of bench.parcel, and add up what they were made from.";
    registry.register(spec("bench.unpack", "bytes", doc, json!({})), unpack);
    let doc = "Return how long the input was on the way, and the time.";
    registry.register(spec("bench.relay", "bytes", doc, json!({})), relay);
    let blocks_args = json!({
        "row": count("Which row of blocks."),
        "n_parts": count("Blocks in the row."),
        "n_numbers": count("Numbers in a block, a multiple of 16."),
    });
    registry.register(spec("bench.blocks", "parts", "Return a row of blocks of numbers, a part each.", blocks_args), blocks);
    registry.register(spec("bench.sum", "bytes", "Add up the numbers in all inputs.", json!({})), sum);
}

fn spec(name: &'static str, output: &'static str, doc: &'static str, properties: Json) -> OperatorSpec {
    let required: Vec<String> = properties.as_object().map_or_else(Vec::new, |object| object.keys().cloned().collect());
    let args_schema = json!({ "type": "object", "additionalProperties": false, "required": required, "properties": properties });
    OperatorSpec { name, version: 1, inputs: Arity::any(), output, doc, args_schema }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(operator: &str, args: &str, inputs: &[Value]) -> Result<Value, KernelError> {
        let mut registry = Registry::new();
        register(&mut registry);
        registry.prepare(operator, 1, args).unwrap().run(&TaskContext::detached("x"), inputs)
    }

    #[test]
    fn a_damaged_parcel_is_found() {
        let parcel = run("bench.parcel", r#"{"seed": 7, "nbytes": 10000}"#, &[]).unwrap();
        assert_eq!(parcel.nbytes(), 10_000);
        let sum = run("bench.unpack", "{}", &[parcel.clone(), parcel.clone()]).unwrap();
        assert_eq!(read_word(&sum, 0), Ok(14));
        let whole = &parcel.downcast::<Opaque>().unwrap().0;
        for at in [1, 4_096, 8_192, 9_995] {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 1;
            assert!(run("bench.unpack", "{}", &[Value::new(Opaque(damaged.into()))]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_relay_says_how_long_its_input_was_on_the_way() {
        let first = run("bench.relay", "{}", &[]).unwrap();
        assert_eq!((first.nbytes(), time_on_the_way(&first)), (RELAY_NBYTES as u64, Ok(0)));
        std::thread::sleep(std::time::Duration::from_millis(3));
        let second = run("bench.relay", "{}", &[first]).unwrap();
        assert!(time_on_the_way(&second).unwrap() >= 3_000_000);
    }

    #[test]
    fn the_blocks_add_up_to_what_is_expected() {
        let (n_rows, n_numbers) = (5, 48);
        let mut columns = Vec::new();
        let rows: Vec<Value> = (0..n_rows)
            .map(|row| {
                let args = format!(r#"{{"row": {row}, "n_parts": {n_rows}, "n_numbers": {n_numbers}}}"#);
                run("bench.blocks", &args, &[]).unwrap()
            })
            .collect();
        for column in 0..n_rows {
            let parts: Vec<Value> = rows.iter().map(|row| row.part(column).unwrap()).collect();
            columns.push(run("bench.sum", "{}", &parts).unwrap());
        }
        let total = run("bench.sum", "{}", &columns).unwrap();
        assert_eq!(f64::from_bits(read_word(&total, 0).unwrap()), expected_sum(n_rows, n_numbers));
    }
}
