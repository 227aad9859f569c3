//! Expressions over arrays: a parsed formula and the arrays it names become one lazy array.
//!
//! [`rask_graphs::expression`] knows the syntax; here is what the names mean. One loop over the flat tree, children before
//! parents; every mistake is reported at the place in the text where it stands.

mod arguments;
mod functions;
mod numbers;
mod numpy_names;
mod types;

use rask_graphs::expression::{BinaryOp, Callee, Expression, IndexItem, NodeKind, Span, UnaryOp};

use crate::array::{Array, Index, Operand};
use crate::dtype::DType;
use crate::error::ArrayError;
use crate::function::Function;
use crate::scalar::Scalar;

/// A mistake in an expression, with its place in the text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// Where, in bytes of the text.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What might be meant.
    pub hint: Option<String>,
}

/// What a node stands for.
#[derive(Clone, Debug)]
enum Meaning {
    Array(Array),
    Scalar(Scalar),
    Nothing,
    Text(String),
    List(Vec<Meaning>),
}

impl Meaning {
    fn operand(&self) -> Option<Operand> {
        match self {
            Meaning::Array(array) => Some(Operand::Array(array.clone())),
            Meaning::Scalar(scalar) => Some(Operand::Scalar(*scalar)),
            Meaning::Nothing | Meaning::Text(_) | Meaning::List(_) => None,
        }
    }

    fn has_array(&self) -> bool {
        match self {
            Meaning::Array(_) => true,
            // Nesting is bounded by the parser.
            Meaning::List(items) => items.iter().any(Meaning::has_array),
            Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) => false,
        }
    }

    /// How many sizes of chunks it carries with it.
    fn n_sizes(&self) -> usize {
        match self {
            Meaning::Array(array) => array.chunks().iter().map(Vec::len).sum(),
            Meaning::List(items) => items.iter().map(Meaning::n_sizes).sum(),
            Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) => 0,
        }
    }

    fn describe(&self) -> &'static str {
        match self {
            Meaning::Array(_) => "an array",
            Meaning::Scalar(_) => "a number",
            Meaning::Nothing => "None",
            Meaning::Text(_) => "a text",
            Meaning::List(_) => "a list",
        }
    }
}

/// Why a node has no meaning: text and hint; the place is the node's unless said otherwise.
struct Mistake {
    message: String,
    hint: Option<String>,
}

impl Mistake {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }
}

impl From<ArrayError> for Mistake {
    fn from(error: ArrayError) -> Self {
        Self::new(error.to_string())
    }
}

/// Most sizes of chunks that the arrays of one expression may carry along their axes together: each operation copies them.
const MAX_SIZES: usize = 50_000_000;

/// Evaluate a parsed expression; `env` knows the arrays by name.
///
/// # Errors
/// The first mistake: an unknown name or function, wrong arguments, shapes that do not fit.
pub fn evaluate_expression(expression: &Expression, env: &dyn Fn(&str) -> Option<Array>) -> Result<Array, ExpressionError> {
    let mut meanings: Vec<Meaning> = Vec::with_capacity(expression.nodes().len());
    let mut n_sizes = 0usize;
    for (idx, node) in expression.nodes().iter().enumerate() {
        let id = rask_graphs::expression::NodeId(u32::try_from(idx).unwrap_or(u32::MAX));
        let meaning = evaluate(node, &meanings, env).map_err(|mistake| ExpressionError {
            span: expression.span(id),
            message: mistake.message,
            hint: mistake.hint,
        })?;
        n_sizes = n_sizes.saturating_add(meaning.n_sizes());
        if n_sizes > MAX_SIZES {
            let error =
                ArrayError::TooMany { what: "too many chunks in one expression", count: n_sizes as u128, limit: MAX_SIZES };
            return Err(ExpressionError { span: expression.span(id), message: error.to_string(), hint: None });
        }
        meanings.push(meaning);
    }
    let span = expression.span(expression.root());
    let fail = |message: String| ExpressionError { span, message, hint: None };
    match meanings.pop() {
        Some(Meaning::Array(array)) => Ok(array),
        Some(Meaning::Scalar(scalar)) => {
            Array::full(&[], scalar, None, &crate::ChunkSpec::default()).map_err(|error| fail(error.to_string()))
        }
        Some(meaning) => functions::to_array(&meaning).map_err(|mistake| fail(mistake.message)),
        None => Err(fail("an empty expression".to_owned())),
    }
}

