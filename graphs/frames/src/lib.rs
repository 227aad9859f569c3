//! rask-frames
