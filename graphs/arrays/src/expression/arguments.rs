//! Arguments of a call: matched to parameters by position and by name, as Python does, and read as what is wanted.

use super::{Meaning, Mistake, functions, types};
use crate::array::{Array, Operand};
use crate::chunking::{AutoWord, AxisChunks, ChunkSpec};
use crate::dtype::DType;
use crate::scalar::Scalar;

/// The arguments of one call, taken out one by one.
pub(super) struct Arguments<'a> {
    function: &'a str,
    parameters: &'a [&'a str],
    values: Vec<Option<Meaning>>,
}

impl<'a> Arguments<'a> {
    /// Match arguments to `parameters`.
    pub(super) fn new(
        function: &'a str,
        parameters: &'a [&'a str],
        positional: Vec<Meaning>,
        named: Vec<(String, Meaning)>,
    ) -> Result<Self, Mistake> {
        if positional.len() > parameters.len() {
            return Err(Mistake::new(format!(
                "{function} takes at most {} arguments, got {}",
                parameters.len(),
                positional.len()
            )));
        }
        let mut values: Vec<Option<Meaning>> = positional.into_iter().map(Some).collect();
        values.resize_with(parameters.len(), || None);
        for (name, value) in named {
            let Some(at) = parameters.iter().position(|parameter| *parameter == name) else {
                return Err(functions::unknown(functions::Sought::Argument(function), &name, parameters));
            };
            if values[at].is_some() {
                return Err(Mistake::new(format!("{function} got \"{name}\" twice")));
            }
            values[at] = Some(value);
        }
        Ok(Self { function, parameters, values })
    }

    /// The argument called `name`; `None` when it was not given or is Python's None.
    pub(super) fn take(&mut self, name: &str) -> Option<Meaning> {
        let at = self.parameters.iter().position(|parameter| *parameter == name)?;
        self.values[at].take().filter(|value| !matches!(value, Meaning::Nothing))
    }

    /// The argument called `name`, which has to be there.
    pub(super) fn need(&mut self, name: &str) -> Result<Meaning, Mistake> {
        self.take(name).ok_or_else(|| Mistake::new(format!("{} needs its argument \"{name}\"", self.function)))
    }

    fn wrong(&self, name: &str, wanted: &str, got: &Meaning) -> Mistake {
        Mistake::new(format!("{}: \"{name}\" is {wanted}, got {}", self.function, got.describe()))
    }

    pub(super) fn array(&mut self, name: &str) -> Result<Array, Mistake> {
        functions::to_array(&self.need(name)?)
    }

    pub(super) fn arrays(&mut self, name: &str) -> Result<Vec<Array>, Mistake> {
        match self.need(name)? {
            Meaning::List(items) => items.iter().map(functions::to_array).collect(),
            other @ (Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_)) => {
                Err(self.wrong(name, "a list of arrays", &other))
            }
        }
    }

    pub(super) fn operand(&mut self, name: &str) -> Result<Option<Operand>, Mistake> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.operand().map(Some).ok_or_else(|| self.wrong(name, "an array or a number", &value)),
        }
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, Mistake> {
        match self.take(name) {
            None => Ok(None),
            Some(Meaning::Scalar(Scalar::Int(value))) => self.fitting(name, value).map(Some),
            Some(other) => Err(self.wrong(name, "an integer", &other)),
        }
    }

    fn fitting(&self, name: &str, value: i128) -> Result<i64, Mistake> {
        i64::try_from(value).map_err(|_| Mistake::new(format!("{}: \"{name}\" is {value}, which is too large", self.function)))
    }

    pub(super) fn scalar(&mut self, name: &str) -> Result<Option<Scalar>, Mistake> {
        match self.take(name) {
            None => Ok(None),
            Some(Meaning::Scalar(value)) => Ok(Some(value)),
            Some(other) => Err(self.wrong(name, "a number", &other)),
        }
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<bool, Mistake> {
        match self.take(name) {
            None => Ok(false),
            Some(Meaning::Scalar(Scalar::Bool(value))) => Ok(value),
            Some(other) => Err(self.wrong(name, "True or False", &other)),
        }
    }

    /// One integer or a list of them.
    pub(super) fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, Mistake> {
        match self.take(name) {
            None => Ok(None),
            Some(Meaning::Scalar(Scalar::Int(value))) => Ok(Some(vec![self.fitting(name, value)?])),
            Some(Meaning::List(items)) => items
                .iter()
                .map(|item| match item {
                    Meaning::Scalar(Scalar::Int(value)) => self.fitting(name, *value),
                    Meaning::Array(_) | Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) | Meaning::List(_) => {
                        Err(self.wrong(name, "integers", item))
                    }
                })
                .collect::<Result<Vec<i64>, Mistake>>()
                .map(Some),
            Some(other) => Err(self.wrong(name, "an integer or a list of integers", &other)),
        }
    }

    /// Sizes of a new array's axes.
    pub(super) fn shape(&mut self, name: &str) -> Result<Vec<usize>, Mistake> {
        let sizes =
            self.integers(name)?.ok_or_else(|| Mistake::new(format!("{} needs its argument \"{name}\"", self.function)))?;
        sizes
            .into_iter()
            .map(|size| usize::try_from(size).map_err(|_| Mistake::new(format!("{}: a size of {size}", self.function))))
            .collect()
    }

    pub(super) fn dtype(&mut self) -> Result<Option<DType>, Mistake> {
        match self.take("dtype") {
            None => Ok(None),
            Some(Meaning::Text(name)) => {
                let fill = self.parameters.iter().position(|parameter| *parameter == "fill_value");
                let value = fill.and_then(|at| self.values[at].as_ref());
                let value = if let Some(Meaning::Scalar(value)) = value { Some(*value) } else { None };
                types::named(&name, value).map(Some)
            }
            Some(other) => Err(self.wrong("dtype", "a type's name", &other)),
        }
    }

    pub(super) fn chunks(&mut self) -> Result<ChunkSpec, Mistake> {
        let axis = |value: &Meaning| match value {
            Meaning::Scalar(Scalar::Int(size)) => i64::try_from(*size).ok().map(AxisChunks::Size),
            Meaning::Text(text) if text == "auto" => Some(AxisChunks::Auto(AutoWord::Auto)),
            Meaning::List(sizes) => sizes
                .iter()
                .map(|size| if let Meaning::Scalar(Scalar::Int(size)) = size { usize::try_from(*size).ok() } else { None })
                .collect::<Option<Vec<usize>>>()
                .map(AxisChunks::Sizes),
            Meaning::Scalar(_) | Meaning::Nothing | Meaning::Text(_) | Meaning::Array(_) => None,
        };
        let value = self.take("chunks");
        let spec = match &value {
            None => Some(ChunkSpec::default()),
            Some(Meaning::Text(text)) if text == "auto" => Some(ChunkSpec::default()),
            Some(Meaning::Scalar(Scalar::Int(size))) => i64::try_from(*size).ok().map(ChunkSpec::Size),
            Some(Meaning::List(items)) => items.iter().map(axis).collect::<Option<Vec<AxisChunks>>>().map(ChunkSpec::Axes),
            Some(_) => None,
        };
        spec.ok_or_else(|| {
            Mistake::new(format!("{}: chunks are \"auto\", a size, or a size or list of sizes for each axis", self.function))
        })
    }
}
