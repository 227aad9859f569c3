//! Reading single values: sizes, times, `NAME=VALUE` pairs, graph ids. Shared by flags, variables and the configuration file.

use std::time::Duration;

/// Bytes from `512MiB`, `2GB` or a plain number of bytes.
///
/// # Errors
/// When the text is no size, or the size is zero.
pub(crate) fn parse_nbytes(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize =
        text.trim().parse().map_err(|_| format!("\"{text}\" is no size; sizes look like 512MiB or 2GiB"))?;
    if size.as_u64() == 0 { Err("a size of zero".to_owned()) } else { Ok(size.as_u64()) }
}

/// A time from `30s`, `5m` or `24h`.
///
/// # Errors
/// When the text is no time.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| format!("\"{text}\" is no time; times look like 30s, 5m or 24h"))
}

/// How long something is good, from `15m` or `24h`.
///
/// # Errors
/// When the text is no time, or less than a second.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text)?;
    if lifetime < Duration::from_secs(1) {
        return Err("it would be over before anybody could use it: a second is the least".to_owned());
    }
    Ok(lifetime)
}

/// A token's id, as `rask token list` prints it.
///
/// # Errors
/// When it is no id; a whole token is none either.
pub(crate) fn parse_token_id(text: &str) -> Result<rask_comm::TokenId, String> {
    text.trim()
        .parse()
        .map_err(|_| "it is no token's id; ids are the 20 letters and digits that `rask token list` prints".to_owned())
}

/// The two sides of `NAME=VALUE`.
///
/// # Errors
/// When there is no `=`, or nothing before it.
pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("\"{text}\" is not of the form name=value")),
    }
}

/// A resource and its amount from `gpu=1`.
///
/// # Errors
/// When it is not of that form, or the amount is negative or not finite.
pub(crate) fn parse_resource(text: &str) -> Result<(String, f64), String> {
    let (name, amount) = parse_setting(text)?;
    match amount.trim().parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount >= 0.0 => Ok((name, amount)),
        Ok(_) | Err(_) => Err(format!("\"{amount}\" is no amount; amounts look like 1 or 0.5")),
    }
}

/// The number in `g17` or `17`.
///
/// # Errors
/// When it is neither.
pub(crate) fn parse_graph_id(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('g').unwrap_or(text);
    digits.parse().map_err(|_| format!("\"{text}\" is no graph id; ids look like g17"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(parse_nbytes("2GiB"), Ok(2 << 30));
        assert_eq!(parse_nbytes("1.5 MiB"), Ok(3 << 19));
        assert_eq!(parse_nbytes("1000"), Ok(1000));
        assert_eq!(parse_nbytes("2GB"), Ok(2_000_000_000));
        assert!(parse_nbytes("0").is_err() && parse_nbytes("-1").is_err() && parse_nbytes("lots").is_err());
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn pairs_and_ids() {
        assert_eq!(parse_setting("n=a=b"), Ok(("n".to_owned(), "a=b".to_owned())));
        assert!(parse_setting("n").is_err() && parse_setting("=1").is_err());
        assert_eq!(parse_resource("gpu=0.5"), Ok(("gpu".to_owned(), 0.5)));
        assert!(parse_resource("gpu=-1").is_err() && parse_resource("gpu=inf").is_err() && parse_resource("gpu").is_err());
        assert_eq!((parse_graph_id("g17"), parse_graph_id("3")), (Ok(17), Ok(3)));
        assert!(parse_graph_id("w1").is_err());
    }
}
