//! Operators: the named, versioned functions that tasks run, and the registry that workers look them up in.
//!
//! Arrays, frames and users' functions register through the same call. Arguments are JSON, described by a JSON Schema, so
//! that a graph file can name any operator; they are parsed once per body, not once per task.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::access::FileAccess;
use crate::builtin;
use crate::value::{DecodeError, DecodeFn, Value};
use crate::written;

/// Why a kernel failed, as text for people. Any error converts into it with `?`; it is data, not an error type of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelError(pub String);

impl<E: std::error::Error> From<E> for KernelError {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a kernel may know about the run it is part of.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The task's human name.
    pub key: Arc<str>,
    /// Which run of the task this is, from 1; also a good suffix for temporary names.
    pub attempt: u32,
    /// Set when nobody wants the result any more; long kernels look at it between steps.
    pub cancelled: Arc<AtomicBool>,
    /// The files that file operators may touch, and the way to them.
    pub files: FileAccess,
    /// Memory that the worker may take in all, in bytes; `None` when nothing limits it.
    pub memory_limit: Option<u64>,
}

impl TaskContext {
    /// A context for running a kernel by hand: all files, never cancelled.
    #[must_use]
    pub fn detached(key: &str) -> Self {
        Self { key: key.into(), attempt: 1, cancelled: Arc::default(), files: FileAccess::everything(), memory_limit: None }
    }

    /// Fails once the task has been cancelled.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn check_cancelled(&self) -> Result<(), KernelError> {
        if self.cancelled.load(Ordering::Relaxed) { Err(KernelError("cancelled".to_owned())) } else { Ok(()) }
    }

    /// Fails when `nbytes` bytes are more than the worker may take in all. Kernels ask before they make what may be large, so
    /// that a chunk that cannot be held costs its task a message, and not the worker its life.
    ///
    /// # Errors
    /// When they are, with both numbers.
    pub fn check_memory(&self, nbytes: u64) -> Result<(), KernelError> {
        match self.memory_limit {
            Some(limit) if nbytes > limit => Err(KernelError(format!(
                "its result would take {nbytes} bytes of memory, and the worker has {limit}: use smaller chunks"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

/// A body made ready to run: operator found, arguments parsed. Shared by every task with that body.
pub trait Kernel: Send + Sync {
    /// Compute the result. `inputs` are in the order of the task's inputs, gather groups spread out in place.
    ///
    /// # Errors
    /// Whatever goes wrong, as text; the runtime adds task, operator, worker and attempt.
    fn run(&self, ctx: &TaskContext, inputs: &[Value]) -> Result<Value, KernelError>;
}

/// How many inputs an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    /// Fewest inputs.
    pub min: usize,
    /// Most inputs; `None` for no bound.
    pub max: Option<usize>,
}

impl Arity {
    /// Exactly `n` inputs.
    #[must_use]
    pub const fn exactly(n: usize) -> Self {
        Self { min: n, max: Some(n) }
    }

    /// `n` inputs or more.
    #[must_use]
    pub const fn at_least(n: usize) -> Self {
        Self { min: n, max: None }
    }

    /// Any number of inputs.
    #[must_use]
    pub const fn any() -> Self {
        Self { min: 0, max: None }
    }

    /// Whether `n` inputs are acceptable.
    #[must_use]
    pub fn accepts(self, n: usize) -> bool {
        n >= self.min && self.max.is_none_or(|max| n <= max)
    }
}

impl fmt::Display for Arity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, Some(max)) if min == max => write!(f, "{min}"),
            (min, Some(max)) => write!(f, "{min} to {max}"),
            (0, None) => f.write_str("any number of"),
            (min, None) => write!(f, "at least {min}"),
        }
    }
}

/// What people and checks need to know about an operator.
#[derive(Clone, Debug)]
pub struct OperatorSpec {
    /// Dotted name, `family.verb`.
    pub name: &'static str,
    /// Raised when the meaning of the arguments or of the result changes.
    pub version: u32,
    /// How many inputs it takes.
    pub inputs: Arity,
    /// The kind of its result.
    pub output: &'static str,
    /// Documentation; the first sentence stands alone in listings.
    pub doc: &'static str,
    /// JSON Schema of the arguments.
    pub args_schema: serde_json::Value,
}

impl OperatorSpec {
    /// A spec whose argument schema is that of `A` (its doc comments become descriptions).
    #[must_use]
    pub fn new<A: JsonSchema>(name: &'static str, version: u32, inputs: Arity, output: &'static str, doc: &'static str) -> Self {
        Self { name, version, inputs, output, doc, args_schema: schemars::schema_for!(A).to_value() }
    }

    /// The names of the arguments, in schema order.
    #[must_use]
    pub fn arg_names(&self) -> Vec<&str> {
        self.args_schema
            .get("properties")
            .and_then(serde_json::Value::as_object)
            .map(|properties| properties.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }
}

/// An operator that cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// No operator has this name.
    #[error("unknown operator \"{0}\"")]
    UnknownOperator(String),
    /// The operator exists in another version.
    #[error("operator \"{operator}\" is version {have} here, version {want} was asked for")]
    Version {
        /// The operator's name.
        operator: String,
        /// The registered version.
        have: u32,
        /// The version the body names.
        want: u32,
    },
    /// The arguments do not fit the schema.
    #[error("operator \"{operator}\": {reason}")]
    Arguments {
        /// The operator's name.
        operator: String,
        /// What is wrong, from the parser.
        reason: String,
    },
    /// Another number of inputs than the operator takes.
    #[error("operator \"{operator}\" takes {takes} inputs, got {got}")]
    Inputs {
        /// The operator's name.
        operator: String,
        /// What it takes.
        takes: String,
        /// What it got.
        got: usize,
    },
}

