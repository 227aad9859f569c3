//! Random numbers that belong to positions: element i of an array with seed s is the same number however the array is cut.
//!
//! Philox 2x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns (seed, position, draw)
//! into random bits without any state, so each element has a generator of its own and `rand_distr` shapes its output.

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
    pub parameters: Vec<f64>,
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
    /// Whole numbers, evenly; parameters: low, high (not included).
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
    /// When there are too many, or they make no distribution.
    pub fn complete(self, given: &[f64]) -> Result<Vec<f64>, String> {
        let defaults: &[f64] = match self {
            Distributed::Normal | Distributed::Uniform => &[0.0, 1.0],
            Distributed::Integers => &[0.0, 2.0],
            Distributed::Exponential | Distributed::Poisson => &[1.0],
        };
        if given.len() > defaults.len() {
            return Err(format!("at most {} parameters, got {}", defaults.len(), given.len()));
        }
        let parameters: Vec<f64> =
            defaults.iter().enumerate().map(|(idx, default)| given.get(idx).copied().unwrap_or(*default)).collect();
        let fits = parameters.iter().all(|parameter| parameter.is_finite())
            && match self {
                Distributed::Normal => parameters[1] >= 0.0,
                Distributed::Uniform => parameters[0] <= parameters[1],
                Distributed::Integers => {
                    parameters[0] < parameters[1]
                        && parameters.iter().all(|bound| bound.abs() <= 9_007_199_254_740_992.0 && bound.fract() == 0.0)
                }
                Distributed::Exponential => parameters[0] >= 0.0,
                Distributed::Poisson => parameters[0] > 0.0,
            };
        if fits { Ok(parameters) } else { Err(format!("parameters {parameters:?} make no such distribution")) }
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
    let parameters = args.distribution.complete(&args.parameters).map_err(KernelError)?;
    let dtype = args.dtype.unwrap_or(args.distribution.default_dtype());
    check_size(&args.shape, dtype)?;
    let n: usize = args.shape.iter().product();
    let nbytes = n * dtype.size();
    ctx.check_memory(nbytes as u64)?;
    let mut buffer = Buffer::zeroed(nbytes);
    match args.distribution {
        Distributed::Normal => draw(ctx, args, dtype, &mut buffer, |rng| {
            let standard: f64 = StandardNormal.sample(rng);
            standard * parameters[1] + parameters[0]
        })?,
        Distributed::Uniform => draw(ctx, args, dtype, &mut buffer, |rng| {
            let unit: f64 = StandardUniform.sample(rng);
            (parameters[1] - parameters[0]) * unit + parameters[0]
        })?,
        Distributed::Exponential => draw(ctx, args, dtype, &mut buffer, |rng| {
            let unit: f64 = Exp1.sample(rng);
            unit * parameters[0]
        })?,
        Distributed::Poisson => {
            let poisson = Poisson::new(parameters[0])?;
            draw(ctx, args, dtype, &mut buffer, |rng| poisson.sample(rng))?;
        }
        Distributed::Integers => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked whole and below 2^53 in size")]
            let (low, range) = (parameters[0] as i64, (parameters[1] - parameters[0]) as u64);
            draw(ctx, args, dtype, &mut buffer, |rng| {
                // The upper half of a product spreads 64 bits over the range; the bias is below range / 2^64.
                let Ok(bits) = rng.try_next_u64();
                #[expect(clippy::cast_precision_loss, reason = "below 2^54")]
                let value = (low + ((u128::from(bits) * u128::from(range)) >> 64) as i64) as f64;
                value
            })?;
        }
    }
    Ok(Chunk::from_buffer(dtype, args.shape.clone(), buffer))
}

/// Fill `buffer` row by row; every element's position is its number (C order) in the whole array.
fn draw(
    ctx: &TaskContext,
    args: &RandomArgs,
    dtype: DType,
    buffer: &mut Buffer,
    sample: impl Fn(&mut ElementRng) -> f64 + Copy,
) -> Result<(), KernelError> {
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
        with_type!(dtype, T => fill_row(&mut buffer.typed_mut::<T>()[number * row..(number + 1) * row], args.seed, position, sample));
    }
    Ok(())
}

fn fill_row<T: Element + FromDraw>(row: &mut [T], seed: u64, first: u64, sample: impl Fn(&mut ElementRng) -> f64) {
    let mut bits = [0u64; GROUP + 2];
    for (group, start) in row.chunks_mut(GROUP).zip((first..).step_by(GROUP)) {
        // Two neighbours share a block of 128 bits, so a group may begin with the second half of one.
        for (pair, block) in bits.chunks_exact_mut(2).zip(start / 2..) {
            pair.copy_from_slice(&philox(seed, block, 0));
        }
        let is_odd = start % 2 == 1;
        for ((place, position), &first) in group.iter_mut().zip(start..).zip(&bits[usize::from(is_odd)..]) {
            *place = T::from_draw(sample(&mut ElementRng { seed, position, draw: 0, first }));
        }
    }
}

/// Elements that a drawn number can become.
trait FromDraw {
    fn from_draw(value: f64) -> Self;
}

macro_rules! from_draw {
    ($($T:ty),*) => {$(
        impl FromDraw for $T {
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the caller chose the type")]
            fn from_draw(value: f64) -> Self {
                value as $T
            }
        }
    )*};
}
from_draw!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

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
        args.parameters = vec![-3.0, 4.0];
        let chunk = random(&TaskContext::detached("x"), &args).unwrap();
        let numbers = chunk.as_slice::<i64>().unwrap();
        assert_eq!((numbers.iter().min(), numbers.iter().max()), (Some(&-3), Some(&3)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Distributed::Normal.complete(&[0.0, -1.0]).is_err());
        assert!(Distributed::Integers.complete(&[5.0, 5.0]).is_err());
        assert!(Distributed::Poisson.complete(&[1.0, 2.0]).is_err());
        let mut outside = args(Distributed::Normal, &[2]);
        outside.offset = Some(vec![9]);
        outside.whole = Some(vec![10]);
        assert!(random(&TaskContext::detached("x"), &outside).is_err());
    }
}
