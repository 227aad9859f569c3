//! What the functions and methods of expressions do, by NumPy's names and with its keywords.

use super::arguments::Arguments;
use super::{Meaning, Mistake, apply, numbers, numpy_names};
use crate::array::{Array, Operand};
use crate::chunk::Chunk;
use crate::chunking::ChunkSpec;
use crate::dtype::DType;
use crate::function::{Function, common_type};
use crate::kernels::reduce::Reduction;
use crate::kernels::scan::Scan;
use crate::scalar::Scalar;

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
    ("tensordot", &["a", "b", "axes"], false),
    ("outer", &["a", "b"], false),
    ("cumsum", &["a", "axis"], true),
    ("cumprod", &["a", "axis"], true),
    ("diff", &["a", "n", "axis"], false),
    ("repeat", &["a", "repeats", "axis"], true),
    ("tile", &["a", "reps"], false),
    ("trace", &["a"], true),
    ("diag", &["a"], false),
    ("diagonal", &["a"], true),
    ("linalg.norm", &["a", "ord", "axis", "keepdims"], false),
    ("linalg.lstsq", &["a", "b", "rcond"], false),
    ("linalg.solve", &["a", "b"], false),
];

/// Reductions of what is not NaN that are made of others; functions only.
const NAN_REDUCTIONS: [(&str, Reduction); 5] = [
    ("nansum", Reduction::Sum),
    ("nanprod", Reduction::Prod),
    ("nanmean", Reduction::Mean),
    ("nanvar", Reduction::Var),
    ("nanstd", Reduction::Std),
];

const REDUCTION: &[&str] = &["a", "axis", "keepdims"];
const REDUCTION_WITH_DDOF: &[&str] = &["a", "axis", "ddof", "keepdims"];

/// Every name that can be called.
fn names(is_method: bool) -> Vec<&'static str> {
    let reductions =
        Reduction::ALL.iter().map(|reduction| reduction.name()).filter(|name| !(is_method && name.starts_with("nan")));
    let others = OTHERS.iter().filter(|(.., also_method)| *also_method || !is_method).map(|(name, ..)| *name);
    if is_method {
        return others.chain(reductions).chain(["round"]).collect();
    }
    let functions = Function::ALL.iter().map(|function| function.name());
    others
        .chain(functions)
        .chain(reductions)
        .chain(NAN_REDUCTIONS.map(|(name, _)| name))
        .chain(["abs", "amin", "amax", "average", "divmod", "gradient", "positive"])
        .collect()
}

/// What is asked for by a name that is not there.
#[derive(Clone, Copy)]
pub(super) enum Sought<'a> {
    Function,
    Method,
    Attribute,
    /// Of this function.
    Argument(&'a str),
}

impl Sought<'_> {
    /// NumPy's names of that sort.
    fn of_numpy(self) -> &'static [&'static str] {
        match self {
            Sought::Function => &numpy_names::FUNCTIONS,
            Sought::Method => &numpy_names::METHODS,
            Sought::Attribute => &numpy_names::ATTRIBUTES,
            Sought::Argument(_) => &numpy_names::ARGUMENTS,
        }
    }

    fn describe(self) -> String {
        match self {
            Sought::Function => "function".to_owned(),
            Sought::Method => "method".to_owned(),
            Sought::Attribute => "attribute".to_owned(),
            Sought::Argument(function) => format!("argument of {function}"),
        }
    }
}

/// How many letters are changed, missing, too many or exchanged.
fn distance(name: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase())
}

/// The nearest of `known` to `name`, if it is so near that it can be a slip of the fingers: one letter in four.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<(usize, &'a str)> {
    let best = known.iter().map(|&other| (distance(name, other), other)).min()?;
    (best.0 <= (name.chars().count() / 4).clamp(1, 2)).then_some(best)
}

