//! The grammar: Python's precedence over NumPy's operators, by precedence climbing.
//!
//! Recursion is bounded by [`MAX_DEPTH`], so hostile nesting is an error and no stack overflow. The parser knows which
//! words are keywords or namespaces; it does not know which functions there are.

use super::lexer::{Token, error, tokens};
use super::{
    BinaryOp, Callee, Constant, Expression, IndexItem, MAX_DEPTH, MAX_HEIGHT, MAX_NODES, NodeId, NodeKind, Span, SyntaxError,
    TYPE_NAMES, UnaryOp,
};

type Result<T> = std::result::Result<T, SyntaxError>;

struct Parser {
    tokens: Vec<(Token, Span)>,
    at: usize,
    depth: u32,
    nodes: Vec<NodeKind>,
    spans: Vec<Span>,
    heights: Vec<u32>,
    /// Brackets that are open, with where they opened: for naming the one that is never closed.
    open: Vec<(&'static str, Span)>,
}

/// Binding strengths, weakest first; unary operators and powers bind tighter than all of them.
const LEVELS: [&[(&str, BinaryOp)]; 7] = [
    &[
        ("==", BinaryOp::Equal),
        ("!=", BinaryOp::NotEqual),
        ("<", BinaryOp::Less),
        ("<=", BinaryOp::LessEqual),
        (">", BinaryOp::Greater),
        (">=", BinaryOp::GreaterEqual),
    ],
    &[("|", BinaryOp::Or)],
    &[("^", BinaryOp::Xor)],
    &[("&", BinaryOp::And)],
    &[("<<", BinaryOp::ShiftLeft), (">>", BinaryOp::ShiftRight)],
    &[("+", BinaryOp::Add), ("-", BinaryOp::Subtract)],
    &[
        ("*", BinaryOp::Multiply),
        ("/", BinaryOp::Divide),
        ("//", BinaryOp::FloorDivide),
        ("%", BinaryOp::Remainder),
        ("@", BinaryOp::MatrixMultiply),
    ],
];

const NAMESPACES: [&str; 3] = ["linalg", "fft", "random"];
const PREFIXES: [&str; 3] = ["np", "numpy", "da"];

pub(super) fn parse(text: &str) -> Result<Expression> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        nodes: Vec::new(),
        spans: Vec::new(),
        heights: Vec::new(),
        open: Vec::new(),
    };
    if parser.peek() == &Token::End {
        return Err(error(Span::new(0, text.len()), "the expression is empty", None));
    }
    parser.expression()?;
    if parser.peek() != &Token::End {
        return Err(parser.unexpected("the end"));
    }
    Ok(Expression { nodes: parser.nodes, spans: parser.spans })
}

