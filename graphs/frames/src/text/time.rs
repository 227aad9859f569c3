//! Dates and times in text: ISO 8601, and only days that exist.

/// A moment as text spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since 1970, in UTC when the text says its offset.
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(crate) fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (number(&[*y1, *y2, *y3, *y4])?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let n_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i32::from(is_leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=n_days).contains(&day) || year == 0 {
        return None;
    }
    // Years that begin in March have their leap day at the end. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".)
    let year = year - i32::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

/// `YYYY-MM-DD`, `T` or a blank, `hh:mm:ss`, perhaps a fraction of up to nine digits, perhaps `Z` or an offset.
pub(crate) fn moment(text: &[u8]) -> Option<Moment> {
    let (day, rest) = text.split_at_checked(10)?;
    let days = date(day)?;
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = match rest.strip_prefix(b".") {
        Some(rest) => {
            let n_digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, rest) = rest.split_at(n_digits);
            // Zeros beyond the ninth digit say nothing; other digits cannot be held.
            let (kept, dropped) = digits.split_at(n_digits.min(9));
            if digits.is_empty() || dropped.iter().any(|&byte| byte != b'0') {
                return None;
            }
            (u32::try_from(number(kept)?).ok()? * 10_u32.pow(9 - u32::try_from(kept.len()).ok()?), rest)
        }
        None => (0, rest),
    };
    let offset = offset_seconds(rest)?;
    let seconds = i64::from(days) * 86_400 + i64::from(hour * 3600 + minute * 60 + second) - i64::from(offset);
    Some(Moment { seconds, nanos })
}

/// What stands after the time: nothing, `Z`, `UTC`, `+hh`, `+hh:mm` or `+hhmm`.
fn offset_seconds(text: &[u8]) -> Option<i32> {
    let text = text.strip_prefix(b" ").filter(|rest| !rest.is_empty()).unwrap_or(text);
    let (sign, digits) = match text {
        [] | [b'Z' | b'z'] | [b'U', b'T', b'C'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [h1, h2] => (number(&[*h1, *h2])?, 0),
        [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn number(digits: &[u8]) -> Option<i32> {
    let mut value = 0_i32;
    for &byte in digits {
        value = value * 10 + i32::from(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_exist() {
        let cases = [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2024-02-29", Some(19_782)),
            ("2000-03-01", Some(11_017)),
            ("9999-12-31", Some(2_932_896)),
            ("0001-01-01", Some(-719_162)),
            ("2024-02-30", None),
            ("2023-02-29", None),
            ("1900-02-29", None),
            ("0000-00-00", None),
            ("2024-13-01", None),
            ("2024-1-1", None),
            ("2024/01/01", None),
            ("+024-01-01", None),
        ];
        for (text, days) in cases {
            assert_eq!(date(text.as_bytes()), days, "{text}");
        }
    }

    #[test]
    fn moments() {
        let at = |seconds, nanos| Some(Moment { seconds, nanos });
        let cases = [
            ("1970-01-01T00:00:00", at(0, 0)),
            ("1970-01-01 00:00:01.5", at(1, 500_000_000)),
            ("1970-01-01 00:00:01.123456789", at(1, 123_456_789)),
            ("1970-01-01 00:00:01.1234567890", at(1, 123_456_789)),
            ("1970-01-01T02:00:00+02:00", at(0, 0)),
            ("1970-01-01T00:00:00-0130", at(5400, 0)),
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("1970-01-01 00:00:00 UTC", at(0, 0)),
            ("1970-01-01 00:00:01.1234567891", None),
            ("1970-01-01T24:00:00", None),
            ("1970-01-01T00:00", None),
            ("1970-01-01", None),
            ("1970-01-01T00:00:00 Europe/Paris", None),
            ("1970-01-01T00:00:00.", None),
        ];
        for (text, expected) in cases {
            assert_eq!(moment(text.as_bytes()), expected, "{text}");
        }
    }
}
