//! Families of tasks: the variables of `for`, and the templates `{i}`, `{i*250+250}` that differ from member to member.
//!
//! A template that is nothing but one `{...}` keeps its type; inside a longer string it becomes text; `{{` and `}}` write
//! braces. Formulas are integer arithmetic with Python's `//` and `%`, compiled once a family.

use serde_json::{Map, Value as Json};

use super::diagnostic::{Problems, did_you_mean};
use super::document::{Entry, Node, Raw};
use super::values::to_json;
use crate::expression::Span;

/// Most tasks that the families of one file may declare.
pub(super) const MAX_MEMBERS: u64 = crate::limits::MAX_FILE_TASKS;

/// One value of a variable.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Text(String),
}

/// The variables of a family, slowest first, with their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Loops(pub(super) Vec<(String, Vec<Value>)>);

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(i64),
    Variable(usize),
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    /// In postfix order.
    Formula(Vec<Step>),
}

/// A string with formulas in it.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Piece>);

/// Arguments that differ from member to member.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Fixed(Json),
    Template(Template),
    List(Vec<Pattern>),
    Table(Vec<(String, Pattern)>),
}

impl Loops {
    /// The variables of a `for` table. Its kinds are checked already.
    pub(super) fn read(entries: &[Entry<'_>]) -> Self {
        let values = |node: &Node<'_>| match &node.value {
            Raw::Integer(count) => (0..*count).map(Value::Integer).collect(),
            Raw::List(items) => items.iter().filter_map(loop_value).collect(),
            Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::Text(_) | Raw::Table(_) => Vec::new(),
        };
        Self(entries.iter().map(|entry| (entry.key.to_string(), values(&entry.node))).collect())
    }

    /// Number of members a `for` table asks for, without making their values.
    pub(super) fn count(entries: &[Entry<'_>]) -> u64 {
        let count = |entry: &Entry<'_>| match &entry.node.value {
            Raw::Integer(count) => u64::try_from(*count).unwrap_or(0),
            Raw::List(items) => items.len() as u64,
            Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::Text(_) | Raw::Table(_) => 0,
        };
        let counts: Vec<u64> = entries.iter().map(count).collect();
        // A family with an empty variable is empty, however many values the others have.
        if counts.contains(&0) { 0 } else { counts.into_iter().fold(1, u64::saturating_mul) }
    }

    /// The values of all variables for each member, the last variable fastest.
    pub(super) fn members(&self) -> impl Iterator<Item = Vec<Value>> + '_ {
        let count: usize = self.0.iter().map(|(_, values)| values.len()).product();
        (0..count).map(|member| {
            let mut rest = member;
            let mut values: Vec<Value> = Vec::with_capacity(self.0.len());
            for (_, choices) in self.0.iter().rev() {
                values.push(choices[rest % choices.len()].clone());
                rest /= choices.len();
            }
            values.reverse();
            values
        })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }
}

fn loop_value(node: &Node<'_>) -> Option<Value> {
    match &node.value {
        Raw::Integer(value) => Some(Value::Integer(*value)),
        Raw::Text(text) => Some(Value::Text(text.to_string())),
        Raw::Null | Raw::Boolean(_) | Raw::Float(_) | Raw::List(_) | Raw::Table(_) => None,
    }
}

/// What a family's templates may use.
pub(super) struct Scope<'a> {
    pub(super) loops: &'a Loops,
    pub(super) params: &'a [(String, Json)],
}

impl Template {
    /// Compile `text`, the value of the string at `span`. `None` after a mistake, which is reported.
    pub(super) fn compile(text: &str, span: Span, scope: &Scope<'_>, problems: &mut Problems) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find(['{', '}']) {
            let start = at + found;
            literal.push_str(&text[at..start]);
            let brace = &text[start..=start];
            if text[start + 1..].starts_with(brace) {
                literal.push_str(brace);
                at = start + 2;
                continue;
            }
            let here = problems.source.within(span, Span::new(start, start + 1));
            let end = text[start..].find('}').filter(|_| brace == "{");
            let Some(length) = end else {
                problems.hinted(
                    here,
                    format!("this \"{brace}\" has no partner"),
                    "in a family a plain brace is written {{ or }}",
                );
                return None;
            };
            let formula = &text[start + 1..start + length];
            match (Compiler { text: formula, at: 0, depth: 0, scope, steps: Vec::new() }).compile() {
                Ok(steps) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Formula(steps));
                }
                Err((offset, message, hint)) => {
                    let offset = start + 1 + offset;
                    let here = problems.source.within(span, Span::new(offset, offset + 1));
                    problems.error_with(here, message, hint);
                    return None;
                }
            }
            at = start + length + 1;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Some(Self(pieces))
    }

    /// The variables used.
    pub(super) fn variables(&self) -> Vec<usize> {
        let steps = self.0.iter().flat_map(|piece| match piece {
            Piece::Literal(_) => &[][..],
            Piece::Formula(steps) => steps,
        });
        steps.filter_map(|step| if let Step::Variable(at) = step { Some(*at) } else { None }).collect()
    }

    /// The string for one member.
    pub(super) fn text(&self, values: &[Value]) -> Result<String, String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Formula(steps) => match evaluate(steps, values)? {
                    Value::Integer(value) => text.push_str(&value.to_string()),
                    Value::Text(value) => text.push_str(&value),
                },
            }
        }
        Ok(text)
    }

    fn json(&self, values: &[Value]) -> Result<Json, String> {
        match &self.0[..] {
            [Piece::Formula(steps)] => Ok(match evaluate(steps, values)? {
                Value::Integer(value) => Json::from(value),
                Value::Text(value) => Json::from(value),
            }),
            _ => self.text(values).map(Json::from),
        }
    }
}

