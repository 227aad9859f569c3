//! Array expressions: NumPy's expression syntax as a flat tree with positions.
//!
//! [`Expression::parse`] knows the syntax and nothing else. Whether a function exists, what it takes and what shapes come
//! out is for the crate that lowers arrays to say; it has the span of every node to say it with. Nodes lie in one vector in
//! evaluation order, children before parents, so that one loop over them evaluates the whole without recursion.

mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use std::fmt;

/// A piece of a text: byte offsets, the end not included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes `start .. end`. Texts of 4 GiB and more are refused elsewhere; offsets saturate here.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// From the start of `self` to the end of `other`.
    #[must_use]
    pub fn to(self, other: Span) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A node's position in [`Expression::nodes`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index into [`Expression::nodes`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Operators with one operand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnaryOp {
    /// `-x`
    Negative,
    /// `+x`
    Positive,
    /// `~x`: bitwise, and logical on booleans.
    Invert,
}

impl UnaryOp {
    /// The operator as written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            UnaryOp::Negative => "-",
            UnaryOp::Positive => "+",
            UnaryOp::Invert => "~",
        }
    }
}

/// Operators with two operands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinaryOp {
    /// `a + b`
    Add,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`
    Divide,
    /// `a // b`
    FloorDivide,
    /// `a % b`
    Remainder,
    /// `a ** b`
    Power,
    /// `a @ b`
    MatrixMultiply,
    /// `a & b`
    And,
    /// `a | b`
    Or,
    /// `a ^ b`: exclusive or, not a power.
    Xor,
    /// `a << b`
    ShiftLeft,
    /// `a >> b`
    ShiftRight,
    /// `a == b`
    Equal,
    /// `a != b`
    NotEqual,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
    /// `a > b`
    Greater,
    /// `a >= b`
    GreaterEqual,
}

impl BinaryOp {
    /// The operator as written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::FloorDivide => "//",
            BinaryOp::Remainder => "%",
            BinaryOp::Power => "**",
            BinaryOp::MatrixMultiply => "@",
            BinaryOp::And => "&",
            BinaryOp::Or => "|",
            BinaryOp::Xor => "^",
            BinaryOp::ShiftLeft => "<<",
            BinaryOp::ShiftRight => ">>",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Less => "<",
            BinaryOp::LessEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterEqual => ">=",
        }
    }

    /// Whether the result is a truth value.
    #[must_use]
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Equal
                | BinaryOp::NotEqual
                | BinaryOp::Less
                | BinaryOp::LessEqual
                | BinaryOp::Greater
                | BinaryOp::GreaterEqual
        )
    }
}

/// Named numbers; no array can have their names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Constant {
    /// `pi`
    Pi,
    /// `e`
    E,
    /// `inf`
    Infinity,
    /// `nan`
    NotANumber,
}

impl Constant {
    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Constant::Pi => std::f64::consts::PI,
            Constant::E => std::f64::consts::E,
            Constant::Infinity => f64::INFINITY,
            Constant::NotANumber => f64::NAN,
        }
    }

    /// The name as written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Constant::Pi => "pi",
            Constant::E => "e",
            Constant::Infinity => "inf",
            Constant::NotANumber => "nan",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Constant::Pi, Constant::E, Constant::Infinity, Constant::NotANumber].into_iter().find(|it| it.name() == name)
    }
}

/// What is called.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Callee {
    /// A function by NumPy's name, `np.` taken off: `sum`, `linalg.qr`.
    Function(String),
    /// A method of the value of a node: `x.sum`.
    Method(NodeId, String),
}

/// One item between the brackets of `x[..]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IndexItem {
    /// An integer, a mask, a list or an array of integers: any value.
    At(NodeId),
    /// `start:stop:step`, each of which may be left out.
    Slice(Option<NodeId>, Option<NodeId>, Option<NodeId>),
    /// `None`: a new axis of length 1.
    NewAxis,
    /// `...`: as many whole axes as fit.
    Ellipsis,
}

