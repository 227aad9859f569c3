//! Graphs as SVG pictures that need no other program: boxes in layers from left to right, coloured by family of operators.
//!
//! Text only: no scripts, no links, no fonts of its own. Every name is escaped; a graph from a stranger is safe to open.

use std::fmt::Write;

use crate::drawing::{Drawing, Edge, Node, Sort, draw, shortened};
use crate::graph::Graph;
use crate::layout::{Layout, lay_out};

/// Fill and border of each family of operators, by first appearance; families beyond these share the last.
const COLOURS: [(&str, &str); 8] = [
    ("#dbe9f9", "#3b73af"),
    ("#fde6cf", "#c0702a"),
    ("#dcf0dc", "#3f8f4f"),
    ("#eadff5", "#7a55a8"),
    ("#fbdcdc", "#b84a4a"),
    ("#d8f1f1", "#2f8a8e"),
    ("#f6f0c8", "#94821f"),
    ("#e6e6e6", "#6a6a6a"),
];

const MARGIN: f64 = 24.0;
const HEADER: f64 = 46.0;
const MAX_CHARACTERS: usize = 34;
const LABEL_CHARACTER_WIDTH: f64 = 7.3;
const DETAIL_CHARACTER_WIDTH: f64 = 5.9;
const MIN_WIDTH: f64 = 340.0;

/// `graph` as an SVG document; graphs too big to look at are collapsed, with counts. Hovering over a box shows the task's
/// full name, operators and arguments. The graph must have passed [`Graph::check`].
#[must_use]
pub fn to_svg(graph: &Graph) -> String {
    let drawing = draw(graph);
    let edges: Vec<(u32, u32)> = drawing.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let sizes: Vec<(f64, f64)> = drawing.nodes.iter().map(size_of_box).collect();
    let layout = lay_out(&sizes, &edges);
    let mut page = Page { text: String::new(), families: families(&drawing), sizes, layout };
    page.begin(&drawing.caption);
    for (idx, edge) in drawing.edges.iter().enumerate() {
        page.arrow(idx, edge);
    }
    for (idx, node) in drawing.nodes.iter().enumerate() {
        page.boxed(idx, node);
    }
    page.text.push_str("</svg>\n");
    page.text
}

fn families(drawing: &Drawing) -> Vec<String> {
    let mut families: Vec<String> = Vec::new();
    for node in drawing.nodes.iter().filter(|node| node.sort == Sort::Task) {
        if !families.contains(&node.operator_family) {
            families.push(node.operator_family.clone());
        }
    }
    families
}

fn label_of(node: &Node) -> String {
    let label = shortened(&node.label, MAX_CHARACTERS);
    if node.count > 1 { format!("{label} \u{d7} {}", node.count) } else { label }
}

fn detail_of(node: &Node) -> String {
    shortened(&node.detail, MAX_CHARACTERS + 6)
}

fn size_of_box(node: &Node) -> (f64, f64) {
    let width_of = |text: &str, character: f64| text.chars().count() as u32 as f64 * character;
    let text = width_of(&label_of(node), LABEL_CHARACTER_WIDTH).max(width_of(&detail_of(node), DETAIL_CHARACTER_WIDTH));
    let height = if node.detail.is_empty() { 28.0 } else { 40.0 };
    (text.max(36.0) + 24.0, height)
}

struct Page {
    text: String,
    families: Vec<String>,
    sizes: Vec<(f64, f64)>,
    layout: Layout,
}