impl Pattern {
    /// Compile the arguments below `node`; parts without formulas are fixed.
    pub(super) fn compile(node: &Node<'_>, scope: &Scope<'_>, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Raw::Text(text) if text.contains(['{', '}']) => {
                let template = Template::compile(text, node.span, scope, problems)?;
                match &template.0[..] {
                    [Piece::Literal(text)] => Some(Pattern::Fixed(Json::from(text.clone()))),
                    _ => Some(Pattern::Template(template)),
                }
            }
            Raw::List(items) => {
                let items: Option<Vec<Pattern>> = items.iter().map(|item| Self::compile(item, scope, problems)).collect();
                let items = items?;
                let fixed: Option<Vec<Json>> = items.iter().map(Self::fixed).collect();
                Some(fixed.map_or(Pattern::List(items), |fixed| Pattern::Fixed(Json::Array(fixed))))
            }
            Raw::Table(entries) => {
                let mut table = Vec::with_capacity(entries.len());
                for entry in entries {
                    table.push((entry.key.to_string(), Self::compile(&entry.node, scope, problems)?));
                }
                let fixed: Option<Map<String, Json>> =
                    table.iter().map(|(key, value)| value.fixed().map(|value| (key.clone(), value))).collect();
                Some(fixed.map_or(Pattern::Table(table), |fixed| Pattern::Fixed(Json::Object(fixed))))
            }
            Raw::Text(_) | Raw::Null | Raw::Boolean(_) | Raw::Integer(_) | Raw::Float(_) => {
                to_json(node, problems).map(Pattern::Fixed)
            }
        }
    }

    /// The value, when it is the same for all members.
    pub(super) fn fixed(&self) -> Option<Json> {
        if let Pattern::Fixed(value) = self { Some(value.clone()) } else { None }
    }

    /// The value for one member.
    pub(super) fn json(&self, values: &[Value]) -> Result<Json, String> {
        match self {
            Pattern::Fixed(value) => Ok(value.clone()),
            Pattern::Template(template) => template.json(values),
            Pattern::List(items) => items.iter().map(|item| item.json(values)).collect::<Result<_, _>>().map(Json::Array),
            Pattern::Table(entries) => {
                let entries = entries.iter().map(|(key, value)| value.json(values).map(|value| (key.clone(), value)));
                entries.collect::<Result<_, _>>().map(Json::Object)
            }
        }
    }
}

/// Evaluate a formula for one member.
fn evaluate(steps: &[Step], values: &[Value]) -> Result<Value, String> {
    if let [Step::Variable(at)] = steps {
        return Ok(values[*at].clone());
    }
    let mut stack: Vec<i64> = Vec::new();
    for step in steps {
        let result = match step {
            Step::Push(value) => Some(*value),
            Step::Variable(at) => match &values[*at] {
                Value::Integer(value) => Some(*value),
                Value::Text(text) => return Err(format!("\"{text}\" is not an integer to calculate with")),
            },
            Step::Negate => stack.pop().and_then(i64::checked_neg),
            Step::Add | Step::Subtract | Step::Multiply | Step::Divide | Step::Remainder => {
                let (right, left) = (stack.pop().unwrap_or(0), stack.pop().unwrap_or(0));
                if right == 0 && matches!(step, Step::Divide | Step::Remainder) {
                    return Err("division by zero".to_owned());
                }
                apply(*step, left, right)
            }
        };
        stack.push(result.ok_or("the result does not fit 64 bits")?);
    }
    Ok(Value::Integer(stack.pop().unwrap_or(0)))
}

