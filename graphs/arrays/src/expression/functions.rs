//! What the functions and methods of expressions do, by NumPy's names and with its keywords.

use super::arguments::Arguments;
use super::{Meaning, Mistake, apply};
use crate::array::{Array, Operand};
use crate::chunk::Chunk;
use crate::chunking::ChunkSpec;
use crate::dtype::{DType, Scalar};
use crate::function::{Function, common_type};
use crate::kernels::reduce::Reduction;

/// Functions that are no elementwise function and no reduction: parameters, and whether it is a method too.
const OTHERS: &[(&str, &[&str], bool)] = &[
    ("zeros", &["shape", "dtype", "chunks"], false),
    ("ones", &["shape", "dtype", "chunks"], false),
    ("full", &["shape", "fill_value", "dtype", "chunks"], false),
    ("arange", &["start", "stop", "step", "dtype", "chunks"], false),
    ("linspace", &["start", "stop", "num", "endpoint", "dtype", "chunks"], false),
    ("eye", &["N", "M", "k", "dtype", "chunks"], false),
    ("zeros_like", &["a", "dtype"], false),
    ("ones_like", &["a", "dtype"], false),
    ("full_like", &["a", "fill_value", "dtype"], false),
    ("array", &["a", "dtype"], false),
    ("asarray", &["a", "dtype"], false),
    ("astype", &["a", "dtype"], true),
    ("clip", &["a", "a_min", "a_max", "min", "max"], true),
    ("transpose", &["a", "axes"], true),
    ("permute_dims", &["a", "axes"], false),
    ("swapaxes", &["a", "axis1", "axis2"], true),
    ("expand_dims", &["a", "axis"], false),
    ("squeeze", &["a", "axis"], true),
    ("reshape", &["a", "shape"], true),
    ("ravel", &["a"], true),
    ("flatten", &["a"], true),
    ("rechunk", &["a", "chunks"], true),
    ("concatenate", &["arrays", "axis"], false),
    ("concat", &["arrays", "axis"], false),
    ("stack", &["arrays", "axis"], false),
    ("vstack", &["arrays"], false),
    ("hstack", &["arrays"], false),
    ("column_stack", &["arrays"], false),
    ("matmul", &["a", "b"], false),
    ("dot", &["a", "b"], true),
    ("outer", &["a", "b"], false),
    ("trace", &["a"], true),
    ("diag", &["a"], false),
    ("diagonal", &["a"], true),
    ("linalg.norm", &["a", "ord", "axis", "keepdims"], false),
    ("linalg.lstsq", &["a", "b", "rcond"], false),
    ("linalg.solve", &["a", "b"], false),
];

const REDUCTION: &[&str] = &["a", "axis", "keepdims"];
const REDUCTION_WITH_DDOF: &[&str] = &["a", "axis", "ddof", "keepdims"];

/// Every name that can be called.
fn names() -> Vec<&'static str> {
    let functions = Function::ALL.iter().map(|function| function.name());
    let reductions = Reduction::ALL.iter().map(|reduction| reduction.name());
    OTHERS.iter().map(|(name, ..)| *name).chain(functions).chain(reductions).chain(["abs", "amin", "amax", "average"]).collect()
}

/// The nearest of `known` to `name`, if it is near.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let best = known.iter().copied().min_by_key(|other| distance(other))?;
    (distance(best) <= 1 + name.len() / 4).then_some(best)
}

/// Complain about a name, and suggest the nearest.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> Mistake {
    Mistake {
        message: format!("unknown {what} \"{name}\""),
        hint: nearest(name, known).map(|near| format!("did you mean \"{near}\"?")),
    }
}