/// Complain about a name. What NumPy has under it is not supported yet, and then nothing else is meant; otherwise the nearest
/// name is suggested, if it is near and nothing of NumPy's is nearer.
pub(super) fn unknown(sought: Sought<'_>, name: &str, known: &[&str]) -> Mistake {
    let what = sought.describe();
    if sought.of_numpy().contains(&name) {
        return Mistake::new(format!("the {what} \"{name}\" is not supported yet"));
    }
    let hint = match (nearest(name, known), nearest(name, sought.of_numpy())) {
        (Some((near, own)), numpys) if numpys.is_none_or(|(other, _)| near <= other) => Some(format!("did you mean \"{own}\"?")),
        (_, Some((_, numpys))) if !known.contains(&numpys) => Some(format!("NumPy has \"{numpys}\", which is not supported yet")),
        _ => None,
    };
    Mistake { message: format!("unknown {what} \"{name}\""), hint }
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
        Meaning::List(items) => literal(items, None),
        Meaning::Nothing | Meaning::Text(_) => Err(Mistake::new(format!("an array is needed, got {}", meaning.describe()))),
    }
}

/// An array of numbers written out; each must be an element of its type.
fn literal(items: &[Meaning], dtype: Option<DType>) -> Result<Array, Mistake> {
    let mut numbers = Vec::new();
    let mut shape = Vec::new();
    flatten(items, 0, &mut shape, &mut numbers)?;
    let kinds: Vec<_> = numbers.iter().map(|scalar| crate::function::OperandType::Weak(*scalar)).collect();
    let dtype = dtype.unwrap_or_else(|| common_type(&kinds));
    for number in &numbers {
        dtype.check_holds(*number)?;
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|scalar| scalar.to_bytes(dtype)).collect();
    let chunk = Chunk::from_bytes(dtype, shape, bytes.into()).map_err(Mistake::new)?;
    Ok(Array::from_chunk(chunk, &ChunkSpec::default())?)
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

/// A function of numbers alone: by Python's arithmetic, or at once by the kernel that would compute it later.
pub(super) fn fold_constants(function: Function, operands: &[Operand]) -> Result<Meaning, Mistake> {
    let scalars: Vec<Scalar> = operands
        .iter()
        .filter_map(|operand| match operand {
            Operand::Scalar(scalar) => Some(*scalar),
            Operand::Array(_) => None,
        })
        .collect();
    if let Some(outcome) = numbers::compute(function, &scalars) {
        return outcome.map(Meaning::Scalar);
    }
    // An integer that is no element of any type is a float to the functions that come here.
    let settled = |scalar: &Scalar| match scalar {
        Scalar::Int(value) if !scalar.dtype().can_hold(*value) => Scalar::Float(scalar.to_f64()),
        Scalar::Bool(_) | Scalar::Int(_) | Scalar::Float(_) => *scalar,
    };
    let chunks: Vec<Chunk> = scalars.iter().map(settled).map(|scalar| Chunk::scalar(scalar.dtype(), scalar)).collect();
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
    let is_there = |reduction: &Reduction| reduction.name() == plain && !(is_method && plain.starts_with("nan"));
    if let Some(reduction) = Reduction::ALL.into_iter().find(is_there) {
        return reduce(name, reduction, false, positional, named).map(Meaning::Array);
    }
    if let Some((_, reduction)) = NAN_REDUCTIONS.into_iter().find(|(own, _)| *own == name && !is_method) {
        return reduce(name, reduction, true, positional, named).map(Meaning::Array);
    }
    if let Some((_, parameters, also_method)) = OTHERS.iter().find(|(known, ..)| *known == name)
        && (!is_method || *also_method)
    {
        return other(name, parameters, positional, named, is_method).map(Meaning::Array);
    }
    if name == "divmod" && !is_method {
        let both = ["floor_divide", "remainder"].map(|part| call(part, positional.clone(), named.clone(), false));
        return both.into_iter().collect::<Result<Vec<Meaning>, Mistake>>().map(Meaning::List);
    }
    if name == "gradient" && !is_method {
        return gradient(positional, named);
    }
    if name == "positive" && !is_method {
        let [operand] = &positional[..] else { return Err(Mistake::new("positive takes 1 argument")) };
        return super::positive(operand);
    }
    let is_elementwise_method = !is_method || name == "round";
    if let (Some(function), true) = (Function::named(name), is_elementwise_method) {
        if let Some((keyword, _)) = named.first() {
            return Err(unknown(Sought::Argument(name), keyword, &[]));
        }
        if positional.len() != function.n_operands() {
            let n = function.n_operands();
            let arguments = if n == 1 { "argument" } else { "arguments" };
            return Err(Mistake::new(format!("{name} takes {n} {arguments}, got {}", positional.len())));
        }
        return apply(function, &positional.iter().collect::<Vec<&Meaning>>());
    }
    Err(unknown(if is_method { Sought::Method } else { Sought::Function }, name, &names(is_method)))
}

fn reduce(
    name: &str,
    reduction: Reduction,
    without_nan: bool,
    positional: Vec<Meaning>,
    named: Vec<(String, Meaning)>,
) -> Result<Array, Mistake> {
    let parameters = if matches!(reduction, Reduction::Var | Reduction::Std) { REDUCTION_WITH_DDOF } else { REDUCTION };
    let mut arguments = Arguments::new(name, parameters, positional, named)?;
    let array = arguments.array("a")?;
    let axes = arguments.integers("axis")?;
    let ddof = arguments.integer("ddof")?.unwrap_or(0);
    let keepdims = arguments.boolean("keepdims")?;
    Ok(if without_nan {
        array.nan_reduce(reduction, axes.as_deref(), keepdims, ddof)?
    } else {
        array.reduce(reduction, axes.as_deref(), keepdims, ddof)?
    })
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
        "array" | "asarray" => written(&mut arguments),
        "zeros" | "ones" | "full" | "arange" | "linspace" | "eye" => create(name, &mut arguments),
        "zeros_like" | "ones_like" | "full_like" => like(name, &mut arguments),
        "concatenate" | "concat" | "stack" | "vstack" | "hstack" | "column_stack" => join(name, &mut arguments),
        "matmul" | "dot" | "tensordot" | "outer" | "trace" | "diag" | "diagonal" | "linalg.norm" | "linalg.lstsq"
        | "linalg.solve" => linalg(name, &mut arguments),
        "cumsum" | "cumprod" | "diff" | "repeat" | "tile" => again(name, &mut arguments),
        _ => reform(name, &mut arguments),
    }
}

