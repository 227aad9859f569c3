//! The kinds of results and operators that need no library: opaque bytes, lists of parts, and the no-op of the benchmarks.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operator::{Arity, KernelError, OperatorSpec, Registry};
use crate::value::{Data, EncodeError, Encoded, Value};

/// Bytes that mean something only to the function that made them: a user's serde value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opaque(pub Bytes);

impl Data for Opaque {
    fn kind(&self) -> &'static str {
        "bytes"
    }

    fn nbytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        Ok(Encoded { kind: "bytes", header: Bytes::new(), buffers: vec![self.0.clone()] })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn decode_opaque(_header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    match <[Bytes; 1]>::try_from(buffers) {
        Ok([bytes]) => Ok(Value::new(Opaque(bytes))),
        Err(buffers) => Err(format!("one buffer expected, got {}", buffers.len())),
    }
}

/// A result with addressable parts: what a splitting task hands to a gather group, one part a consumer.
///
/// It travels part by part; a whole one is fetched as all of its parts, so it has no encoded form of its own.
#[derive(Clone, Debug)]
pub struct Parts(pub Vec<Value>);

impl Data for Parts {
    fn kind(&self) -> &'static str {
        "parts"
    }

    fn nbytes(&self) -> u64 {
        self.0.iter().map(Value::nbytes).sum()
    }

    fn n_parts(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn part(&self, idx: u32) -> Option<Value> {
        self.0.get(idx as usize).cloned()
    }

    /// Header: for each part its kind, header and number of buffers, as MessagePack; buffers: those of all parts in order.
    fn encode(&self) -> Result<Encoded, EncodeError> {
        let mut table = Vec::with_capacity(self.0.len());
        let mut buffers = Vec::new();
        for part in &self.0 {
            let encoded = part.encode()?;
            table.push((encoded.kind.to_owned(), encoded.header.to_vec(), encoded.buffers.len()));
            buffers.extend(encoded.buffers);
        }
        let header = rmp_serde::to_vec(&table).map_err(|error| EncodeError(error.to_string()))?;
        Ok(Encoded { kind: "parts", header: Bytes::from(header), buffers })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Rebuild a [`Parts`] with the decoders of `registry` (a plain decoder function does not know the other kinds).
pub(crate) fn decode_parts(registry: &Registry, header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    let table: Vec<(String, Vec<u8>, usize)> = rmp_serde::from_slice(header).map_err(|error| error.to_string())?;
    let mut buffers = buffers.into_iter();
    let mut parts = Vec::with_capacity(table.len().min(65_536));
    for (kind, header, n_buffers) in table {
        if kind == "parts" {
            return Err("parts do not nest".to_owned());
        }
        let own: Vec<Bytes> = buffers.by_ref().take(n_buffers).collect();
        if own.len() != n_buffers {
            return Err(format!("{n_buffers} buffers announced, {} left", own.len()));
        }
        parts.push(registry.decode(&kind, &header, own).map_err(|error| error.to_string())?);
    }
    if buffers.next().is_some() {
        return Err("buffers left over".to_owned());
    }
    Ok(Value::new(Parts(parts)))
}

/// A file that a task has written, complete under its name. The bytes stay where they are; only this note travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileWritten {
    /// Where it is, as the task was given it.
    pub path: String,
    /// Its size in bytes.
    pub nbytes: u64,
}

impl Data for FileWritten {
    fn kind(&self) -> &'static str {
        "file"
    }

    /// The memory of the note, not the size of the file.
    fn nbytes(&self) -> u64 {
        (self.path.len() + size_of::<Self>()) as u64
    }

    fn encode(&self) -> Result<Encoded, EncodeError> {
        let header = rmp_serde::to_vec_named(self).map_err(|error| EncodeError(error.to_string()))?;
        Ok(Encoded { kind: "file", header: Bytes::from(header), buffers: Vec::new() })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn decode_file(header: &[u8], buffers: Vec<Bytes>) -> Result<Value, String> {
    if !buffers.is_empty() {
        return Err(format!("no buffer expected, got {}", buffers.len()));
    }
    let written: FileWritten = rmp_serde::from_slice(header).map_err(|error| error.to_string())?;
    Ok(Value::new(written))
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
struct NoArgs {}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SleepArgs {
    /// How long to hold the slot, in seconds.
    seconds: f64,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FailArgs {
    /// The message of the failure.
    message: String,
}

/// Register the kinds and operators of this module.
///
/// # Panics
/// Never in a fresh registry; a name registered twice is a programming error.
pub(crate) fn register(registry: &mut Registry) {
    registry.register_kind("bytes", decode_opaque);
    registry.register_kind("file", decode_file);
    registry.register(
        OperatorSpec::new::<NoArgs>(
            "core.noop",
            1,
            Arity::any(),
            "bytes",
            "Do nothing and return no bytes; what overhead is measured with.",
        ),
        |_ctx, _args: &NoArgs, _inputs| Ok(Value::new(Opaque(Bytes::new()))),
    );
    registry.register(
        OperatorSpec::new::<SleepArgs>("core.sleep", 1, Arity::any(), "bytes", "Hold a slot for a while, then return no bytes."),
        |ctx, args: &SleepArgs, _inputs| {
            let wait = Duration::try_from_secs_f64(args.seconds)?;
            let step = Duration::from_millis(5).min(wait);
            let mut left = wait;
            while !left.is_zero() {
                ctx.check_cancelled()?;
                let now = step.min(left);
                std::thread::sleep(now);
                left = left.saturating_sub(now);
            }
            Ok(Value::new(Opaque(Bytes::new())))
        },
    );
    registry.register(
        OperatorSpec::new::<FailArgs>(
            "core.fail",
            1,
            Arity::any(),
            "bytes",
            "Fail with a message; for trying out what a failure looks like.",
        ),
        |_ctx, args: &FailArgs, _inputs| Err(KernelError(args.message.clone())),
    );
    registry.register(
        OperatorSpec::new::<NoArgs>(
            "core.part_list",
            1,
            Arity::any(),
            "parts",
            "Bundle the inputs into one result with addressable parts.",
        ),
        |_ctx, _args: &NoArgs, inputs| Ok(Value::new(Parts(inputs.to_vec()))),
    );
}
