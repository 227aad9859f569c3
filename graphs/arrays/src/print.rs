//! Arrays as people and programs read them: printed as NumPy prints them, and as nested JSON.
//!
//! Follows NumPy's defaults: 8 digits of precision, the shortest digits that tell elements apart, lines of 75 characters,
//! and three elements at each end of an axis once there are more than 1000 elements.

use std::fmt;

use crate::chunk::Chunk;
use crate::dtype::DType;
use crate::scalar::{Scalar, non_finite_name};

/// Elements above which the middle is left out.
const THRESHOLD: usize = 1000;
/// Elements shown at each end of an axis when the middle is left out.
const EDGE: usize = 3;
/// Longest line.
const LINE_WIDTH: usize = 75;
/// Empty lists that stand for the rows of an array without elements, at most.
const MOST_EMPTY_LISTS: usize = 10_000;
/// Most digits after the point.
const PRECISION: usize = 8;

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("[]");
        }
        let summarised = self.len() > THRESHOLD;
        let mut shown = Vec::new();
        collect(self.shape(), summarised, 0, 0, &mut shown);
        let elements: Vec<Scalar> = shown.iter().filter_map(|&idx| self.element(idx)).collect();
        let texts = format_all(&elements, self.dtype(), !self.shape().is_empty());
        if self.shape().is_empty() {
            return f.write_str(texts.first().map_or("", String::as_str));
        }
        let mut printer = Printer { shape: self.shape(), summarised, texts: texts.iter(), out: String::new() };
        printer.axis(0);
        f.write_str(&printer.out)
    }
}

/// The indices along an axis that are shown; `None` stands for the gap.
fn places(size: usize, summarised: bool) -> Vec<Option<usize>> {
    if summarised && size > 2 * EDGE {
        (0..EDGE).map(Some).chain([None]).chain((size - EDGE..size).map(Some)).collect()
    } else {
        (0..size).map(Some).collect()
    }
}

fn collect(shape: &[usize], summarised: bool, axis: usize, base: usize, shown: &mut Vec<usize>) {
    if axis == shape.len() {
        shown.push(base);
        return;
    }
    for place in places(shape[axis], summarised).into_iter().flatten() {
        collect(shape, summarised, axis + 1, base * shape[axis] + place, shown);
    }
}

struct Printer<'a> {
    shape: &'a [usize],
    summarised: bool,
    texts: std::slice::Iter<'a, String>,
    out: String,
}

impl Printer<'_> {
    fn axis(&mut self, axis: usize) {
        self.out.push('[');
        let last = axis + 1 == self.shape.len();
        let mut width = axis + 1;
        for (number, place) in places(self.shape[axis], self.summarised).into_iter().enumerate() {
            if last {
                let text = if place.is_some() { self.texts.next().map_or("", String::as_str) } else { "..." };
                // The closing brackets of all axes that may end here have to fit on the line.
                if number > 0 && width + 1 + text.len() > LINE_WIDTH - (axis + 1).min(LINE_WIDTH / 2) {
                    self.out.push('\n');
                    self.out.push_str(&" ".repeat(axis + 1));
                    width = axis + 1;
                } else if number > 0 {
                    self.out.push(' ');
                    width += 1;
                }
                self.out.push_str(text);
                width += text.len();
            } else {
                if number > 0 {
                    self.out.push_str(&"\n".repeat(self.shape.len() - axis - 1));
                    self.out.push_str(&" ".repeat(axis + 1));
                }
                match place {
                    Some(_) => self.axis(axis + 1),
                    None => self.out.push_str("..."),
                }
            }
        }
        self.out.push(']');
    }
}

/// All elements in one style, padded to one width if there are several.
fn format_all(elements: &[Scalar], dtype: DType, pad: bool) -> Vec<String> {
    let texts: Vec<String> = if dtype.is_float() {
        let numbers: Vec<f64> = elements.iter().map(|element| element.to_f64()).collect();
        format_floats(&numbers, dtype, pad)
    } else {
        elements
            .iter()
            .map(|element| match element {
                Scalar::Bool(true) => "True".to_owned(),
                Scalar::Bool(false) => "False".to_owned(),
                Scalar::Int(value) => value.to_string(),
                Scalar::Float(value) => value.to_string(),
            })
            .collect()
    };
    // NumPy leaves room for "False" even where there is none.
    let least = if dtype == DType::Bool { "False".len() } else { 0 };
    let width = if pad { least.max(texts.iter().map(String::len).max().unwrap_or(0)) } else { 0 };
    texts.into_iter().map(|text| format!("{text:>width$}")).collect()
}