/// Quotient and remainder are Python's: rounded down, the remainder with the sign of the divisor.
fn apply(step: Step, left: i64, right: i64) -> Option<i64> {
    let rounds_up = |remainder: i64| remainder != 0 && (remainder < 0) != (right < 0);
    match step {
        Step::Add => left.checked_add(right),
        Step::Subtract => left.checked_sub(right),
        Step::Multiply => left.checked_mul(right),
        Step::Divide => left.checked_div(right)?.checked_sub(i64::from(rounds_up(left.checked_rem(right)?))),
        Step::Remainder => {
            let remainder = left.checked_rem(right)?;
            if rounds_up(remainder) { remainder.checked_add(right) } else { Some(remainder) }
        }
        Step::Push(_) | Step::Variable(_) | Step::Negate => None,
    }
}

type Mistake = (usize, String, Option<String>);

/// Compiles one formula by recursive descent, at most 32 levels deep.
struct Compiler<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    scope: &'a Scope<'a>,
    steps: Vec<Step>,
}

impl Compiler<'_> {
    fn compile(mut self) -> Result<Vec<Step>, Mistake> {
        self.sum()?;
        if self.peek().is_some() { Err(self.unexpected()) } else { Ok(self.steps) }
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn unexpected(&mut self) -> Mistake {
        let hint = "formulas have integers, variables, + - * // % and parentheses; a plain brace is written {{";
        let found = self.peek().map_or("the end".to_owned(), |c| format!("`{c}`"));
        (self.at, format!("unexpected {found} in a formula"), Some(hint.to_owned()))
    }

    fn sum(&mut self) -> Result<(), Mistake> {
        self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.at += 1;
            self.product()?;
            self.steps.push(if operator == '+' { Step::Add } else { Step::Subtract });
        }
        Ok(())
    }

    fn product(&mut self) -> Result<(), Mistake> {
        self.factor()?;
        while let Some(operator @ ('*' | '/' | '%')) = self.peek() {
            if operator == '/' && !self.text[self.at..].starts_with("//") {
                let hint = "// divides and rounds down";
                return Err((self.at, "formulas have no / because they are integers".to_owned(), Some(hint.to_owned())));
            }
            self.at += if operator == '/' { 2 } else { 1 };
            self.factor()?;
            self.steps.push(match operator {
                '*' => Step::Multiply,
                '/' => Step::Divide,
                _ => Step::Remainder,
            });
        }
        Ok(())
    }

    fn factor(&mut self) -> Result<(), Mistake> {
        if self.depth == 32 {
            return Err((self.at, "the formula nests deeper than 32 levels".to_owned(), None));
        }
        self.depth += 1;
        match self.peek() {
            Some('-') => {
                self.at += 1;
                self.factor()?;
                self.steps.push(Step::Negate);
            }
            Some('(') => {
                self.at += 1;
                self.sum()?;
                if self.peek() != Some(')') {
                    return Err(self.unexpected());
                }
                self.at += 1;
            }
            Some(first) if first.is_ascii_digit() => self.integer()?,
            Some(first) if first.is_alphabetic() || first == '_' => self.name()?,
            Some(_) | None => return Err(self.unexpected()),
        }
        self.depth -= 1;
        Ok(())
    }

    fn word(&self) -> &str {
        let rest = &self.text[self.at..];
        &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())]
    }

    fn integer(&mut self) -> Result<(), Mistake> {
        let word = self.word();
        let length = word.len();
        let value = word.replace('_', "").parse().map_err(|_| (self.at, format!("malformed integer {word}"), None))?;
        self.steps.push(Step::Push(value));
        self.at += length;
        Ok(())
    }

    /// A variable of the family, or an integer parameter.
    fn name(&mut self) -> Result<(), Mistake> {
        let word = self.word().to_owned();
        let param = self.scope.params.iter().find(|(name, _)| *name == word).and_then(|(_, value)| value.as_i64());
        let step = match (self.scope.loops.position(&word), param) {
            (Some(at), _) => Step::Variable(at),
            (None, Some(value)) => Step::Push(value),
            (None, None) => {
                let known = || self.scope.loops.0.iter().map(|(name, _)| name.as_str());
                let all = format!("the variables are {}; a plain brace is written {{{{", known().collect::<Vec<_>>().join(", "));
                return Err((self.at, format!("unknown variable \"{word}\""), did_you_mean(&word, known()).or(Some(all))));
            }
        };
        self.steps.push(step);
        self.at += word.len();
        Ok(())
    }
}