type PrepareFn = Box<dyn Fn(&str) -> Result<Arc<dyn Kernel>, String> + Send + Sync>;

struct Entry {
    spec: OperatorSpec,
    prepare: PrepareFn,
}

/// Operators and kinds of results by name. One per process, filled before it starts to work.
pub struct Registry {
    operators: BTreeMap<&'static str, Entry>,
    kinds: BTreeMap<&'static str, DecodeFn>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

struct FnKernel<A, F> {
    args: A,
    function: Arc<F>,
}

impl<A, F> Kernel for FnKernel<A, F>
where
    A: Send + Sync,
    F: Fn(&TaskContext, &A, &[Value]) -> Result<Value, KernelError> + Send + Sync,
{
    fn run(&self, ctx: &TaskContext, inputs: &[Value]) -> Result<Value, KernelError> {
        (self.function)(ctx, &self.args, inputs)
    }
}

impl Registry {
    /// A registry with the built-in kinds and operators (`core.*`).
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Self { operators: BTreeMap::new(), kinds: BTreeMap::new() };
        builtin::register(&mut registry);
        written::register(&mut registry);
        registry
    }

    /// Register `function` as an operator with JSON arguments of type `A`.
    ///
    /// # Panics
    /// When the name is taken: two meanings for one name would be found out only at run time, on some worker.
    pub fn register<A, F>(&mut self, spec: OperatorSpec, function: F)
    where
        A: DeserializeOwned + Send + Sync + 'static,
        F: Fn(&TaskContext, &A, &[Value]) -> Result<Value, KernelError> + Send + Sync + 'static,
    {
        let function = Arc::new(function);
        self.register_prepared(spec, move |args| {
            let args: A = serde_json::from_str(args).map_err(|error| error.to_string())?;
            Ok(Arc::new(FnKernel { args, function: Arc::clone(&function) }))
        });
    }

    /// Register an operator that makes its own kernel from the JSON text of its arguments (to check or compile them once).
    ///
    /// # Panics
    /// When the name is taken.
    pub fn register_prepared<P>(&mut self, spec: OperatorSpec, prepare: P)
    where
        P: Fn(&str) -> Result<Arc<dyn Kernel>, String> + Send + Sync + 'static,
    {
        let name = spec.name;
        let previous = self.operators.insert(name, Entry { spec, prepare: Box::new(prepare) });
        assert!(previous.is_none(), "operator \"{name}\" is registered twice");
    }

    /// Register the decoder of a kind of result.
    ///
    /// # Panics
    /// When the kind is taken.
    pub fn register_kind(&mut self, kind: &'static str, decode: DecodeFn) {
        let previous = self.kinds.insert(kind, decode);
        assert!(previous.is_none(), "kind \"{kind}\" is registered twice");
    }

    /// The operator called `name`.
    #[must_use]
    pub fn spec(&self, name: &str) -> Option<&OperatorSpec> {
        self.operators.get(name).map(|entry| &entry.spec)
    }

    /// All operators, by name.
    pub fn specs(&self) -> impl Iterator<Item = &OperatorSpec> {
        self.operators.values().map(|entry| &entry.spec)
    }

    /// Make one operator ready: find it, check its version and parse its arguments (JSON text, an object).
    ///
    /// # Errors
    /// When the operator is unknown, has another version, or refuses the arguments.
    pub fn prepare(&self, operator: &str, version: u32, args: &str) -> Result<Arc<dyn Kernel>, PrepareError> {
        let entry = self.operators.get(operator).ok_or_else(|| PrepareError::UnknownOperator(operator.to_owned()))?;
        if entry.spec.version != version {
            return Err(PrepareError::Version { operator: operator.to_owned(), have: entry.spec.version, want: version });
        }
        (entry.prepare)(args).map_err(|reason| PrepareError::Arguments { operator: operator.to_owned(), reason })
    }

    /// Rebuild a result from its wire form.
    ///
    /// # Errors
    /// When the kind is unknown here or the bytes are not of that kind.
    pub fn decode(&self, kind: &str, header: &[u8], buffers: Vec<Bytes>) -> Result<Value, DecodeError> {
        let fail = |reason: String| DecodeError { kind: kind.to_owned(), reason };
        if kind == "parts" {
            return builtin::decode_parts(self, header, buffers).map_err(fail);
        }
        let decode = self.kinds.get(kind).ok_or_else(|| fail("no such kind is registered here".to_owned()))?;
        // It is called where nobody expects a panic.
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(header, buffers)));
        decoded.unwrap_or_else(|_panic| Err("decoding it panicked".to_owned())).map_err(fail)
    }

    /// A number that two registries share exactly when they have the same operators in the same versions; compared when
    /// a worker joins.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        for entry in self.operators.values() {
            text.push_str(entry.spec.name);
            text.push('@');
            text.push_str(&entry.spec.version.to_string());
            text.push('\n');
        }
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}