fn evaluate(node: &NodeKind, meanings: &[Meaning], env: &dyn Fn(&str) -> Option<Array>) -> Result<Meaning, Mistake> {
    let meaning = |id: rask_graphs::expression::NodeId| &meanings[id.index()];
    match node {
        NodeKind::Integer(value) => Ok(Meaning::Scalar(Scalar::Int(*value))),
        NodeKind::Float(value) => Ok(Meaning::Scalar(Scalar::Float(*value))),
        NodeKind::Boolean(value) => Ok(Meaning::Scalar(Scalar::Bool(*value))),
        NodeKind::None => Ok(Meaning::Nothing),
        NodeKind::Text(text) => Ok(Meaning::Text(text.clone())),
        NodeKind::Constant(constant) => Ok(Meaning::Scalar(Scalar::Float(constant.value()))),
        // A type's name may stand where a type is asked for, as in `astype(float32)`.
        NodeKind::Name(name) => match env(name) {
            Some(array) => Ok(Meaning::Array(array)),
            None if rask_graphs::expression::TYPE_NAMES.contains(&name.as_str()) => Ok(Meaning::Text(name.clone())),
            None => Err(Mistake::new(format!("unknown array \"{name}\""))),
        },
        NodeKind::Unary(op, operand) => unary(*op, meaning(*operand)),
        NodeKind::Binary(op, left, right) => binary(*op, meaning(*left), meaning(*right)),
        NodeKind::Attribute(of, name) => attribute(meaning(*of), name),
        NodeKind::Call { callee, arguments, keywords } => {
            let mut positional: Vec<Meaning> = arguments.iter().map(|id| meaning(*id).clone()).collect();
            let named: Vec<(String, Meaning)> = keywords.iter().map(|(name, id)| (name.clone(), meaning(*id).clone())).collect();
            match callee {
                Callee::Function(name) => functions::call(name, positional, named, false),
                Callee::Method(of, name) => {
                    positional.insert(0, meaning(*of).clone());
                    functions::call(name, positional, named, true)
                }
            }
        }
        NodeKind::Index(of, items) => index(meaning(*of), items, meanings),
        NodeKind::Tuple(items) | NodeKind::List(items) => {
            Ok(Meaning::List(items.iter().map(|id| meaning(*id).clone()).collect()))
        }
    }
}

/// Apply an elementwise function; numbers alone are computed at once.
fn apply(function: Function, operands: &[&Meaning]) -> Result<Meaning, Mistake> {
    let operands = operands
        .iter()
        .map(|meaning| match meaning {
            Meaning::List(_) => functions::to_array(meaning).map(Operand::Array),
            Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) => {
                meaning.operand().ok_or_else(|| Mistake::new(format!("{} cannot take {}", function.name(), meaning.describe())))
            }
        })
        .collect::<Result<Vec<Operand>, Mistake>>()?;
    let has_array = operands.iter().any(|operand| matches!(operand, Operand::Array(_)));
    if has_array {
        return Ok(Meaning::Array(Array::apply(function, &operands)?));
    }
    functions::fold_constants(function, &operands)
}

fn unary(op: UnaryOp, operand: &Meaning) -> Result<Meaning, Mistake> {
    match op {
        UnaryOp::Positive => positive(operand),
        UnaryOp::Negative => apply(Function::Negative, &[operand]),
        UnaryOp::Invert => apply(Function::Invert, &[operand]),
    }
}

fn positive(operand: &Meaning) -> Result<Meaning, Mistake> {
    let refuse = |what: &str| Err(Mistake::new(format!("positive is not defined for {what}")));
    match operand {
        Meaning::Array(array) if array.dtype() == DType::Bool => refuse("bool arrays"),
        Meaning::Scalar(Scalar::Bool(value)) => Ok(Meaning::Scalar(Scalar::Int(i128::from(*value)))),
        Meaning::Array(_) | Meaning::Scalar(_) => Ok(operand.clone()),
        Meaning::List(_) => Ok(Meaning::Array(functions::to_array(operand)?)),
        Meaning::Nothing | Meaning::Text(_) => refuse(operand.describe()),
    }
}

