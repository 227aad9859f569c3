//! Numbers in text, read exactly or not at all.

/// What a text that is a number looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Digits, perhaps with a minus sign.
    Integer,
    /// With a point or an exponent, or a word for what is no finite number.
    Float,
}

/// The shape of `text`, `None` when it is no number. A plus sign, blanks, and separators of thousands make no number: telephone
/// numbers and lists would become ones.
pub(crate) fn shape(text: &[u8]) -> Option<Shape> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.first()?.is_ascii_digit() && digits[0] != b'.' {
        let is_word = [&b"nan"[..], b"inf", b"infinity"].iter().any(|word| digits.eq_ignore_ascii_case(word));
        return is_word.then_some(Shape::Float);
    }
    let (whole, rest) = split_digits(digits);
    if rest.is_empty() {
        return Some(Shape::Integer);
    }
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(rest) => split_digits(rest),
        None => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let Some((b'e' | b'E', exponent)) = rest.split_first() else { return rest.is_empty().then_some(Shape::Float) };
    let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
    let (digits, rest) = split_digits(exponent);
    (!digits.is_empty() && rest.is_empty()).then_some(Shape::Float)
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Whether the integer that `text` spells is one that a float with `n_bits` bits of significand holds exactly.
pub(crate) fn is_exact_in_float(text: &str, n_bits: u32) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    // Nothing this long is exact but by chance, and its numbers are names of things.
    let Ok(value) = digits.parse::<u128>() else { return false };
    value == 0 || 128 - value.leading_zeros() - value.trailing_zeros() <= n_bits
}

/// `text` times ten to the `scale`, rounded half away from zero, and whether that was exact; `None` when it is no number or has
/// more than `precision` digits.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8) -> Option<(i128, bool)> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let (whole, rest) = split_digits(digits);
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(rest) => split_digits(rest),
        None => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let exponent: i64 = match rest.split_first() {
        None => 0,
        Some((b'e' | b'E', exponent)) => std::str::from_utf8(exponent).ok()?.parse().ok()?,
        Some(_) => return None,
    };
    // Of all the digits, the first `n_kept` stand before the point of the result.
    let n_kept = i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(i64::from(scale))?;
    let all = whole.iter().chain(fraction).map(|byte| i128::from(byte - b'0'));
    let mut value = 0_i128;
    let mut is_exact = true;
    let mut next = 0_i64;
    for digit in all {
        if next < n_kept {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else {
            is_exact &= digit == 0;
            // The first digit that is dropped decides.
            if next == n_kept && digit >= 5 {
                value = value.checked_add(1)?;
            }
        }
        next += 1;
    }
    while next < n_kept && value != 0 {
        value = value.checked_mul(10)?;
        next += 1;
    }
    if value >= 10_i128.checked_pow(u32::from(precision))? {
        return None;
    }
    Some((if is_negative { -value } else { value }, is_exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        use Shape::{Float, Integer};
        let cases: &[(&str, Option<Shape>)] = &[
            ("0", Some(Integer)),
            ("-12", Some(Integer)),
            ("007", Some(Integer)),
            ("1.5", Some(Float)),
            (".5", Some(Float)),
            ("1.", Some(Float)),
            ("1e5", Some(Float)),
            ("-1.5E-10", Some(Float)),
            ("NaN", Some(Float)),
            ("-inf", Some(Float)),
            ("", None),
            ("-", None),
            (".", None),
            ("+5", None),
            (" 5", None),
            ("1e", None),
            ("1,000", None),
            ("0x1f", None),
            ("1.2.3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(shape(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_rounded_and_never_cut() {
        type Case<'a> = (&'a str, u8, i8, Option<(i128, bool)>);
        let cases: &[Case<'_>] = &[
            ("1.239", 10, 2, Some((124, false))),
            ("1.235", 10, 2, Some((124, false))),
            ("-1.235", 10, 2, Some((-124, false))),
            ("1.2", 10, 2, Some((120, true))),
            ("1.200", 10, 2, Some((120, true))),
            ("1e2", 10, 2, Some((10000, true))),
            ("12e-3", 10, 2, Some((1, false))),
            ("0.004", 10, 2, Some((0, false))),
            ("0.005", 10, 2, Some((1, false))),
            ("5e-9", 10, 2, Some((0, false))),
            ("99999999.994", 10, 2, Some((9_999_999_999, false))),
            ("99999999.995", 10, 2, None),
            ("123456789", 10, 2, None),
            ("1e99", 38, 0, None),
            ("0e99", 38, 0, Some((0, true))),
            ("0e9999999999", 38, 0, Some((0, true))),
            ("x", 10, 2, None),
            ("", 10, 2, None),
        ];
        for (text, precision, scale, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), *precision, *scale), *expected, "{text}");
        }
    }

    #[test]
    fn integers_that_floats_hold() {
        for (text, is_exact) in [
            ("9007199254740992", true),
            ("9007199254740993", false),
            ("-9007199254740994", true),
            ("0.1", true),
            ("0", true),
            ("123456789012345678901234567890123456789012345", false),
        ] {
            assert_eq!(is_exact_in_float(text, 53), is_exact, "{text}");
        }
    }
}
