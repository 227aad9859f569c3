//! Cutting the text of an expression into tokens.
//!
//! Spaces, line breaks and comments separate tokens and mean nothing else: an expression ends where its text ends. Symbols
//! that other languages have and NumPy lacks are refused here, where their spelling is still known.

use super::{Span, SyntaxError};

/// A token without its position.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    Integer(i128),
    Float(f64),
    Text(String),
    Name(String),
    /// Operators and punctuation, by their spelling.
    Symbol(&'static str),
    End,
}

/// Longest first, so that `**` is not read as two `*`.
const SYMBOLS: [&str; 33] = [
    "...", "**", "//", "==", "!=", "<=", ">=", "<<", ">>", "&&", "||", "<>", ":=", "+", "-", "*", "/", "%", "@", "&", "|", "^",
    "~", "<", ">", "(", ")", "[", "]", ",", ":", ".", "=",
];

pub(super) fn error(span: Span, message: impl Into<String>, hint: Option<&str>) -> SyntaxError {
    SyntaxError { span, message: message.into(), hint: hint.map(str::to_owned) }
}

/// The tokens of `text`, the last one being [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Span)>, SyntaxError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let start = at;
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        if first == '#' {
            at += text[at..].find('\n').unwrap_or(text.len() - at);
            continue;
        }
        let second_is_digit = text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
        let token = if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            number(text, &mut at)?
        } else if first.is_alphabetic() || first == '_' {
            let rest = &text[at..];
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            at += length;
            Token::Name(rest[..length].to_owned())
        } else if first == '"' || first == '\'' {
            string(text, &mut at, first)?
        } else {
            symbol(text, &mut at, first)?
        };
        found.push((token, Span::new(start, at)));
    }
    found.push((Token::End, Span::new(text.len(), text.len())));
    Ok(found)
}

fn symbol(text: &str, at: &mut usize, first: char) -> Result<Token, SyntaxError> {
    let Some(symbol) = SYMBOLS.iter().find(|symbol| text[*at..].starts_with(**symbol)) else {
        let hint = match first {
            '!' => Some("write ~ for \"not\" and != for \"not equal\""),
            '$' => Some("a parameter is written ${name}"),
            '{' | '}' => Some("lists are written [1, 2], tuples (1, 2)"),
            ';' => Some("one expression only; give intermediate results a name with another [array.NAME]"),
            '×' => Some("multiply with *"),
            '−' | '–' => Some("the minus sign is -"),
            '‘' | '’' | '“' | '”' => Some("strings are written \"...\" or '...'"),
            _ => None,
        };
        let span = Span::new(*at, *at + first.len_utf8());
        return Err(error(span, format!("unexpected character {first:?}").replace('\'', "\""), hint));
    };
    let span = Span::new(*at, *at + symbol.len());
    let wrong = match *symbol {
        "&&" => Some("write & and put comparisons in parentheses: (x > 0) & (y > 0)"),
        "||" => Some("write | and put comparisons in parentheses: (x > 0) | (y > 0)"),
        "<>" => Some("write !="),
        ":=" => Some("give the value a name with another [array.NAME]"),
        _ => None,
    };
    if wrong.is_some() {
        return Err(error(span, format!("unknown operator {symbol}"), wrong));
    }
    *at += symbol.len();
    Ok(Token::Symbol(symbol))
}

/// A number at `at`, in Python's spelling.
fn number(text: &str, at: &mut usize) -> Result<Token, SyntaxError> {
    let bytes = text.as_bytes();
    let start = *at;
    let radix = match (bytes[start], bytes.get(start + 1)) {
        (b'0', Some(b'x' | b'X')) => 16,
        (b'0', Some(b'b' | b'B')) => 2,
        (b'0', Some(b'o' | b'O')) => 8,
        _ => 10,
    };
    let mut end = if radix == 10 { start } else { start + 2 };
    let mut is_float = false;
    while let Some(&byte) = bytes.get(end) {
        let after_exponent = radix == 10 && end > start && matches!(bytes[end - 1], b'e' | b'E');
        let continues = match byte {
            b'0'..=b'9' | b'_' => true,
            b'.' => radix == 10 && !is_float,
            b'e' | b'E' if radix == 10 => {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit)
            }
            b'+' | b'-' => after_exponent,
            b'a'..=b'f' | b'A'..=b'F' => radix == 16,
            _ => false,
        };
        if !continues {
            break;
        }
        is_float |= radix == 10 && matches!(byte, b'.' | b'e' | b'E');
        end += 1;
    }
    let rest = &text[end..];
    let tail = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let whole = &text[start..end + tail];
    let span = Span::new(start, end + tail);
    if tail > 0 {
        let hint = matches!(&rest[..tail], "j" | "J").then_some("complex numbers are not supported");
        return Err(error(span, format!("malformed number \"{whole}\""), hint));
    }
    *at = end;
    let digits: String = whole.chars().filter(|&c| c != '_').collect();
    let misplaced = whole.ends_with('_') || whole.contains("__");
    if is_float {
        return match digits.parse::<f64>() {
            Ok(value) if !misplaced && value.is_finite() => Ok(Token::Float(value)),
            Ok(_) | Err(_) => Err(error(span, format!("malformed number \"{whole}\""), None)),
        };
    }
    if radix == 10 && digits.len() > 1 && digits.starts_with('0') {
        return Err(error(span, format!("malformed number \"{whole}\""), Some("integers have no leading zeros")));
    }
    let digits = if radix == 10 { &digits[..] } else { &digits[2..] };
    match i128::from_str_radix(digits, radix) {
        Ok(value) if !misplaced => Ok(Token::Integer(value)),
        Err(reason) if *reason.kind() == std::num::IntErrorKind::PosOverflow => {
            let hint = "no element is so large an integer; write it as a float, 1e40";
            Err(error(span, format!("the integer {whole} does not fit 128 bits"), Some(hint)))
        }
        Ok(_) | Err(_) => Err(error(span, format!("malformed number \"{whole}\""), None)),
    }
}

fn string(text: &str, at: &mut usize, delimiter: char) -> Result<Token, SyntaxError> {
    let start = *at;
    let mut value = String::new();
    let mut characters = text[start + 1..].char_indices();
    while let Some((offset, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, escaped @ ('\\' | '\'' | '"'))) => value.push(escaped),
                Some((_, other)) => {
                    let here = start + 1 + offset;
                    let span = Span::new(here, here + 1 + other.len_utf8());
                    return Err(error(span, format!("unknown escape \\{other}"), Some("a backslash is written \\\\")));
                }
                None => break,
            },
            '\n' => break,
            _ if character == delimiter => {
                *at = start + 1 + offset + 1;
                return Ok(Token::Text(value));
            }
            other => value.push(other),
        }
    }
    Err(error(Span::new(start, start + 1), "this string is never closed", None))
}