/// An array of what a node stands for.
pub(super) fn to_array(meaning: &Meaning) -> Result<Array, Mistake> {
    match meaning {
        Meaning::Array(array) => Ok(array.clone()),
        Meaning::Scalar(scalar) => Ok(Array::full(&[], *scalar, None, &ChunkSpec::default())?),
        Meaning::List(items) if items.iter().any(|item| matches!(item, Meaning::Array(_))) => {
            let arrays = items.iter().map(to_array).collect::<Result<Vec<Array>, Mistake>>()?;
            Ok(Array::stack(&arrays, 0)?)
        }
        Meaning::List(items) => {
            let mut numbers = Vec::new();
            let mut shape = Vec::new();
            flatten(items, 0, &mut shape, &mut numbers)?;
            let kinds: Vec<_> = numbers.iter().map(|scalar| crate::function::OperandType::Weak(*scalar)).collect();
            let dtype = common_type(&kinds)?;
            let bytes: Vec<u8> = numbers.iter().flat_map(|scalar| scalar.to_bytes(dtype)).collect();
            let chunk = Chunk::from_bytes(dtype, shape, bytes.into()).map_err(Mistake::new)?;
            Ok(Array::from_chunk(chunk, &ChunkSpec::default())?)
        }
        Meaning::Nothing | Meaning::Text(_) => Err(Mistake::new(format!("an array is needed, got {}", meaning.describe()))),
    }
}

fn flatten(items: &[Meaning], depth: usize, shape: &mut Vec<usize>, numbers: &mut Vec<Scalar>) -> Result<(), Mistake> {
    if shape.len() == depth {
        shape.push(items.len());
    }
    if shape[depth] != items.len() {
        return Err(Mistake::new("lists of one length are needed to make an array"));
    }
    for item in items {
        match item {
            Meaning::List(inner) => flatten(inner, depth + 1, shape, numbers)?,
            Meaning::Scalar(scalar) if shape.len() == depth + 1 => numbers.push(*scalar),
            Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) => {
                return Err(Mistake::new(format!("an array is made of numbers, got {}", item.describe())));
            }
        }
    }
    Ok(())
}

/// A function of numbers alone, computed at once by the kernel that would compute it later.
pub(super) fn fold_constants(function: Function, operands: &[Operand]) -> Result<Meaning, Mistake> {
    let chunks: Vec<Chunk> = operands
        .iter()
        .filter_map(|operand| match operand {
            Operand::Scalar(scalar) => Some(Chunk::scalar(scalar.dtype(), *scalar)),
            Operand::Array(_) => None,
        })
        .collect();
    let result = crate::kernels::apply_now(function, &chunks).map_err(|error| Mistake::new(error.0))?;
    result.element(0).map(Meaning::Scalar).ok_or_else(|| Mistake::new("no value"))
}

/// Call a function, or a method whose object is the first argument.
pub(super) fn call(
    name: &str,
    positional: Vec<Meaning>,
    named: Vec<(String, Meaning)>,
    is_method: bool,
) -> Result<Meaning, Mistake> {
    let plain = match name {
        "amin" => "min",
        "amax" => "max",
        "average" => "mean",
        other => other,
    };
    if let Some(reduction) = Reduction::ALL.into_iter().find(|reduction| reduction.name() == plain) {
        return reduce(reduction, positional, named).map(Meaning::Array);
    }
    if let Some((_, parameters, also_method)) = OTHERS.iter().find(|(known, ..)| *known == name)
        && (!is_method || *also_method)
    {
        return other(name, parameters, positional, named, is_method).map(Meaning::Array);
    }
    let is_elementwise_method = !is_method || matches!(name, "round" | "conj");
    if let (Some(function), true) = (Function::named(name), is_elementwise_method) {
        if let Some((keyword, _)) = named.first() {
            return Err(unknown(&format!("argument of {name}"), keyword, &[]));
        }
        if positional.len() != function.n_operands() {
            return Err(Mistake::new(format!("{name} takes {} arguments, got {}", function.n_operands(), positional.len())));
        }
        return apply(function, &positional.iter().collect::<Vec<&Meaning>>());
    }
    Err(unknown(if is_method { "method" } else { "function" }, name, &names()))
}

fn reduce(reduction: Reduction, positional: Vec<Meaning>, named: Vec<(String, Meaning)>) -> Result<Array, Mistake> {
    let parameters = if matches!(reduction, Reduction::Var | Reduction::Std) { REDUCTION_WITH_DDOF } else { REDUCTION };
    let mut arguments = Arguments::new(reduction.name(), parameters, positional, named)?;
    let array = arguments.array("a")?;
    let axes = arguments.integers("axis")?;
    let ddof = arguments.integer("ddof")?.unwrap_or(0);
    Ok(array.reduce(reduction, axes.as_deref(), arguments.boolean("keepdims")?, ddof)?)
}

