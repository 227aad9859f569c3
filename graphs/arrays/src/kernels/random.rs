//! Random numbers that belong to positions: element i of an array with seed s is the same number however the array is cut.
//!
//! Philox 2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns (seed, position, draw)
//! into random bits without any state, so each element has a generator of its own and `rand_distr` shapes its output. The
//! distribution goes into the key: normal and uniform numbers of one seed have nothing to do with each other.

use std::convert::Infallible;

use rand::TryRng;
use rand_distr::{Distribution, Exp1, Poisson, StandardNormal, StandardUniform};
use rask_graphs::{KernelError, TaskContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::chunk::{Chunk, Element};
use crate::chunking::check_size;
use crate::dtype::{DType, with_type};
use crate::kernels::convert::FromFloat;
use crate::scalar::Scalar;

/// Arguments of `array.random`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomArgs {
    /// Which numbers.
    pub distribution: Distributed,
    /// Shape of this chunk.
    pub shape: Vec<usize>,
    /// Equal seeds give equal numbers.
    pub seed: u64,
    /// Element type; f64 unless given, i64 for integers and poisson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DType>,
    /// Parameters of the distribution, see `distribution`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Scalar>,
    /// Where this chunk begins in the whole array; at its origin unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Vec<usize>>,
    /// Shape of the whole array; this chunk's unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Vec<usize>>,
}

/// A distribution by NumPy's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distributed {
    /// Gaussian; parameters: mean (0), standard deviation (1).
    Normal,
    /// Even over an interval; parameters: low (0), high (1).
    Uniform,
    /// Whole numbers, evenly; parameters: low (0), high (2, not included).
    Integers,
    /// Waiting times; parameter: scale (1).
    Exponential,
    /// Counts; parameter: mean (1).
    Poisson,
}

impl Distributed {
    /// The parameters, with the usual values for those not given.
    ///
    /// # Errors
    /// When there are too many, they make no distribution, or elements of type `dtype` do not hold its numbers.
    pub fn complete(self, given: &[Scalar], dtype: DType) -> Result<Vec<Scalar>, String> {
        let defaults: &[Scalar] = match self {
            Distributed::Normal | Distributed::Uniform => &[Scalar::Float(0.0), Scalar::Float(1.0)],
            Distributed::Integers => &[Scalar::Int(0), Scalar::Int(2)],
            Distributed::Exponential | Distributed::Poisson => &[Scalar::Float(1.0)],
        };
        if given.len() > defaults.len() {
            return Err(format!("at most {} parameters, got {}", defaults.len(), given.len()));
        }
        let parameters: Vec<Scalar> =
            defaults.iter().enumerate().map(|(idx, default)| given.get(idx).copied().unwrap_or(*default)).collect();
        let numbers: Vec<f64> = parameters.iter().map(|parameter| parameter.to_f64()).collect();
        let fits = numbers.iter().all(|parameter| parameter.is_finite())
            && match self {
                Distributed::Normal => numbers[1] >= 0.0,
                Distributed::Uniform => numbers[0] <= numbers[1] && (numbers[1] - numbers[0]).is_finite(),
                Distributed::Integers => bounds(&parameters)?.0 < bounds(&parameters)?.1,
                Distributed::Exponential => numbers[0] >= 0.0,
                Distributed::Poisson => Poisson::new(numbers[0]).is_ok(),
            };
        if !fits {
            return Err(format!("parameters {numbers:?} make no such distribution"));
        }
        match self {
            Distributed::Normal | Distributed::Uniform | Distributed::Exponential if !dtype.is_float() => {
                Err(format!("numbers of this distribution are no elements of type {dtype}; take f32 or f64"))
            }
            Distributed::Integers => {
                let (low, high) = bounds(&parameters)?;
                let (least, most) = if dtype == DType::Bool { (0, 1) } else { dtype.range().unwrap_or((i128::MIN, i128::MAX)) };
                if low < least {
                    return Err(format!("low = {low} is out of bounds for {dtype}"));
                }
                if high - 1 > most {
                    return Err(format!("high = {high} is out of bounds for {dtype}"));
                }
                if u64::try_from(high - 1 - low).is_err() {
                    return Err(format!("from {low} to {high} there are more than 2^64 integers"));
                }
                Ok(vec![Scalar::Int(low), Scalar::Int(high)])
            }
            Distributed::Poisson => {
                // Twenty standard deviations away there is nothing.
                let most = numbers[0] + 20.0 * numbers[0].sqrt() + 20.0;
                if dtype == DType::Bool || dtype.check_holds(Scalar::Float(most)).is_err() {
                    return Err(format!("counts around {} can leave the range of {dtype}", numbers[0]));
                }
                Ok(parameters)
            }
            Distributed::Normal | Distributed::Uniform | Distributed::Exponential => Ok(parameters),
        }
    }

