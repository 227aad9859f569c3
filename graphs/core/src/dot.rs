//! Graphs in the DOT language of Graphviz, for `dot -Tsvg` and the many tools that read it.
//!
//! Written by hand instead of through petgraph's `Dot`: labels are people's names and arguments, which need all of DOT's
//! escaping, and boxes carry tooltips and counts.

use std::fmt::Write;

use crate::drawing::{Edge, Node, Sort, draw};
use crate::graph::Graph;

/// `graph` in DOT; graphs too big to look at are collapsed, with counts. The graph must have passed [`Graph::check`].
#[must_use]
pub fn to_dot(graph: &Graph) -> String {
    let drawing = draw(graph);
    let mut text =
        String::from("digraph rask {\n  rankdir = LR;\n  node [shape = box, style = \"rounded\", fontname = \"sans-serif\"];\n");
    push_line(&mut text, format_args!("  label = {};", quoted(&drawing.caption)));
    for (idx, node) in drawing.nodes.iter().enumerate() {
        push_line(&mut text, format_args!("  n{idx} [{}];", attributes(node)));
    }
    for edge in &drawing.edges {
        push_line(&mut text, format_args!("  n{} -> n{}{};", edge.from, edge.to, edge_attributes(edge)));
    }
    text.push_str("}\n");
    text
}

/// Writing to a string cannot fail.
fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}

fn attributes(node: &Node) -> String {
    let mut label = node.label.clone();
    if node.count > 1 {
        label.push_str(&format!(" \u{d7} {}", node.count));
    }
    if !node.detail.is_empty() {
        label.push('\n');
        label.push_str(&node.detail);
    }
    let mut text = format!("label = {}, tooltip = {}", quoted(&label), quoted(&node.title));
    match node.sort {
        Sort::Task => {}
        Sort::Group => text.push_str(", shape = hexagon"),
        Sort::External => text.push_str(", style = \"rounded,dashed\""),
    }
    if node.is_output {
        text.push_str(", penwidth = 2.5");
    }
    text
}

fn edge_attributes(edge: &Edge) -> String {
    match (edge.count, edge.part) {
        (1, None) => String::new(),
        (1, Some(part)) => format!(" [label = \"[{part}]\"]"),
        (count, _) => format!(" [label = \"{count}\"]"),
    }
}

/// `text` as a quoted DOT string. A backslash begins an escape in labels (`\N` is the node's name), so it is doubled.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control.is_control() => quoted.push('\u{fffd}'),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::GraphBuilder;
    use crate::finish::FinishOptions;
    use crate::testing::noop;

    #[test]
    fn names_are_escaped_and_parts_shown() {
        let mut graph = GraphBuilder::new();
        let a = noop(&mut graph, "a\"b\\N\n\u{7}", &[]);
        let b = noop(&mut graph, "b", &[a]);
        graph.task("c", "core.noop", 1, "{}").input_part(a, 4).input(b).add();
        let text = to_dot(&graph.finish(&FinishOptions { fuse: false, ..FinishOptions::default() }).expect("fine").graph);
        assert!(text.contains("n0 [label = \"a\\\"b\\\\N\\n\u{fffd}\\ncore.noop\""), "{text}");
        assert!(text.contains("n0 -> n2 [label = \"[4]\"];"), "{text}");
        assert!(text.contains("n0 -> n1;"), "{text}");
        assert_eq!(text.matches("penwidth").count(), 1, "one output: {text}");
    }
}