impl Page {
    /// Writing to a string cannot fail.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}");
    }

    fn colour_of(&self, family: &str) -> (&'static str, &'static str) {
        let at = self.families.iter().position(|known| known == family).unwrap_or(COLOURS.len());
        COLOURS[at.min(COLOURS.len() - 1)]
    }

    fn begin(&mut self, caption: &str) {
        let legend_width: f64 = self.families.iter().map(|family| legend_entry_width(family)).sum();
        let width = (self.layout.width.max(legend_width).max(MIN_WIDTH) + 2.0 * MARGIN).ceil();
        let height = (self.layout.height + HEADER + 2.0 * MARGIN).ceil();
        self.line(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"ui-sans-serif, system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
        ));
        self.line(format_args!("<title>{}</title>", escaped(caption)));
        self.text.push_str(
            "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto-start-reverse\"><path d=\"M0,0.8 L7.5,4 L0,7.2 z\" fill=\"#8a94a0\"/></marker></defs>\n",
        );
        self.line(format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"));
        self.line(format_args!(
            "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"13\" font-weight=\"600\" fill=\"#27313b\">{}</text>",
            MARGIN + 4.0,
            escaped(caption)
        ));
        let mut x = MARGIN;
        for family in self.families.clone() {
            let (fill, border) = self.colour_of(&family);
            let y = MARGIN + 14.0;
            self.line(format_args!(
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"11\" height=\"11\" rx=\"2.5\" fill=\"{fill}\" stroke=\"{border}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"11\" fill=\"#55606b\">{}</text>",
                x + 16.0,
                y + 9.5,
                escaped(&shortened(&family, MAX_CHARACTERS))
            ));
            x += legend_entry_width(&family);
        }
    }

    fn boxed(&mut self, idx: usize, node: &Node) {
        let (left, middle) = self.layout.boxes[idx];
        let (width, height) = self.sizes[idx];
        let (x, middle) = (left + MARGIN, middle + MARGIN + HEADER);
        let (fill, border, corner, dashes) = match node.sort {
            Sort::Task => {
                let (fill, border) = self.colour_of(&node.operator_family);
                (fill, border, 6.0, "")
            }
            Sort::Group => ("#f7f8f9", "#8a94a0", height / 2.0, ""),
            Sort::External => ("#ffffff", "#8a94a0", 6.0, " stroke-dasharray=\"4 3\""),
        };
        let border_width = if node.is_output { 2.6 } else { 1.1 };
        let title = if node.is_output { format!("{}\n(output)", node.title) } else { node.title.clone() };
        self.line(format_args!("<g><title>{}</title>", escaped(&title)));
        let y = middle - height / 2.0;
        if node.count > 1 {
            // A second sheet behind the first: this box stands for many.
            self.line(format_args!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{corner:.1}\" fill=\"{fill}\" \
                 stroke=\"{border}\" stroke-width=\"1.1\"/>",
                x + 4.0,
                y + 4.0
            ));
        }
        self.line(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{corner:.1}\" fill=\"{fill}\" \
             stroke=\"{border}\" stroke-width=\"{border_width}\"{dashes}/>"
        ));
        let centre = x + width / 2.0;
        let label_y = if node.detail.is_empty() { middle + 4.2 } else { middle - 2.6 };
        self.line(format_args!(
            "<text x=\"{centre:.1}\" y=\"{label_y:.1}\" font-size=\"12\" text-anchor=\"middle\" fill=\"#1d242b\">{}</text>",
            escaped(&label_of(node))
        ));
        if !node.detail.is_empty() {
            self.line(format_args!(
                "<text x=\"{centre:.1}\" y=\"{:.1}\" font-size=\"9.5\" text-anchor=\"middle\" fill=\"#5b6772\">{}</text>",
                middle + 12.0,
                escaped(&detail_of(node))
            ));
        }
        self.text.push_str("</g>\n");
    }

    fn arrow(&mut self, idx: usize, edge: &Edge) {
        let (from, to) = (edge.from as usize, edge.to as usize);
        let start = (self.layout.boxes[from].0 + self.sizes[from].0 + MARGIN, self.layout.boxes[from].1 + MARGIN + HEADER);
        let end = (self.layout.boxes[to].0 + MARGIN, self.layout.boxes[to].1 + MARGIN + HEADER);
        let is_backward = edge.from >= edge.to;
        let path = if is_backward { self.path_back(from, start, end) } else { self.path_on(idx, start, end) };
        let dashes = if is_backward { " stroke-dasharray=\"5 3\"" } else { "" };
        self.line(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"#8a94a0\" stroke-width=\"1.2\" stroke-opacity=\"0.85\" \
             marker-end=\"url(#tip)\"{dashes}/>"
        ));
        let note = match (edge.count, edge.part) {
            (1, None) => return,
            (1, Some(part)) => format!("[{part}]"),
            (count, _) => format!("\u{d7} {count}"),
        };
        let (x, y) = if is_backward {
            (start.0 - 10.0, start.1 - self.sizes[from].1 / 2.0 - 16.0)
        } else {
            // On the middle of the last bend: arrows that meet at a box are still apart there.
            let bend = self.layout.passes[idx].last().map_or(start, |pass| (pass.1 + MARGIN, pass.2 + MARGIN + HEADER));
            (f64::midpoint(bend.0, end.0), f64::midpoint(bend.1, end.1) + 3.0)
        };
        self.line(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"9\" text-anchor=\"middle\" fill=\"#55606b\" stroke=\"#ffffff\" \
             stroke-width=\"3\" paint-order=\"stroke\">{note}</text>"
        ));
    }

    /// To the right, level at both ends and wherever a layer is passed.
    fn path_on(&self, idx: usize, start: (f64, f64), end: (f64, f64)) -> String {
        let mut path = format!("M{:.1},{:.1}", start.0, start.1);
        let mut at = start;
        for &(left, right, height) in &self.layout.passes[idx] {
            let height = height + MARGIN + HEADER;
            curve(&mut path, at, (left + MARGIN, height));
            path.push_str(&format!(" L{:.1},{height:.1}", right + MARGIN));
            at = (right + MARGIN, height);
        }
        curve(&mut path, at, (end.0 - 1.0, end.1));
        path
    }

    /// From the right edge of a box over its top and back to the left edge of an earlier box, or of the same.
    fn path_back(&self, from: usize, start: (f64, f64), end: (f64, f64)) -> String {
        let top = start.1.min(end.1) - self.sizes[from].1 / 2.0 - 12.0;
        format!(
            "M{:.1},{:.1} C{:.1},{:.1} {:.1},{top:.1} {:.1},{top:.1} L{:.1},{top:.1} C{:.1},{top:.1} {:.1},{:.1} {:.1},{:.1}",
            start.0,
            start.1,
            start.0 + 22.0,
            start.1,
            start.0 + 22.0,
            start.0 - 6.0,
            end.0 + 6.0,
            end.0 - 24.0,
            end.0 - 24.0,
            end.1,
            end.0 - 1.0,
            end.1
        )
    }
}

fn legend_entry_width(family: &str) -> f64 {
    16.0 + shortened(family, MAX_CHARACTERS).chars().count() as u32 as f64 * 6.6 + 18.0
}

fn curve(path: &mut String, from: (f64, f64), to: (f64, f64)) {
    let middle = f64::midpoint(from.0, to.0);
    path.push_str(&format!(" C{middle:.1},{:.1} {middle:.1},{:.1} {:.1},{:.1}", from.1, to.1, to.0, to.1));
}

/// `text` as XML character data: markup escaped, characters that XML forbids replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            control if control.is_control() => escaped.push('\u{fffd}'),
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
#[path = "svg_tests.rs"]
mod tests;