/// Slopes along one axis, or a list of them along each.
fn gradient(positional: Vec<Meaning>, named: Vec<(String, Meaning)>) -> Result<Meaning, Mistake> {
    let mut arguments = Arguments::new("gradient", &["f", "spacing", "axis"], positional, named)?;
    let array = arguments.array("f")?;
    let spacing = arguments.scalar("spacing")?.map_or(1.0, Scalar::to_f64);
    let axes = arguments.integers("axis")?.unwrap_or_else(|| (0..array.n_axes() as i64).collect());
    let slopes = axes.iter().map(|&axis| -> Result<Meaning, Mistake> { Ok(Meaning::Array(array.gradient(spacing, axis)?)) });
    let mut slopes = slopes.collect::<Result<Vec<Meaning>, Mistake>>()?;
    match slopes.pop() {
        None => Err(Mistake::new("gradient needs an axis")),
        Some(only) if slopes.is_empty() => Ok(only),
        Some(last) => {
            slopes.push(last);
            Ok(Meaning::List(slopes))
        }
    }
}

/// Functions that take elements more than once.
fn again(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let a = arguments.array("a")?;
    let count = |n: i64| usize::try_from(n).map_err(|_| Mistake::new(format!("{name}: {n} times")));
    Ok(match name {
        "cumsum" => a.scan(Scan::Sum, arguments.integer("axis")?)?,
        "cumprod" => a.scan(Scan::Product, arguments.integer("axis")?)?,
        "diff" => a.diff(count(arguments.integer("n")?.unwrap_or(1))?, arguments.integer("axis")?.unwrap_or(-1))?,
        "repeat" => {
            let n = arguments.integer("repeats")?.ok_or_else(|| Mistake::new("repeat needs its argument \"repeats\""))?;
            a.repeat(count(n)?, arguments.integer("axis")?)?
        }
        _ => {
            let counts = arguments.integers("reps")?.ok_or_else(|| Mistake::new("tile needs its argument \"reps\""))?;
            a.tile(&counts.into_iter().map(count).collect::<Result<Vec<usize>, Mistake>>()?)?
        }
    })
}