    /// The key of this distribution's numbers for `seed`. Keys of different distributions differ in a permutation that mixes
    /// all bits, so no two run in step.
    fn key(self, seed: u64) -> u64 {
        let number = match self {
            Distributed::Normal => 1,
            Distributed::Uniform => 2,
            Distributed::Integers => 3,
            Distributed::Exponential => 4,
            Distributed::Poisson => 5,
        };
        philox(seed, number, u64::MAX)[0]
    }

    /// The element type unless another is asked for.
    #[must_use]
    pub fn default_dtype(self) -> DType {
        match self {
            Distributed::Normal | Distributed::Uniform | Distributed::Exponential => DType::F64,
            Distributed::Integers | Distributed::Poisson => DType::I64,
        }
    }
}

/// The bounds of whole numbers, which a file may write as floats.
fn bounds(parameters: &[Scalar]) -> Result<(i128, i128), String> {
    let whole = |scalar: &Scalar| match scalar {
        Scalar::Bool(value) => Ok(i128::from(*value)),
        Scalar::Int(value) => Ok(*value),
        #[expect(clippy::cast_possible_truncation, reason = "checked whole, and so small that it is exact")]
        Scalar::Float(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => Ok(*value as i128),
        Scalar::Float(value) => Err(format!("the bounds of integers are integers, got {value}")),
    };
    Ok((whole(&parameters[0])?, whole(&parameters[1])?))
}

/// The generator of one element.
struct ElementRng {
    seed: u64,
    position: u64,
    draw: u64,
    /// The bits of draw 0, made for many elements at once: most elements need no more.
    first: u64,
}

/// Elements whose first bits are made together, so that the processor works on several at a time.
const GROUP: usize = 32;

/// Ten rounds of Philox on two 64-bit words.
#[inline(always)]
fn philox(seed: u64, low: u64, high: u64) -> [u64; 2] {
    const MULTIPLIER: u128 = 0xD2B7_4407_B1CE_6E93;
    const WEYL: u64 = 0x9E37_79B9_7F4A_7C15;
    let (mut key, mut left, mut right) = (seed, low, high);
    for _ in 0..10 {
        let product = u128::from(left) * MULTIPLIER;
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of a product")]
        let (product_high, product_low) = ((product >> 64) as u64, product as u64);
        left = product_high ^ key ^ right;
        right = product_low;
        key = key.wrapping_add(WEYL);
    }
    [left, right]
}

impl TryRng for ElementRng {
    type Error = Infallible;

    #[inline(always)]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|bits| (bits >> 32) as u32)
    }

    #[inline(always)]
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let bits = if self.draw == 0 { self.first } else { philox(self.seed, self.position, self.draw)[0] };
        self.draw += 1;
        Ok(bits)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for piece in bytes.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        Ok(())
    }
}

/// Make the chunk.
pub(crate) fn random(ctx: &TaskContext, args: &RandomArgs) -> Result<Chunk, KernelError> {
    let dtype = args.dtype.unwrap_or(args.distribution.default_dtype());
    let parameters = args.distribution.complete(&args.parameters, dtype).map_err(KernelError)?;
    let numbers: Vec<f64> = parameters.iter().map(|parameter| parameter.to_f64()).collect();
    check_size(&args.shape, dtype)?;
    let n: usize = args.shape.iter().product();
    let nbytes = n * dtype.size();
    ctx.check_memory(nbytes as u64)?;
    let mut buffer = Buffer::zeroed(nbytes);
    match args.distribution {
        Distributed::Normal => draw(ctx, args, dtype, &mut buffer, |rng| {
            let standard: f64 = StandardNormal.sample(rng);
            standard * numbers[1] + numbers[0]
        })?,
        Distributed::Uniform => draw(ctx, args, dtype, &mut buffer, |rng| {
            let unit: f64 = StandardUniform.sample(rng);
            (numbers[1] - numbers[0]) * unit + numbers[0]
        })?,
        Distributed::Exponential => draw(ctx, args, dtype, &mut buffer, |rng| {
            let unit: f64 = Exp1.sample(rng);
            unit * numbers[0]
        })?,
        Distributed::Poisson => {
            let poisson = Poisson::new(numbers[0])?;
            draw(ctx, args, dtype, &mut buffer, |rng| poisson.sample(rng))?;
        }
        Distributed::Integers => {
            let (low, high) = bounds(&parameters).map_err(KernelError)?;
            let range = (high - low).unsigned_abs();
            draw(ctx, args, dtype, &mut buffer, |rng| {
                // The upper half of a product spreads 64 bits over the range; the bias is below range / 2^64.
                let Ok(bits) = rng.try_next_u64();
                low + ((u128::from(bits) * range) >> 64) as i128
            })?;
        }
    }
    Ok(Chunk::from_buffer(dtype, args.shape.clone(), buffer))
}

