//! Unfinished reductions: what travels between the levels of the tree, how two are merged, and how the last is finished.
//!
//! Variances merge by Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
//! (1979). How a chunk is reduced to a [`Partial`] is [`super::reduce`]'s business.

use std::any::Any;

use bytes::Bytes;
use rask_graphs::{Data, EncodeError, Encoded, KernelError, Value};
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::{Chunk, Element};
use crate::chunking::shape_text;
use crate::dtype::{DType, with_type};
use crate::kernels::number::Number;
use crate::kernels::reduce::{ReduceArgs, Reduction, beats, nan_maximum, nan_minimum};

/// The accumulators of an unfinished reduction.
#[derive(Clone)]
pub(crate) struct Partial {
    pub(crate) reduction: Reduction,
    /// The type of the elements that were reduced.
    pub(crate) dtype: DType,
    /// Which axes are reduced.
    pub(crate) axes: Vec<usize>,
    /// The accumulators, the number of elements last if it is kept.
    pub(crate) parts: Vec<Chunk>,
}

#[derive(Serialize, Deserialize)]
struct PartialHeader {
    reduction: Reduction,
    dtype: DType,
    axes: Vec<usize>,
    parts: Vec<(DType, Vec<usize>)>,
}

/// The wire name of unfinished reductions.
pub(crate) const PARTIAL_KIND: &str = "array_partial";