/// `array(..)`: numbers written out must be elements of the type; an array is converted.
fn written(arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let dtype = arguments.dtype()?;
    let value = arguments.need("a")?;
    match (&value, dtype) {
        (Meaning::List(items), Some(_)) if !items.iter().any(Meaning::has_array) => literal(items, dtype),
        (Meaning::Scalar(scalar), Some(_)) => Ok(Array::full(&[], *scalar, dtype, &ChunkSpec::default())?),
        (_, Some(dtype)) => Ok(to_array(&value)?.astype(dtype)?),
        (_, None) => to_array(&value),
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
            Array::linspace(start, stop, n, endpoint, dtype, &chunks)?
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
        let nothing = Array::apply(Function::LogicalAnd, &[model.into(), false.into()])?.astype(dtype)?;
        dtype.check_holds(value)?;
        return Ok(Array::apply(Function::Add, &[nothing.into(), Operand::Scalar(value)])?.astype(dtype)?);
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
        "dot" => a.dot(&arguments.array("b")?)?,
        "tensordot" => {
            let b = arguments.array("b")?;
            let (own, other) = contracted(arguments.take("axes"), &a, &b)?;
            a.tensordot(&b, &own, &other)?
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

/// The pairs of axes that `tensordot` sums over: the last of one and the first of the other, or those of two lists.
fn contracted(axes: Option<Meaning>, a: &Array, b: &Array) -> Result<(Vec<i64>, Vec<i64>), Mistake> {
    let integers = |meaning: &Meaning| -> Option<Vec<i64>> {
        match meaning {
            Meaning::Scalar(Scalar::Int(axis)) => Some(vec![i64::try_from(*axis).ok()?]),
            Meaning::List(items) => items
                .iter()
                .map(|item| if let Meaning::Scalar(Scalar::Int(axis)) = item { i64::try_from(*axis).ok() } else { None })
                .collect(),
            Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) => None,
        }
    };
    let found = match &axes {
        None => Some(2),
        Some(Meaning::Scalar(Scalar::Int(n))) => i64::try_from(*n).ok(),
        Some(_) => None,
    };
    if let Some(n) = found {
        let most = a.n_axes().min(b.n_axes()) as i64;
        if !(0..=most).contains(&n) {
            return Err(Mistake::new(format!("tensordot: {n} axes, the smaller array has {most}")));
        }
        let n_own = a.n_axes() as i64;
        return Ok(((n_own - n..n_own).collect(), (0..n).collect()));
    }
    match &axes {
        Some(Meaning::List(pair)) if pair.len() == 2 => integers(&pair[0]).zip(integers(&pair[1])),
        _ => None,
    }
    .ok_or_else(|| Mistake::new("tensordot: \"axes\" is a number of axes or two lists of them"))
}

fn reform(name: &str, arguments: &mut Arguments<'_>) -> Result<Array, Mistake> {
    let a = arguments.array("a")?;
    Ok(match name {
        "astype" => a.astype(arguments.dtype()?.unwrap_or(DType::F64))?,
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