/// Fill `buffer` row by row; every element's position is its number (C order) in the whole array.
fn draw<V: Drawn>(
    ctx: &TaskContext,
    args: &RandomArgs,
    dtype: DType,
    buffer: &mut Buffer,
    sample: impl Fn(&mut ElementRng) -> V + Copy,
) -> Result<(), KernelError> {
    let key = args.distribution.key(args.seed);
    let whole = args.whole.as_ref().unwrap_or(&args.shape);
    let origin = vec![0; args.shape.len()];
    let offset = args.offset.as_ref().unwrap_or(&origin);
    let inside = whole.len() == args.shape.len()
        && offset.len() == args.shape.len()
        && (0..whole.len()).all(|axis| offset[axis].checked_add(args.shape[axis]).is_some_and(|end| end <= whole[axis]));
    if !inside {
        return Err(KernelError("the chunk does not lie inside the whole array".to_owned()));
    }
    let row = args.shape.last().copied().unwrap_or(1);
    let n_rows: usize = args.shape.iter().rev().skip(1).product();
    if row == 0 {
        return Ok(());
    }
    for number in 0..n_rows {
        if number % 256 == 0 {
            ctx.check_cancelled()?;
        }
        let (mut rest, mut position, mut stride) = (number, 0u64, 1u64);
        for axis in (0..args.shape.len()).rev() {
            let place = if axis + 1 == args.shape.len() {
                0
            } else {
                let place = rest % args.shape[axis];
                rest /= args.shape[axis];
                place
            };
            position = position.wrapping_add(((offset[axis] + place) as u64).wrapping_mul(stride));
            stride = stride.wrapping_mul(whole[axis] as u64);
        }
        with_type!(dtype, T => fill_row(&mut buffer.typed_mut::<T>()[number * row..(number + 1) * row], key, position, sample));
    }
    Ok(())
}

fn fill_row<T: Element + FromFloat, V: Drawn>(row: &mut [T], seed: u64, first: u64, sample: impl Fn(&mut ElementRng) -> V) {
    let mut bits = [0u64; GROUP + 2];
    for (group, start) in row.chunks_mut(GROUP).zip((first..).step_by(GROUP)) {
        // Two neighbours share a block of 128 bits, so a group may begin with the second half of one.
        for (pair, block) in bits.chunks_exact_mut(2).zip(start / 2..) {
            pair.copy_from_slice(&philox(seed, block, 0));
        }
        let is_odd = start % 2 == 1;
        for ((place, position), &first) in group.iter_mut().zip(start..).zip(&bits[usize::from(is_odd)..]) {
            *place = sample(&mut ElementRng { seed, position, draw: 0, first }).into_element();
        }
    }
}

/// Numbers that are drawn.
trait Drawn {
    fn into_element<T: FromFloat>(self) -> T;
}

impl Drawn for f64 {
    #[inline(always)]
    fn into_element<T: FromFloat>(self) -> T {
        T::from_float(self)
    }
}

impl Drawn for i128 {
    #[inline(always)]
    fn into_element<T: FromFloat>(self) -> T {
        T::from_integer(self)
    }
}