fn format_floats(numbers: &[f64], dtype: DType, is_array: bool) -> Vec<String> {
    if !is_array {
        return numbers.iter().map(|&number| format_lone(number, dtype)).collect();
    }
    let sizes: Vec<f64> = numbers.iter().map(|x| x.abs()).filter(|x| x.is_finite() && *x > 0.0).collect();
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let smallest = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let scientific = !sizes.is_empty() && (largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1e3);

    let finite = numbers.iter().copied().filter(|x| x.is_finite());
    if scientific {
        let digits = finite.map(|x| mantissa_digits(x, dtype)).max().unwrap_or(0);
        return numbers.iter().map(|&x| if x.is_finite() { scientific_text(x, digits) } else { non_finite(x) }).collect();
    }
    let digits = finite.map(|x| fraction_digits(x, dtype)).max().unwrap_or(0);
    let fixed = |x: f64| {
        let text = format!("{x:.digits$}");
        if digits == 0 { format!("{text}.") } else { trim_to_point(&text) }
    };
    numbers.iter().map(|&x| if x.is_finite() { fixed(x) } else { non_finite(x) }).collect()
}

/// A number by itself, as Python prints it.
fn format_lone(number: f64, dtype: DType) -> String {
    if !number.is_finite() {
        return non_finite(number);
    }
    let size = number.abs();
    let shortest = |x: f64| if dtype == DType::F32 { format!("{:?}", narrow(x)) } else { format!("{x:?}") };
    if number != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = if dtype == DType::F32 { format!("{:e}", narrow(number)) } else { format!("{number:e}") };
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let text = shortest(number);
    match text.split_once('e') {
        Some(_) => format!("{number:.1}"),
        None => text,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the number came from single precision")]
fn narrow(number: f64) -> f32 {
    number as f32
}

fn non_finite(number: f64) -> String {
    (if number.is_nan() {
        "nan"
    } else if number > 0.0 {
        "inf"
    } else {
        "-inf"
    })
    .to_owned()
}

/// Digits after the point that tell the number apart, at most [`PRECISION`].
fn fraction_digits(number: f64, dtype: DType) -> usize {
    let rounded = format!("{number:.PRECISION$}");
    let shortest = if dtype == DType::F32 { format!("{}", narrow(number)) } else { format!("{number}") };
    let exact = shortest.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if exact <= PRECISION {
        exact
    } else {
        rounded.trim_end_matches('0').split_once('.').map_or(0, |(_, fraction)| fraction.len())
    }
}

fn mantissa_digits(number: f64, dtype: DType) -> usize {
    let shortest = if dtype == DType::F32 { format!("{:e}", narrow(number)) } else { format!("{number:e}") };
    let mantissa = shortest.split('e').next().unwrap_or("");
    mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len()).min(PRECISION)
}

fn scientific_text(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let point = if digits == 0 { "." } else { "" };
    format!("{mantissa}{point}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Trailing zeros become spaces, as NumPy pads fractions.
fn trim_to_point(text: &str) -> String {
    let trimmed = text.trim_end_matches('0');
    format!("{trimmed}{}", " ".repeat(text.len() - trimmed.len()))
}

/// The elements as nested JSON lists; a bare value for no axes. NaN and the infinities are strings. An array without elements
/// is one list without any once there would be more than 10,000.
#[must_use]
pub fn to_json(chunk: &Chunk) -> serde_json::Value {
    let rows = chunk.shape().iter().take_while(|&&size| size > 0);
    let n_lists = rows.fold(1usize, |product, &size| product.saturating_mul(size));
    if chunk.is_empty() && n_lists > MOST_EMPTY_LISTS {
        return serde_json::Value::Array(Vec::new());
    }
    nested(chunk, 0, 0)
}

fn nested(chunk: &Chunk, axis: usize, base: usize) -> serde_json::Value {
    let Some(&size) = chunk.shape().get(axis) else {
        return match chunk.element(base) {
            None => serde_json::Value::Null,
            Some(Scalar::Bool(value)) => value.into(),
            Some(Scalar::Int(value)) => match i64::try_from(value) {
                Ok(value) => value.into(),
                Err(_) => u64::try_from(value).map_or(serde_json::Value::Null, Into::into),
            },
            Some(Scalar::Float(value)) if !value.is_finite() => non_finite_name(value).into(),
            Some(Scalar::Float(value)) if chunk.dtype() == DType::F32 => narrow_json(value),
            Some(Scalar::Float(value)) => value.into(),
        };
    };
    (0..size).map(|place| nested(chunk, axis + 1, base * size + place)).collect()
}

/// A single-precision number with the digits it has, not those of its double.
fn narrow_json(value: f64) -> serde_json::Value {
    narrow(value).to_string().parse::<f64>().map_or(serde_json::Value::Null, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_numpy_does() {
        let cases: Vec<(Chunk, &str)> = vec![
            (Chunk::from_slice(vec![3], &[1i64, -20, 3]).unwrap(), "[  1 -20   3]"),
            (Chunk::from_slice(vec![3], &[1.0, 2.5, 3.0]).unwrap(), "[1.  2.5 3. ]"),
            (Chunk::from_slice(vec![2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap(), "[[1. 2.]\n [3. 4.]]"),
            (Chunk::from_slice(vec![3], &[1.0, f64::NAN, f64::INFINITY]).unwrap(), "[ 1. nan inf]"),
            (Chunk::from_slice(vec![2], &[1e-10, 1.0]).unwrap(), "[1.e-10 1.e+00]"),
            (Chunk::from_slice(vec![2], &[0.1f32, 0.25]).unwrap(), "[0.1  0.25]"),
            (Chunk::from_slice(vec![1], &[1.0 / 3.0]).unwrap(), "[0.33333333]"),
            (Chunk::from_bools(vec![2], &[true, false]).unwrap(), "[ True False]"),
            (Chunk::from_slice::<f64>(vec![0], &[]).unwrap(), "[]"),
            (Chunk::scalar(DType::F64, Scalar::Float(8000.25)), "8000.25"),
            (Chunk::scalar(DType::F64, Scalar::Float(1e20)), "1e+20"),
            (Chunk::scalar(DType::I8, Scalar::Int(-3)), "-3"),
        ];
        for (chunk, want) in cases {
            assert_eq!(chunk.to_string(), want);
        }
    }

    #[test]
    fn long_arrays_show_their_ends() {
        let numbers: Vec<i64> = (0..2000).collect();
        let chunk = Chunk::from_slice(vec![2000], &numbers).unwrap();
        assert_eq!(chunk.to_string(), "[   0    1    2 ... 1997 1998 1999]");
        let chunk = Chunk::from_slice(vec![1000, 2], &numbers).unwrap();
        assert!(chunk.to_string().starts_with("[[   0    1]\n [   2    3]\n [   4    5]\n ...\n [1994 1995]"));
    }

    #[test]
    fn arrays_without_elements_print_whatever_their_shape() {
        for shape in [vec![0], vec![3, 0], vec![1 << 40, 0], vec![1 << 40, 0, 1 << 10], vec![0, 1 << 40]] {
            let chunk = Chunk::from_slice::<u8>(shape.clone(), &[]).unwrap();
            assert_eq!(chunk.to_string(), "[]", "{shape:?}");
            assert!(to_json(&chunk).to_string().len() < 100, "{shape:?}");
        }
        assert_eq!(to_json(&Chunk::from_slice::<u8>(vec![2, 0], &[]).unwrap()).to_string(), "[[],[]]");
        assert!(Chunk::from_slice::<u8>(vec![usize::MAX, usize::MAX, 0], &[]).is_err());
        assert!(Chunk::from_slice::<u8>(vec![1; 65], &[1]).is_err());
    }

    #[test]
    fn json_is_nested_and_says_what_is_not_a_number() {
        let chunk = Chunk::from_slice(vec![2, 2], &[1.0, f64::NAN, f64::NEG_INFINITY, 0.5]).unwrap();
        assert_eq!(to_json(&chunk).to_string(), "[[1.0,\"NaN\"],[\"-Infinity\",0.5]]");
        assert_eq!(to_json(&Chunk::scalar(DType::F32, Scalar::Float(f64::from(0.1f32)))).to_string(), "0.1");
        let most = Chunk::from_slice(vec![2], &[u64::MAX, (1 << 63) + 1]).unwrap();
        assert_eq!(to_json(&most).to_string(), "[18446744073709551615,9223372036854775809]");
        assert_eq!(most.to_string(), "[18446744073709551615  9223372036854775809]");
        assert_eq!(to_json(&Chunk::from_slice::<i8>(vec![0, 2], &[]).unwrap()).to_string(), "[]");
    }
}