fn binary(op: BinaryOp, left: &Meaning, right: &Meaning) -> Result<Meaning, Mistake> {
    let function = match op {
        BinaryOp::Add => Function::Add,
        BinaryOp::Subtract => Function::Subtract,
        BinaryOp::Multiply => Function::Multiply,
        BinaryOp::Divide => Function::Divide,
        BinaryOp::FloorDivide => Function::FloorDivide,
        BinaryOp::Remainder => Function::Remainder,
        BinaryOp::Power => Function::Power,
        BinaryOp::MatrixMultiply => return Ok(Meaning::Array(functions::to_array(left)?.matmul(&functions::to_array(right)?)?)),
        BinaryOp::And => Function::BitwiseAnd,
        BinaryOp::Or => Function::BitwiseOr,
        BinaryOp::Xor => Function::BitwiseXor,
        BinaryOp::ShiftLeft => Function::LeftShift,
        BinaryOp::ShiftRight => Function::RightShift,
        BinaryOp::Equal => Function::Equal,
        BinaryOp::NotEqual => Function::NotEqual,
        BinaryOp::Less => Function::Less,
        BinaryOp::LessEqual => Function::LessEqual,
        BinaryOp::Greater => Function::Greater,
        BinaryOp::GreaterEqual => Function::GreaterEqual,
    };
    apply(function, &[left, right])
}

fn attribute(of: &Meaning, name: &str) -> Result<Meaning, Mistake> {
    let Meaning::Array(array) = of else { return Err(Mistake::new(format!("{} has no attribute \"{name}\"", of.describe()))) };
    let int = |n: usize| Meaning::Scalar(Scalar::Int(n as i128));
    match name {
        "T" => Ok(Meaning::Array(array.transpose(None)?)),
        "ndim" => Ok(int(array.n_axes())),
        "shape" | "size" => {
            ArrayError::check_known(&array.shape(), "shape")?;
            Ok(if name == "size" { int(array.size()) } else { Meaning::List(array.shape().into_iter().map(int).collect()) })
        }
        // The short name would be ambiguous where it is used.
        "dtype" => Ok(Meaning::Text(array.dtype().numpy_name().to_owned())),
        _ => Err(functions::unknown(functions::Sought::Attribute, name, &["T", "shape", "size", "ndim", "dtype"])),
    }
}

/// An index beyond 64 bits is as far outside as the largest.
fn clamped(index: i128) -> i64 {
    i64::try_from(index).unwrap_or(if index < 0 { i64::MIN } else { i64::MAX })
}

fn index(of: &Meaning, items: &[IndexItem], meanings: &[Meaning]) -> Result<Meaning, Mistake> {
    let integer = |id: rask_graphs::expression::NodeId| match &meanings[id.index()] {
        Meaning::Scalar(Scalar::Int(value)) => Ok(Some(clamped(*value))),
        Meaning::Nothing => Ok(None),
        other @ (Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Text(_) | Meaning::List(_)) => {
            Err(Mistake::new(format!("a slice takes integers, got {}", other.describe())))
        }
    };
    if let Meaning::List(list) = of {
        let [IndexItem::At(id)] = items else { return Err(Mistake::new("a list takes one integer index")) };
        let at = integer(*id)?.unwrap_or(0);
        let own = if at < 0 { at.saturating_add(list.len() as i64) } else { at };
        return usize::try_from(own)
            .ok()
            .and_then(|own| list.get(own))
            .cloned()
            .ok_or_else(|| Mistake::new(format!("index {at} is out of bounds for a list of {}", list.len())));
    }
    let array = functions::to_array(of)?;
    let items = items
        .iter()
        .map(|item| {
            Ok(match item {
                IndexItem::NewAxis => Index::NewAxis,
                IndexItem::Ellipsis => Index::Ellipsis,
                IndexItem::Slice(start, stop, step) => {
                    let part = |id: &Option<rask_graphs::expression::NodeId>| id.map_or(Ok(None), integer);
                    Index::Slice(part(start)?, part(stop)?, part(step)?.unwrap_or(1))
                }
                IndexItem::At(id) => match &meanings[id.index()] {
                    Meaning::Scalar(Scalar::Int(value)) => Index::At(clamped(*value)),
                    Meaning::Nothing => Index::NewAxis,
                    Meaning::Array(_) | Meaning::List(_) => {
                        return Err(Mistake::new("indexing with an array or a list is not supported yet; use slices, or where"));
                    }
                    other @ (Meaning::Scalar(_) | Meaning::Text(_)) => {
                        return Err(Mistake::new(format!("an index is an integer or a slice, got {}", other.describe())));
                    }
                },
            })
        })
        .collect::<Result<Vec<Index>, Mistake>>()?;
    Ok(Meaning::Array(array.index(&items)?))
}

#[cfg(test)]
mod tests;