/// A seed for arrays that were given none: 32 bits, which people can read and JSON can say exactly.
///
/// # Errors
/// When the system has no randomness to give.
pub fn fresh_seed() -> Result<u64, String> {
    rand::rngs::SysRng.try_next_u32().map(u64::from).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(distribution: Distributed, shape: &[usize]) -> RandomArgs {
        RandomArgs { distribution, shape: shape.to_vec(), seed: 7, dtype: None, parameters: vec![], offset: None, whole: None }
    }

    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(philox(0, 0, 0), [0xca00_a045_9843_d731, 0x66c2_4222_c9a8_45b5]);
    }

    #[test]
    fn a_chunk_is_a_piece_of_the_whole() {
        let ctx = TaskContext::detached("x");
        for distribution in
            [Distributed::Normal, Distributed::Uniform, Distributed::Integers, Distributed::Exponential, Distributed::Poisson]
        {
            let whole = random(&ctx, &args(distribution, &[6, 5])).unwrap();
            let mut piece = args(distribution, &[2, 3]);
            piece.offset = Some(vec![3, 1]);
            piece.whole = Some(vec![6, 5]);
            let piece = random(&ctx, &piece).unwrap();
            for row in 0..2 {
                for column in 0..3 {
                    assert_eq!(piece.element(row * 3 + column), whole.element((row + 3) * 5 + column + 1));
                }
            }
        }
    }

    #[test]
    fn normals_look_normal() {
        let chunk = random(&TaskContext::detached("x"), &args(Distributed::Normal, &[100_000])).unwrap();
        let numbers = chunk.as_slice::<f64>().unwrap();
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let kurtosis = numbers.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / n / variance.powi(2);
        assert!(
            mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02 && (kurtosis - 3.0).abs() < 0.1,
            "{mean} {variance} {kurtosis}"
        );
    }

    #[test]
    fn integers_stay_within_bounds_and_reach_both() {
        let mut args = args(Distributed::Integers, &[1000]);
        args.parameters = vec![Scalar::Int(-3), Scalar::Int(4)];
        let chunk = random(&TaskContext::detached("x"), &args).unwrap();
        let numbers = chunk.as_slice::<i64>().unwrap();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&-3), Some(&3)));
    }

    #[test]
    fn bounds_of_integers_are_exact() {
        let cases: &[(i128, i128, DType)] = &[
            (0, 1 << 64, DType::U64),
            (-(1 << 63), 1 << 63, DType::I64),
            ((1 << 62) + 1, (1 << 62) + 3, DType::I64),
            (0, 256, DType::U8),
            (-128, 128, DType::I8),
            (0, 2, DType::Bool),
        ];
        for &(low, high, dtype) in cases {
            let mut args = args(Distributed::Integers, &[1000]);
            (args.dtype, args.parameters) = (Some(dtype), vec![Scalar::Int(low), Scalar::Int(high)]);
            let chunk = random(&TaskContext::detached("x"), &args).unwrap();
            let numbers: Vec<i128> = (0..1000)
                .map(|idx| match chunk.element(idx) {
                    Some(Scalar::Int(value)) => value,
                    other => i128::from(other == Some(Scalar::Bool(true))),
                })
                .collect();
            let (least, most) = (*numbers.iter().min().unwrap(), *numbers.iter().max().unwrap());
            assert!(low <= least && most < high, "{least} {most} of {low} {high}");
            // A thousand draws come near both ends.
            assert!(least - low <= (high - low) / 50 && high - 1 - most <= (high - low) / 50, "{least} {most} of {low} {high}");
        }
    }

    #[test]
    fn distributions_of_one_seed_are_independent() {
        let all = [Distributed::Normal, Distributed::Uniform, Distributed::Integers, Distributed::Exponential];
        let drawn: Vec<Vec<f64>> = all
            .iter()
            .map(|&distribution| {
                let mut args = args(distribution, &[20_000]);
                if distribution == Distributed::Integers {
                    args.parameters = vec![Scalar::Int(0), Scalar::Int(1000)];
                }
                random(&TaskContext::detached("x"), &args).unwrap().to_f64().iter().copied().collect()
            })
            .collect();
        let deviations = |numbers: &[f64]| {
            let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
            numbers.iter().map(|x| x - mean).collect::<Vec<f64>>()
        };
        let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (idx, one) in drawn.iter().enumerate() {
            for other in &drawn[..idx] {
                let (a, b) = (deviations(one), deviations(other));
                let correlation = sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt();
                assert!(correlation.abs() < 0.04, "{idx}: {correlation}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let refuse = |distribution: Distributed, parameters: &[Scalar], dtype: DType| {
            assert!(distribution.complete(parameters, dtype).is_err(), "{distribution:?} {parameters:?} {dtype}");
        };
        let (int, float) = (Scalar::Int, Scalar::Float);
        refuse(Distributed::Normal, &[float(0.0), float(-1.0)], DType::F64);
        refuse(Distributed::Normal, &[], DType::I64);
        refuse(Distributed::Uniform, &[float(-1e308), float(1e308)], DType::F64);
        refuse(Distributed::Integers, &[int(5), int(5)], DType::I64);
        refuse(Distributed::Integers, &[int(0), int(257)], DType::U8);
        refuse(Distributed::Integers, &[int(-1), int(5)], DType::U64);
        refuse(Distributed::Integers, &[int(0), int((1 << 63) + 1)], DType::I64);
        refuse(Distributed::Integers, &[int(0), int((1 << 64) + 1)], DType::U64);
        refuse(Distributed::Integers, &[int(0), float(1.5)], DType::I64);
        refuse(Distributed::Integers, &[int(0), int(3)], DType::Bool);
        refuse(Distributed::Poisson, &[float(1.0), float(2.0)], DType::I64);
        refuse(Distributed::Poisson, &[float(250.0)], DType::U8);
        let mut outside = args(Distributed::Normal, &[2]);
        outside.offset = Some(vec![9]);
        outside.whole = Some(vec![10]);
        assert!(random(&TaskContext::detached("x"), &outside).is_err());
    }
}
