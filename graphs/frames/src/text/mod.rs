//! Text as columns: the bytes of a file (packed or not), its records, the types that its values suggest, and the values.
//!
//! Reading is strict. A type is a promise about every value of a column, and a sample cannot give it; so a value that does not
//! fit is an error that names its line, and never cut to what fits: not the fraction of a number, the time of a date, digits
//! of a second, or a key nobody expected.

pub(crate) mod cuts;
pub(crate) mod guess;
pub(crate) mod input;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod records;
pub(crate) mod time;
pub(crate) mod values;