/// A node without its position.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeKind {
    /// An integer literal.
    Integer(i128),
    /// A literal with a point or an exponent.
    Float(f64),
    /// `True` or `False`.
    Boolean(bool),
    /// `None`
    None,
    /// A string literal, as in `dtype="f4"`.
    Text(String),
    /// `pi`, `e`, `inf`, `nan`.
    Constant(Constant),
    /// A declared array.
    Name(String),
    /// An operator and its operand.
    Unary(UnaryOp, NodeId),
    /// An operator and its operands.
    Binary(BinaryOp, NodeId, NodeId),
    /// `x.name` that is not called.
    Attribute(NodeId, String),
    /// A call of a function or a method.
    Call {
        /// What is called.
        callee: Callee,
        /// Arguments by position.
        arguments: Vec<NodeId>,
        /// Arguments by name, in the order written; names are distinct.
        keywords: Vec<(String, NodeId)>,
    },
    /// `x[items]`; at least one item.
    Index(NodeId, Vec<IndexItem>),
    /// `(a, b)`
    Tuple(Vec<NodeId>),
    /// `[a, b]`
    List(Vec<NodeId>),
}

/// A parsed expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expression {
    nodes: Vec<NodeKind>,
    spans: Vec<Span>,
}

/// Why a text is no expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where, in bytes of the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What might be meant.
    pub hint: Option<String>,
}

/// Most nodes of one expression; more is a mistake of a machine, not a formula.
pub const MAX_NODES: usize = 100_000;
/// How deep brackets, powers and unary operators may nest, and how high the tree may grow.
pub const MAX_DEPTH: u32 = 100;
/// The height that a chain of left-associative operators may reach.
pub const MAX_HEIGHT: u32 = 2_000;

/// Names that can not be given to arrays, because they mean something in every expression.
pub const RESERVED: [&str; 24] = [
    "pi", "e", "inf", "nan", "newaxis", "True", "False", "None", "np", "numpy", "da", "linalg", "fft", "random", "and", "or",
    "not", "if", "else", "lambda", "for", "in", "is", "await",
];

/// Names of types that may stand where a type is asked for, as in `astype(float32)`, when no array has that name. What they
/// mean, and whether there are such arrays, is for the arrays library to say.
pub const TYPE_NAMES: [&str; 52] = [
    "bool",
    "int",
    "float",
    "complex",
    "bool_",
    "int_",
    "uint",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "float128",
    "complex64",
    "complex128",
    "longdouble",
    "byte",
    "ubyte",
    "short",
    "ushort",
    "intc",
    "uintc",
    "intp",
    "uintp",
    "long",
    "ulong",
    "longlong",
    "ulonglong",
    "half",
    "single",
    "double",
    "object_",
    "str_",
    "bytes_",
    "datetime64",
    "timedelta64",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "f32",
    "f64",
];

impl Expression {
    /// Parse `text`, all of it.
    ///
    /// # Errors
    /// The first mistake, with its position in bytes of `text`.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parser::parse(text)
    }

    /// All nodes, children before their parents; the last one is the root.
    #[must_use]
    pub fn nodes(&self) -> &[NodeKind] {
        &self.nodes
    }

    /// The node whose value is the expression's.
    #[must_use]
    pub fn root(&self) -> NodeId {
        NodeId(u32::try_from(self.nodes.len().saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// The node at `id`, which must be of this expression.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &NodeKind {
        &self.nodes[id.index()]
    }

    /// Where node `id` stands in the text.
    #[must_use]
    pub fn span(&self, id: NodeId) -> Span {
        self.spans[id.index()]
    }

    /// The names of arrays used, each with its first position, in order of appearance.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Span)> {
        let mut seen = std::collections::HashSet::new();
        let mut names = Vec::new();
        for (node, span) in self.nodes.iter().zip(&self.spans) {
            if let NodeKind::Name(name) = node
                && seen.insert(name.as_str())
            {
                names.push((name.clone(), *span));
            }
        }
        names
    }
}

impl fmt::Display for Expression {
    /// The expression with every operation in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print::print(self))
    }
}
