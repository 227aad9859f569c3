//! How nodes speak: messages, codec, QUIC with mutual TLS, cluster identities and join tokens.
//!
//! The only crate that names quinn and the only one that names bincode. Results' bytes never pass through the codec; they
//! travel on the data plane as checksummed buffers. Nothing here decides anything: policy lives in the machines.

pub mod message;
pub mod time;
