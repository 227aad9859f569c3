//! Results of tasks: immutable, shared, and able to travel as a list of buffers without being copied first.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::operator::KernelError;

/// What a result must be able to do to be held, served and received by workers.
///
/// Array chunks and frame partitions implement it in their own crates; [`crate::builtin`] has the plain ones.
pub trait Data: Any + Send + Sync {
    /// The wire name of this type of result, unique in a [`crate::Registry`] (`"array"`, `"frame"`, `"bytes"`).
    fn kind(&self) -> &'static str;

    /// Bytes of memory held, counting a shared buffer once.
    fn nbytes(&self) -> u64;

    /// Number of separately addressable parts; 0 when the result is only addressable as a whole.
    fn n_parts(&self) -> u32 {
        0
    }

    /// Part `idx` of the result, without copying where possible; `None` past [`Data::n_parts`].
    fn part(&self, idx: u32) -> Option<Value> {
        let _ = idx;
        None
    }

    /// The result as a small header and the buffers it consists of. Buffers are shared, not copied, where the type allows.
    ///
    /// # Errors
    /// When the result holds something that cannot leave this process.
    fn encode(&self) -> Result<Encoded, EncodeError>;

    /// For downcasting.
    fn as_any(&self) -> &dyn Any;
}

/// A shared, immutable result.
#[derive(Clone)]
pub struct Value(Arc<dyn Data>);

impl Value {
    /// Wrap `data`.
    pub fn new<T: Data>(data: T) -> Self {
        Self(Arc::new(data))
    }

    /// A user's value, kept as MessagePack bytes so that any worker can pass it on without knowing its type.
    ///
    /// # Errors
    /// When serde cannot serialise `value`.
    pub fn from_serde<T: Serialize>(value: &T) -> Result<Self, EncodeError> {
        let bytes = rmp_serde::to_vec_named(value).map_err(|error| EncodeError(error.to_string()))?;
        Ok(Self::new(crate::builtin::Opaque(Bytes::from(bytes))))
    }

    /// Read back what [`Value::from_serde`] made.
    ///
    /// # Errors
    /// When this is not opaque bytes, or they are not a `T`.
    pub fn to_serde<T: DeserializeOwned>(&self) -> Result<T, KernelError> {
        let opaque: &crate::builtin::Opaque = self.expect("a user's value")?;
        Ok(rmp_serde::from_slice(&opaque.0)?)
    }

    /// The concrete data, if it is a `T`.
    #[must_use]
    pub fn downcast<T: Data>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }

    /// The concrete data as a `T`, or an error that says what was `wanted` and what came.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn expect<T: Data>(&self, wanted: &str) -> Result<&T, KernelError> {
        self.downcast().ok_or_else(|| KernelError(format!("expected {wanted}, got a result of kind \"{}\"", self.kind())))
    }

    /// See [`Data::kind`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// See [`Data::nbytes`].
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.0.nbytes()
    }

    /// See [`Data::n_parts`].
    #[must_use]
    pub fn n_parts(&self) -> u32 {
        self.0.n_parts()
    }

    /// See [`Data::part`].
    #[must_use]
    pub fn part(&self, idx: u32) -> Option<Value> {
        self.0.part(idx)
    }

    /// See [`Data::encode`].
    ///
    /// # Errors
    /// When the result holds something that cannot leave this process. A panic counts as that: it is called where nobody expects
    /// one.
    pub fn encode(&self) -> Result<Encoded, EncodeError> {
        let encoded = catch_unwind(AssertUnwindSafe(|| self.0.encode()));
        encoded.unwrap_or_else(|_panic| Err(EncodeError(format!("encoding a result of kind \"{}\" panicked", self.kind()))))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({}, {} bytes)", self.kind(), self.nbytes())
    }
}

/// A result taken apart for the wire or the disk.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// [`Data::kind`]: names the decoder.
    pub kind: &'static str,
    /// Small description (dtype, shape, schema); never bulk data.
    pub header: Bytes,
    /// The bulk data. A receiver hands each back 64-byte aligned.
    pub buffers: Vec<Bytes>,
}

/// A result that cannot leave its process.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode result: {0}")]
pub struct EncodeError(pub String);

/// Bytes that are not the result they claim to be.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode result of kind \"{kind}\": {reason}")]
pub struct DecodeError {
    /// The kind that was claimed.
    pub kind: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Rebuilds a result from the header and buffers of its [`Encoded`] form. Must check every length it relies on.
pub type DecodeFn = fn(header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String>;