fn other(
    name: &str,
    parameters: &[&str],
    mut positional: Vec<Meaning>,
    named: Vec<(String, Meaning)>,
    is_method: bool,
) -> Result<Array, Mistake> {
    // `x.reshape(2, 3)` and `x.transpose(1, 0)` may spread their list.
    if is_method && matches!(name, "reshape" | "transpose") && positional.len() > 2 {
        let list = positional.split_off(1);
        positional.push(Meaning::List(list));
    }
    let mut arguments = Arguments::new(name, parameters, positional, named)?;
    match name {
        "zeros" | "ones" | "full" | "arange" | "linspace" | "eye" => create(name, &mut arguments),
        "zeros_like" | "ones_like" | "full_like" => like(name, &mut arguments),
        "concatenate" | "concat" | "stack" | "vstack" | "hstack" | "column_stack" => join(name, &mut arguments),
        "matmul" | "dot" | "outer" | "trace" | "diag" | "diagonal" | "linalg.norm" | "linalg.lstsq" | "linalg.solve" => {
            linalg(name, &mut arguments)
        }
        _ => reform(name, &mut arguments),
    }
}

fn create(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let (dtype, chunks) = (arguments.dtype()?, arguments.chunks()?);
    Ok(match name {
        "zeros" => Array::zeros(&arguments.shape("shape")?, dtype, &chunks)?,
        "ones" => Array::ones(&arguments.shape("shape")?, dtype, &chunks)?,
        "full" => {
            let shape = arguments.shape("shape")?;
            let value = arguments.scalar("fill_value")?.ok_or_else(|| Mistake::new("full needs its argument \"fill_value\""))?;
            Array::full(&shape, value, dtype, &chunks)?
        }
        "arange" => {
            let first = arguments.scalar("start")?;
            let (start, stop) = match (first, arguments.scalar("stop")?) {
                (Some(start), Some(stop)) => (start, stop),
                (Some(stop), None) | (None, Some(stop)) => (Scalar::Int(0), stop),
                (None, None) => return Err(Mistake::new("arange needs its argument \"stop\"")),
            };
            Array::arange(start, stop, arguments.scalar("step")?.unwrap_or(Scalar::Int(1)), dtype, &chunks)?
        }
        "linspace" => {
            let (Some(start), Some(stop)) = (arguments.scalar("start")?, arguments.scalar("stop")?) else {
                return Err(Mistake::new("linspace needs its arguments \"start\" and \"stop\""));
            };
            let n = arguments.integer("num")?.unwrap_or(50);
            let n = usize::try_from(n).map_err(|_| Mistake::new(format!("linspace: {n} numbers")))?;
            let endpoint = arguments.take("endpoint").is_none_or(|value| !matches!(value, Meaning::Scalar(Scalar::Bool(false))));
            Array::linspace(start.to_f64(), stop.to_f64(), n, endpoint, dtype, &chunks)?
        }
        _ => {
            let size = |value: Option<i64>| {
                value.map(|value| usize::try_from(value).map_err(|_| Mistake::new(format!("eye: a size of {value}")))).transpose()
            };
            let n_rows = size(arguments.integer("N")?)?.ok_or_else(|| Mistake::new("eye needs its argument \"N\""))?;
            let n_columns = size(arguments.integer("M")?)?.unwrap_or(n_rows);
            Array::eye(n_rows, n_columns, arguments.integer("k")?.unwrap_or(0), dtype, &chunks)?
        }
    })
}

fn like(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let model = arguments.array("a")?;
    let dtype = arguments.dtype()?.unwrap_or(model.dtype());
    let value = match name {
        "zeros_like" => Scalar::Int(0),
        "ones_like" => Scalar::Int(1),
        _ => arguments.scalar("fill_value")?.ok_or_else(|| Mistake::new("full_like needs its argument \"fill_value\""))?,
    };
    if model.shape().contains(&crate::UNKNOWN) {
        // Of an array whose size only the run will tell, the model itself decides: 0 * model + value would spread NaN.
        let nothing = Array::apply(Function::LogicalAnd, &[model.into(), Scalar::Bool(false).into()])?.astype(dtype);
        return Ok(Array::apply(Function::Add, &[nothing.into(), Operand::Scalar(value)])?.astype(dtype));
    }
    Ok(Array::full(&model.shape(), value, Some(dtype), &ChunkSpec::explicit(model.chunks().to_vec()))?)
}

