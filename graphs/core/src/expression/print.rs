//! Writing an expression back, fully parenthesised: for messages and for tests of precedence.
//!
//! It does not try to keep the author's spelling or layout.

use super::{Callee, Expression, IndexItem, NodeId, NodeKind};

/// The text of `expression`. Works node by node without recursion: trees may be thousands of operators high.
pub(super) fn print(expression: &Expression) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(expression.nodes().len());
    for node in expression.nodes() {
        let text = print_node(node, &mut texts);
        texts.push(text);
    }
    texts.pop().unwrap_or_default()
}

/// Every node has one parent, so a child's text is moved out rather than copied.
fn take(texts: &mut [String], id: NodeId) -> String {
    std::mem::take(&mut texts[id.index()])
}

/// Like [`take`] before a dot: `1.T` would read as a float.
fn receiver(texts: &mut [String], id: NodeId) -> String {
    let text = take(texts, id);
    if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("({text})") } else { text }
}

fn print_node(node: &NodeKind, texts: &mut [String]) -> String {
    match node {
        NodeKind::Integer(value) => value.to_string(),
        NodeKind::Float(value) => format!("{value:?}"),
        NodeKind::Boolean(true) => "True".to_owned(),
        NodeKind::Boolean(false) => "False".to_owned(),
        NodeKind::None => "None".to_owned(),
        NodeKind::Text(text) => quote(text),
        NodeKind::Constant(constant) => constant.name().to_owned(),
        NodeKind::Name(name) => name.clone(),
        NodeKind::Unary(operator, operand) => {
            let symbol = operator.symbol();
            format!("({symbol}{})", take(texts, *operand))
        }
        NodeKind::Binary(operator, left, right) => {
            let symbol = operator.symbol();
            let mut text = take(texts, *left);
            // A chain of a thousand operators is written in place: each step prepends one parenthesis only.
            text.insert(0, '(');
            text.push_str(&format!(" {symbol} {})", take(texts, *right)));
            text
        }
        NodeKind::Attribute(value, name) => format!("{}.{name}", receiver(texts, *value)),
        NodeKind::Call { callee, arguments, keywords } => {
            let mut text = match callee {
                Callee::Function(name) => name.clone(),
                Callee::Method(value, name) => format!("{}.{name}", receiver(texts, *value)),
            };
            let mut parts: Vec<String> = arguments.iter().map(|id| take(texts, *id)).collect();
            parts.extend(keywords.iter().map(|(name, id)| format!("{name}={}", take(texts, *id))));
            text.push_str(&format!("({})", parts.join(", ")));
            text
        }
        NodeKind::Index(value, items) => {
            let parts: Vec<String> = items.iter().map(|item| print_item(item, texts)).collect();
            format!("{}[{}]", take(texts, *value), parts.join(", "))
        }
        NodeKind::Tuple(items) => {
            let parts: Vec<String> = items.iter().map(|id| take(texts, *id)).collect();
            if parts.len() == 1 { format!("({},)", parts[0]) } else { format!("({})", parts.join(", ")) }
        }
        NodeKind::List(items) => {
            let parts: Vec<String> = items.iter().map(|id| take(texts, *id)).collect();
            format!("[{}]", parts.join(", "))
        }
    }
}

fn print_item(item: &IndexItem, texts: &mut [String]) -> String {
    let mut bound = |id: &Option<NodeId>| id.map(|id| take(texts, id)).unwrap_or_default();
    match item {
        IndexItem::At(id) => bound(&Some(*id)),
        IndexItem::Slice(start, stop, step) => {
            let mut text = format!("{}:{}", bound(start), bound(stop));
            if step.is_some() {
                text.push(':');
                text.push_str(&bound(step));
            }
            text
        }
        IndexItem::NewAxis => "None".to_owned(),
        IndexItem::Ellipsis => "...".to_owned(),
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\'' | '\\' => quoted.extend(['\\', character]),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}
