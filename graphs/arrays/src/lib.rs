//! rask-arrays