fn join(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let arrays = arguments.arrays("arrays")?;
    let at_least = |n_axes: usize, at_front: bool| {
        arrays
            .iter()
            .map(|array| match (array.n_axes(), at_front) {
                (0, _) if n_axes == 1 => array.expand_dims(&[0]),
                (1, true) if n_axes == 2 => array.expand_dims(&[0]),
                (1, false) if n_axes == 2 => array.expand_dims(&[1]),
                _ => Ok(array.clone()),
            })
            .collect::<Result<Vec<Array>, _>>()
    };
    Ok(match name {
        "concatenate" | "concat" => Array::concatenate(&arrays, arguments.integer("axis")?.unwrap_or(0))?,
        "stack" => Array::stack(&arrays, arguments.integer("axis")?.unwrap_or(0))?,
        "vstack" => Array::concatenate(&at_least(2, true)?, 0)?,
        "column_stack" => Array::concatenate(&at_least(2, false)?, 1)?,
        _ => {
            let axis = i64::from(arrays.first().is_some_and(|array| array.n_axes() > 1));
            Array::concatenate(&at_least(1, true)?, axis)?
        }
    })
}

fn linalg(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let a = arguments.array("a")?;
    Ok(match name {
        "matmul" => a.matmul(&arguments.array("b")?)?,
        "dot" => {
            let b = arguments.array("b")?;
            if a.n_axes() == 0 || b.n_axes() == 0 {
                Array::apply(Function::Multiply, &[a.into(), b.into()])?
            } else {
                a.matmul(&b)?
            }
        }
        "outer" => a.outer(&arguments.array("b")?)?,
        "trace" => a.trace()?,
        "diag" | "diagonal" => a.diag()?,
        "linalg.norm" => {
            if arguments.take("ord").is_some_and(|ord| {
                !matches!(&ord, Meaning::Scalar(Scalar::Int(2))) && !matches!(&ord, Meaning::Text(text) if text == "fro")
            }) {
                return Err(Mistake::new("linalg.norm computes the Euclidean norm only"));
            }
            let axes = arguments.integers("axis")?;
            a.norm(axes.as_deref(), arguments.boolean("keepdims")?)?
        }
        "linalg.solve" => a.solve(&arguments.array("b")?)?,
        _ => a.lstsq(&arguments.array("b")?)?,
    })
}

fn reform(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let a = arguments.array("a")?;
    Ok(match name {
        "array" | "asarray" => arguments.dtype()?.map_or(a.clone(), |dtype| a.astype(dtype)),
        "astype" => a.astype(arguments.dtype()?.unwrap_or(DType::F64)),
        "clip" => {
            let low = arguments.operand("a_min")?.or(arguments.operand("min")?);
            let high = arguments.operand("a_max")?.or(arguments.operand("max")?);
            a.clip(low.as_ref(), high.as_ref())?
        }
        "transpose" | "permute_dims" => a.transpose(arguments.integers("axes")?.as_deref())?,
        "swapaxes" => {
            let (Some(first), Some(second)) = (arguments.integer("axis1")?, arguments.integer("axis2")?) else {
                return Err(Mistake::new("swapaxes needs two axes"));
            };
            a.swapaxes(first, second)?
        }
        "expand_dims" => {
            a.expand_dims(&arguments.integers("axis")?.ok_or_else(|| Mistake::new("expand_dims needs its argument \"axis\""))?)?
        }
        "squeeze" => a.squeeze(arguments.integers("axis")?.as_deref())?,
        "reshape" => {
            a.reshape(&arguments.integers("shape")?.ok_or_else(|| Mistake::new("reshape needs its argument \"shape\""))?)?
        }
        "rechunk" => a.rechunk(&arguments.chunks()?)?,
        _ => a.ravel()?,
    })
}