fn keyword_hint(name: &str) -> Option<&'static str> {
    match name {
        "and" => Some("write & and put comparisons in parentheses: (x > 0) & (y > 0)"),
        "or" => Some("write | and put comparisons in parentheses: (x > 0) | (y > 0)"),
        "not" => Some("write ~ before a value in parentheses: ~(x > 0)"),
        "if" | "else" => Some("write where(condition, x, y)"),
        "for" | "in" | "is" | "lambda" | "await" => Some("expressions have operators, functions, methods and slices only"),
        _ => None,
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Integer(value) => format!("the number {value}"),
        Token::Float(value) => format!("the number {value:?}"),
        Token::Text(_) => "a string".to_owned(),
        Token::Name(name) => format!("\"{name}\""),
        Token::Symbol(symbol) => format!("\"{symbol}\""),
        Token::End => "the end of the expression".to_owned(),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn span(&self) -> Span {
        self.tokens[self.at].1
    }

    fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn follows(&self, symbol: &str) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((Token::Symbol(found), _)) if *found == symbol)
    }

    /// The last token is `End`, which is never passed.
    fn advance(&mut self) -> Span {
        let span = self.span();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        span
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let found = self.is_symbol(symbol);
        if found {
            self.advance();
        }
        found
    }

    /// The error for a token that cannot stand here; knows the usual slips.
    fn unexpected(&self, expected: &str) -> SyntaxError {
        let (token, span) = &self.tokens[self.at];
        if let Token::Name(name) = token
            && let Some(hint) = keyword_hint(name)
        {
            return error(*span, format!("\"{name}\" is not an operator here"), Some(hint));
        }
        if let Token::Symbol(closer @ (")" | "]")) = token {
            return match self.open.last() {
                Some((opener, _)) if matches!((*opener, *closer), ("(", ")") | ("[", "]")) => {
                    error(*span, format!("expected {expected}, found \"{closer}\""), None)
                }
                Some((opener, at)) => {
                    let hint = format!("\"{opener}\" was opened at character {} of the expression", at.start + 1);
                    error(*span, format!("\"{closer}\" does not close \"{opener}\""), Some(&hint))
                }
                None => error(*span, format!("\"{closer}\" closes nothing"), None),
            };
        }
        if let (Token::End, Some((opener, at))) = (token, self.open.last()) {
            return error(*at, format!("this \"{opener}\" is never closed"), None);
        }
        let hint = match token {
            Token::Symbol("=") => Some("== compares; = only names an argument inside a call"),
            Token::Symbol(",") if self.open.is_empty() => Some("a tuple is written in parentheses: (a, b)"),
            Token::Name(_) | Token::Integer(_) | Token::Float(_) if expected != "a value" => {
                Some("an operator is missing before it; multiply with *")
            }
            Token::Integer(_) | Token::Float(_) | Token::Text(_) | Token::Name(_) | Token::Symbol(_) | Token::End => None,
        };
        error(*span, format!("expected {expected}, found {}", describe(token)), hint)
    }

    fn add(&mut self, kind: NodeKind, span: Span, height: u32) -> Result<NodeId> {
        if self.nodes.len() >= MAX_NODES {
            return Err(error(span, format!("the expression has more than {MAX_NODES} parts"), None));
        }
        if height > MAX_HEIGHT {
            let hint = "give intermediate results a name with another [array.NAME]";
            return Err(error(span, format!("the expression chains more than {MAX_HEIGHT} operations"), Some(hint)));
        }
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(kind);
        self.spans.push(span);
        self.heights.push(height);
        Ok(id)
    }

    fn leaf(&mut self, kind: NodeKind) -> Result<NodeId> {
        let span = self.advance();
        self.add(kind, span, 1)
    }

    fn height(&self, ids: impl IntoIterator<Item = NodeId>) -> u32 {
        1 + ids.into_iter().map(|id| self.heights[id.index()]).max().unwrap_or(0)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(error(self.span(), format!("the expression nests deeper than {MAX_DEPTH} levels"), None));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expression(&mut self) -> Result<NodeId> {
        self.deeper(|parser| parser.binary(0))
    }

    fn operator_at(&self, level: usize) -> Option<BinaryOp> {
        let Token::Symbol(symbol) = self.peek() else { return None };
        LEVELS[level].iter().find(|(spelling, _)| spelling == symbol).map(|(_, operator)| *operator)
    }

    /// Operators of `level` and tighter. The levels are few, so this recursion needs no guard of its own.
    fn binary(&mut self, level: usize) -> Result<NodeId> {
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        let mut n_operators = 0;
        while let Some(operator) = self.operator_at(level) {
            let operator_span = self.span();
            n_operators += 1;
            if level == 0 && n_operators > 1 {
                let hint = "write (a < b) & (b < c); & binds tighter than a comparison, so each needs parentheses";
                return Err(error(operator_span, "comparisons cannot be chained", Some(hint)));
            }
            self.advance();
            let right = self.binary(level + 1)?;
            let span = self.spans[left.index()].to(self.spans[right.index()]);
            let height = self.height([left, right]);
            left = self.add(NodeKind::Binary(operator, left, right), span, height)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<NodeId> {
        let operator = match self.peek() {
            Token::Symbol("-") => UnaryOp::Negative,
            Token::Symbol("+") => UnaryOp::Positive,
            Token::Symbol("~") => UnaryOp::Invert,
            Token::Integer(_) | Token::Float(_) | Token::Text(_) | Token::Name(_) | Token::Symbol(_) | Token::End => {
                return self.power();
            }
        };
        let start = self.advance();
        let operand = self.deeper(Self::unary)?;
        let span = start.to(self.spans[operand.index()]);
        let height = self.height([operand]);
        self.add(NodeKind::Unary(operator, operand), span, height)
    }

    /// `**` binds tighter than a unary operator on its left and looser than one on its right.
    fn power(&mut self) -> Result<NodeId> {
        let base = self.postfix()?;
        if !self.accept("**") {
            return Ok(base);
        }
        let exponent = self.deeper(Self::unary)?;
        let span = self.spans[base.index()].to(self.spans[exponent.index()]);
        let height = self.height([base, exponent]);
        self.add(NodeKind::Binary(BinaryOp::Power, base, exponent), span, height)
    }

    fn postfix(&mut self) -> Result<NodeId> {
        let mut value = self.atom()?;
        loop {
            let start = self.spans[value.index()];
            if self.is_symbol(".") {
                self.advance();
                let (name, name_span) = self.name("the name of an attribute or method")?;
                value = if self.is_symbol("(") {
                    self.call(Callee::Method(value, name), start)?
                } else {
                    let height = self.height([value]);
                    self.add(NodeKind::Attribute(value, name), start.to(name_span), height)?
                };
            } else if self.is_symbol("[") {
                value = self.index(value, start)?;
            } else if self.is_symbol("(") {
                let hint = "only functions and methods can be called; multiply with *";
                return Err(error(self.span(), "this value cannot be called", Some(hint)));
            } else {
                return Ok(value);
            }
        }
    }

    fn name(&mut self, expected: &str) -> Result<(String, Span)> {
        let Token::Name(name) = self.peek() else { return Err(self.unexpected(expected)) };
        let name = name.clone();
        Ok((name, self.advance()))
    }

    fn atom(&mut self) -> Result<NodeId> {
        match self.peek().clone() {
            Token::Integer(value) => self.leaf(NodeKind::Integer(value)),
            Token::Float(value) => self.leaf(NodeKind::Float(value)),
            Token::Text(text) => self.leaf(NodeKind::Text(text)),
            Token::Name(name) => self.named(&name),
            Token::Symbol("(") => self.parenthesised(),
            Token::Symbol("[") => {
                let start = self.enter("[");
                let (items, _) = self.items("]")?;
                let span = start.to(self.leave("]")?);
                let height = self.height(items.iter().copied());
                self.add(NodeKind::List(items), span, height)
            }
            Token::Symbol("...") => Err(error(self.span(), "... can only stand in an index", None)),
            Token::Symbol(_) | Token::End => Err(self.unexpected("a value")),
        }
    }

    /// A constant, an array's name, or a function's, perhaps dotted.
    fn named(&mut self, first: &str) -> Result<NodeId> {
        if keyword_hint(first).is_some() {
            return Err(self.unexpected("a value"));
        }
        let start = self.span();
        let is_prefix = PREFIXES.contains(&first) && self.follows(".");
        let mut name = first.to_owned();
        if is_prefix {
            self.advance();
            self.advance();
            name = self.peek_name("the name of a function or constant")?;
        }
        if NAMESPACES.contains(&name.as_str()) {
            self.advance();
            if !self.accept(".") {
                return Err(error(start, format!("\"{name}\" is a family of functions, not a value"), None));
            }
            let (function, span) = self.name("the name of a function")?;
            name = format!("{name}.{function}");
            if !self.is_symbol("(") {
                return Err(error(start.to(span), format!("\"{name}\" is a function; call it: {name}(...)"), None));
            }
            return self.call(Callee::Function(name), start);
        }
        if self.follows("(") {
            self.advance();
            return self.call(Callee::Function(name), start);
        }
        let kind = match name.as_str() {
            "True" => NodeKind::Boolean(true),
            "False" => NodeKind::Boolean(false),
            "None" => NodeKind::None,
            "newaxis" => NodeKind::None,
            constant => match Constant::named(constant) {
                Some(constant) => NodeKind::Constant(constant),
                None if is_prefix && TYPE_NAMES.contains(&constant) => NodeKind::Text(constant.to_owned()),
                None if is_prefix => {
                    let message = format!("\"{first}.{name}\" is neither a constant nor a call");
                    return Err(error(start.to(self.span()), message, Some("the constants are pi, e, inf, nan and newaxis")));
                }
                None => NodeKind::Name(name),
            },
        };
        let span = start.to(self.advance());
        self.add(kind, span, 1)
    }

    fn peek_name(&self, expected: &str) -> Result<String> {
        match self.peek() {
            Token::Name(name) => Ok(name.clone()),
            Token::Integer(_) | Token::Float(_) | Token::Text(_) | Token::Symbol(_) | Token::End => {
                Err(self.unexpected(expected))
            }
        }
    }

    fn enter(&mut self, opener: &'static str) -> Span {
        let span = self.advance();
        self.open.push((opener, span));
        span
    }

    fn leave(&mut self, closer: &str) -> Result<Span> {
        if !self.is_symbol(closer) {
            return Err(self.unexpected(if closer == ")" { "\",\" or \")\"" } else { "\",\" or \"]\"" }));
        }
        self.open.pop();
        Ok(self.advance())
    }

    /// Expressions separated by commas up to `closer`, and whether a comma was seen.
    fn items(&mut self, closer: &str) -> Result<(Vec<NodeId>, bool)> {
        let mut items = Vec::new();
        let mut has_comma = false;
        while !self.is_symbol(closer) {
            items.push(self.expression()?);
            if !self.accept(",") {
                break;
            }
            has_comma = true;
        }
        Ok((items, has_comma))
    }

    fn parenthesised(&mut self) -> Result<NodeId> {
        let start = self.enter("(");
        let (items, has_comma) = self.items(")")?;
        let span = start.to(self.leave(")")?);
        match items[..] {
            // Parentheses alone make no node; the span grows so that messages show them.
            [only] if !has_comma => {
                self.spans[only.index()] = span;
                Ok(only)
            }
            _ => {
                let height = self.height(items.iter().copied());
                self.add(NodeKind::Tuple(items), span, height)
            }
        }
    }

    fn call(&mut self, callee: Callee, start: Span) -> Result<NodeId> {
        self.enter("(");
        let mut arguments = Vec::new();
        let mut keywords: Vec<(String, NodeId)> = Vec::new();
        while !self.is_symbol(")") {
            if self.is_symbol("*") || self.is_symbol("**") {
                return Err(error(self.span(), "arguments cannot be unpacked", Some("write them one by one")));
            }
            if self.follows("=") && matches!(self.peek(), Token::Name(_)) {
                let (name, span) = self.name("the name of an argument")?;
                self.advance();
                if keywords.iter().any(|(known, _)| *known == name) {
                    return Err(error(span, format!("the argument \"{name}\" is given twice"), None));
                }
                let value = self.expression()?;
                keywords.push((name, value));
            } else if keywords.is_empty() {
                arguments.push(self.expression()?);
            } else {
                let hint = "arguments without a name come first";
                return Err(error(self.span(), "an argument without a name follows one with a name", Some(hint)));
            }
            if !self.accept(",") {
                break;
            }
        }
        let span = start.to(self.leave(")")?);
        let receiver = match &callee {
            Callee::Function(_) => None,
            Callee::Method(value, _) => Some(*value),
        };
        let children = receiver.into_iter().chain(arguments.iter().copied()).chain(keywords.iter().map(|(_, id)| *id));
        let height = self.height(children);
        self.add(NodeKind::Call { callee, arguments, keywords }, span, height)
    }

    fn index(&mut self, value: NodeId, start: Span) -> Result<NodeId> {
        let opener = self.enter("[");
        let mut items = Vec::new();
        while !self.is_symbol("]") {
            items.push(self.index_item()?);
            if !self.accept(",") {
                break;
            }
        }
        let closer = self.leave("]")?;
        if items.is_empty() {
            return Err(error(opener.to(closer), "the index is empty", None));
        }
        let mut height = self.height([value]);
        for item in &items {
            let own = match item {
                IndexItem::At(id) => self.height([*id]),
                IndexItem::Slice(start, stop, step) => self.height([start, stop, step].into_iter().copied().flatten()),
                IndexItem::NewAxis | IndexItem::Ellipsis => 1,
            };
            height = height.max(own);
        }
        self.add(NodeKind::Index(value, items), start.to(closer), height)
    }

    fn index_item(&mut self) -> Result<IndexItem> {
        if self.accept("...") {
            return Ok(IndexItem::Ellipsis);
        }
        let mut bounds = [None; 3];
        let mut n_colons = 0;
        loop {
            if !(self.is_symbol(":") || self.is_symbol(",") || self.is_symbol("]")) {
                bounds[n_colons] = Some(self.expression()?);
            }
            if n_colons == 2 || !self.accept(":") {
                break;
            }
            n_colons += 1;
        }
        let [start, stop, step] = bounds;
        if n_colons > 0 {
            return Ok(IndexItem::Slice(start, stop, step));
        }
        let Some(id) = start else { return Err(self.unexpected("an index")) };
        // `None` was the last node made; it means an axis here, so it leaves the tree.
        if self.nodes[id.index()] == NodeKind::None {
            self.nodes.truncate(id.index());
            self.spans.truncate(id.index());
            self.heights.truncate(id.index());
            return Ok(IndexItem::NewAxis);
        }
        Ok(IndexItem::At(id))
    }
}