impl Data for Partial {
    fn kind(&self) -> &'static str {
        PARTIAL_KIND
    }

    fn nbytes(&self) -> u64 {
        self.parts.iter().map(Data::nbytes).sum()
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        let parts = self.parts.iter().map(|part| (part.dtype(), part.shape().to_vec())).collect();
        let header = PartialHeader { reduction: self.reduction, dtype: self.dtype, axes: self.axes.clone(), parts };
        let header = serde_json::to_vec(&header).map_err(|error| EncodeError(error.to_string()))?;
        Ok(Encoded {
            kind: PARTIAL_KIND,
            header: Bytes::from(header),
            buffers: self.parts.iter().map(|part| part.bytes().clone()).collect(),
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(crate) fn decode_partial(header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    let header: PartialHeader = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    if header.parts.len() != buffers.len() {
        return Err(format!("{} buffers expected, got {}", header.parts.len(), buffers.len()));
    }
    let parts = header
        .parts
        .into_iter()
        .zip(buffers)
        .map(|((dtype, shape), data)| Chunk::from_bytes(dtype, shape, data))
        .collect::<Result<Vec<Chunk>, String>>()?;
    let types = part_types(header.reduction, header.dtype);
    let n_values = types.len() - usize::from(has_count(header.reduction));
    let shape = parts.first().map_or_else(Vec::new, |part| part.shape().to_vec());
    let fits = parts.len() == types.len()
        && parts.iter().zip(&types).all(|(part, dtype)| part.dtype() == *dtype)
        && parts[..n_values].iter().all(|part| part.shape() == shape)
        && parts[n_values..].iter().all(|part| part.shape().is_empty())
        && header.axes.iter().all(|axis| shape.get(*axis) == Some(&1));
    if !fits {
        return Err("accumulators do not belong together".to_owned());
    }
    Ok(Value::new(Partial { reduction: header.reduction, dtype: header.dtype, axes: header.axes, parts }))
}

/// Whether the last accumulator is the number of elements seen.
fn has_count(reduction: Reduction) -> bool {
    match reduction {
        Reduction::Sum | Reduction::Prod | Reduction::Any | Reduction::All | Reduction::CountNonzero => false,
        Reduction::Mean | Reduction::Var | Reduction::Std => true,
        Reduction::Min | Reduction::Max | Reduction::Argmin | Reduction::Argmax => true,
        Reduction::NanMin | Reduction::NanMax | Reduction::NanArgmin | Reduction::NanArgmax => true,
    }
}

/// The element types of the accumulators of a reduction of `dtype` elements.
fn part_types(reduction: Reduction, dtype: DType) -> Vec<DType> {
    match reduction {
        Reduction::Sum | Reduction::Prod => vec![if dtype.is_float() { DType::F64 } else { DType::I64 }],
        Reduction::Mean => vec![DType::F64, DType::I64],
        Reduction::Var | Reduction::Std => vec![DType::F64, DType::F64, DType::I64],
        Reduction::Min | Reduction::Max | Reduction::NanMin | Reduction::NanMax => vec![dtype, DType::I64],
        Reduction::Any | Reduction::All => vec![DType::Bool],
        Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax => {
            vec![dtype, DType::I64, DType::I64]
        }
        Reduction::CountNonzero => vec![DType::I64],
    }
}

/// How many elements have been reduced, for the reductions that count.
fn count(partial: &Partial) -> i64 {
    if !has_count(partial.reduction) {
        return 0;
    }
    partial.parts.last().and_then(|part| part.as_slice::<i64>()?.first()).copied().unwrap_or(0)
}

fn pair<T: Element>(a: &Chunk, b: &Chunk, combine: impl Fn(T, T) -> T) -> Result<Chunk, KernelError> {
    let elements: Vec<T> = a.typed::<T>().iter().zip(b.typed::<T>()).map(|(&a, &b)| combine(a, b)).collect();
    Chunk::from_bytes(a.dtype(), a.shape().to_vec(), Buffer::copy_of(bytemuck::cast_slice(&elements)).freeze())
        .map_err(KernelError)
}

/// Merge two neighbours; `a` comes first.
pub(crate) fn merge(reduction: Reduction, a: &Partial, b: &Partial) -> Result<Partial, KernelError> {
    let fits = a.dtype == b.dtype
        && a.axes == b.axes
        && a.parts.len() == b.parts.len()
        && a.parts.iter().zip(&b.parts).all(|(a, b)| a.shape() == b.shape() && a.dtype() == b.dtype());
    if !fits {
        let shape = |partial: &Partial| partial.parts.first().map_or_else(String::new, |part| shape_text(part.shape()));
        return Err(KernelError(format!("{}: shapes {} and {} do not match", reduction.name(), shape(a), shape(b))));
    }
    let (n_a, n_b) = (count(a), count(b));
    let total = || Chunk::from_slice(vec![], &[n_a.wrapping_add(n_b)]).map_err(KernelError);
    let parts = match reduction {
        Reduction::Sum if a.dtype.is_float() => vec![pair::<f64>(&a.parts[0], &b.parts[0], |a, b| a + b)?],
        Reduction::Prod if a.dtype.is_float() => vec![pair::<f64>(&a.parts[0], &b.parts[0], |a, b| a * b)?],
        Reduction::Sum | Reduction::CountNonzero => vec![pair::<i64>(&a.parts[0], &b.parts[0], i64::wrapping_add)?],
        Reduction::Prod => vec![pair::<i64>(&a.parts[0], &b.parts[0], i64::wrapping_mul)?],
        Reduction::Mean => vec![pair::<f64>(&a.parts[0], &b.parts[0], |a, b| a + b)?, total()?],
        Reduction::Any => vec![pair::<u8>(&a.parts[0], &b.parts[0], |a, b| a | b)?],
        Reduction::All => vec![pair::<u8>(&a.parts[0], &b.parts[0], |a, b| a & b)?],
        Reduction::Var | Reduction::Std if n_a == 0 => b.parts.clone(),
        Reduction::Var | Reduction::Std if n_b == 0 => a.parts.clone(),
        _ if reduction.needs_elements() && n_a == 0 => b.parts.clone(),
        _ if reduction.needs_elements() && n_b == 0 => a.parts.clone(),
        Reduction::Min => vec![with_type!(a.dtype, T => pair::<T>(&a.parts[0], &b.parts[0], Number::minimum))?, total()?],
        Reduction::Max => vec![with_type!(a.dtype, T => pair::<T>(&a.parts[0], &b.parts[0], Number::maximum))?, total()?],
        Reduction::NanMin => vec![with_type!(a.dtype, T => pair::<T>(&a.parts[0], &b.parts[0], nan_minimum))?, total()?],
        Reduction::NanMax => vec![with_type!(a.dtype, T => pair::<T>(&a.parts[0], &b.parts[0], nan_maximum))?, total()?],
        Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax => {
            with_type!(a.dtype, T => merge_positions::<T>(reduction, a, b))?.into_iter().chain([total()?]).collect()
        }
        Reduction::Var | Reduction::Std => merge_moments(a, b)?.into_iter().chain([total()?]).collect(),
    };
    Ok(Partial { reduction, dtype: a.dtype, axes: a.axes.clone(), parts })
}

fn merge_positions<T: Number>(reduction: Reduction, a: &Partial, b: &Partial) -> Result<Vec<Chunk>, KernelError> {
    let (mut values, mut places) = (a.parts[0].typed::<T>().to_vec(), a.parts[1].typed::<i64>().to_vec());
    for (idx, (&value, &place)) in b.parts[0].typed::<T>().iter().zip(b.parts[1].typed::<i64>()).enumerate() {
        // Chunks of a grid do not come in the order of their elements: among equals the lower position wins.
        let equal = value == values[idx] || (value.is_nan() && values[idx].is_nan());
        if beats(reduction, value, values[idx]) || (equal && place < places[idx]) {
            values[idx] = value;
            places[idx] = place;
        }
    }
    let shape = a.parts[0].shape().to_vec();
    let values = Chunk::from_bytes(a.dtype, shape.clone(), Buffer::copy_of(bytemuck::cast_slice(&values)).freeze())
        .map_err(KernelError)?;
    Ok(vec![values, Chunk::from_slice(shape, &places).map_err(KernelError)?])
}

/// Chan's update of means and squared deviations.
fn merge_moments(a: &Partial, b: &Partial) -> Result<Vec<Chunk>, KernelError> {
    let (n_a, n_b) = (count(a) as f64, count(b) as f64);
    let n = n_a + n_b;
    let mut means = Vec::with_capacity(a.parts[0].len());
    let mut squares = Vec::with_capacity(means.capacity());
    let of_a = a.parts[0].typed::<f64>().iter().zip(a.parts[1].typed::<f64>());
    let of_b = b.parts[0].typed::<f64>().iter().zip(b.parts[1].typed::<f64>());
    for ((mean_a, square_a), (mean_b, square_b)) in of_a.zip(of_b) {
        let delta = mean_b - mean_a;
        means.push(mean_a + delta * (n_b / n));
        squares.push(square_a + square_b + delta * delta * (n_a * n_b / n));
    }
    let shape = a.parts[0].shape().to_vec();
    Ok(vec![
        Chunk::from_slice(shape.clone(), &means).map_err(KernelError)?,
        Chunk::from_slice(shape, &squares).map_err(KernelError)?,
    ])
}

pub(crate) fn finish(reduction: Reduction, args: &ReduceArgs, partial: &Partial) -> Result<Chunk, KernelError> {
    let first = &partial.parts[0];
    if reduction.needs_elements() && count(partial) == 0 && !first.is_empty() {
        return Err(KernelError(format!("{} of an empty array has no value", reduction.name())));
    }
    let result = reduction.result_type(partial.dtype);
    let n = count(partial) as f64;
    let numbers = |part: &Chunk, map: &dyn Fn(f64) -> f64| -> Result<Chunk, KernelError> {
        let numbers = part.typed::<f64>().iter().map(|&x| map(x));
        if result == DType::F32 {
            #[expect(clippy::cast_possible_truncation, reason = "the result is single precision")]
            let numbers: Vec<f32> = numbers.map(|x| x as f32).collect();
            Chunk::from_slice(part.shape().to_vec(), &numbers).map_err(KernelError)
        } else {
            Chunk::from_slice(part.shape().to_vec(), &numbers.collect::<Vec<f64>>()).map_err(KernelError)
        }
    };
    let freedom = (n - args.ddof as f64).max(0.0);
    let chunk = match reduction {
        Reduction::Sum | Reduction::Prod if partial.dtype.is_float() => numbers(first, &|x| x)?,
        Reduction::Sum | Reduction::Prod => {
            Chunk::from_bytes(result, first.shape().to_vec(), first.bytes().clone()).map_err(KernelError)?
        }
        Reduction::Mean => numbers(first, &|x| x / n)?,
        Reduction::Var => numbers(&partial.parts[1], &|x| x / freedom)?,
        Reduction::Std => numbers(&partial.parts[1], &|x| (x / freedom).sqrt())?,
        Reduction::NanArgmin | Reduction::NanArgmax if first.to_f64().iter().any(|value| value.is_nan()) => {
            return Err(KernelError(format!("{}: there is nothing but NaN along an axis", reduction.name())));
        }
        Reduction::Argmin | Reduction::Argmax | Reduction::NanArgmin | Reduction::NanArgmax => partial.parts[1].clone(),
        Reduction::NanMin | Reduction::NanMax => first.clone(),
        Reduction::Min | Reduction::Max | Reduction::Any | Reduction::All | Reduction::CountNonzero => first.clone(),
    };
    if args.keepdims {
        return Ok(chunk);
    }
    let shape =
        chunk.shape().iter().enumerate().filter(|(axis, _)| !partial.axes.contains(axis)).map(|(_, &size)| size).collect();
    chunk.reshaped(shape).map_err(KernelError)
}
