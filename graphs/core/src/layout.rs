//! Where boxes go: layers from left to right, few crossings, short arrows.
//!
//! The method is that of Sugiyama, Tagawa and Toda ("Methods for Visual Understanding of Hierarchical System Structures",
//! 1981): longest-path layering, points in between for arrows that pass layers, barycentre sweeps for the order within layers;
//! then heights by least squares to the neighbours' heights under minimal distances. It knows boxes as sizes only.

use petgraph::graph::{DiGraph, NodeIndex};

use crate::links::as_node;

/// How often layers are reordered, and heights adjusted, from left to right and back.
const N_SWEEPS: usize = 8;

/// Most points in between; beyond that, arrows go straight and may pass under boxes.
const MAX_POINTS: usize = 20_000;

const LAYER_GAP: f64 = 64.0;
const BOX_GAP: f64 = 14.0;

/// The height that an arrow takes while it passes a layer.
const POINT_HEIGHT: f64 = 4.0;

/// Positions, in pixels.
pub(crate) struct Layout {
    /// For each box its left edge and middle height.
    pub(crate) boxes: Vec<(f64, f64)>,
    /// For each arrow the stretches (left, right, height) through which it passes layers on the way; empty when it runs
    /// against the layers or within a box.
    pub(crate) passes: Vec<Vec<(f64, f64, f64)>>,
    /// Width of the whole.
    pub(crate) width: f64,
    /// Height of the whole.
    pub(crate) height: f64,
}

/// Lay out boxes of `sizes` (width, height) with `edges` between them. Boxes are listed in order of execution; an edge to an
/// earlier box (there are some once families are collapsed) does not count for layers.
pub(crate) fn lay_out(sizes: &[(f64, f64)], edges: &[(u32, u32)]) -> Layout {
    if sizes.is_empty() {
        return Layout { boxes: Vec::new(), passes: vec![Vec::new(); edges.len()], width: 0.0, height: 0.0 };
    }
    let layer_of = layers(sizes.len(), edges);
    let mut sheet = Sheet::new(sizes, edges, &layer_of);
    sheet.reduce_crossings();
    sheet.set_heights();
    sheet.finish(sizes, &layer_of)
}

/// By box the length of the longest way to it; boxes that nothing leads to stand just before their first user.
fn layers(n_boxes: usize, edges: &[(u32, u32)]) -> Vec<usize> {
    let mut network: DiGraph<(), (), u32> = DiGraph::with_capacity(n_boxes, edges.len());
    for _ in 0..n_boxes {
        network.add_node(());
    }
    for &(from, to) in edges.iter().filter(|(from, to)| from < to) {
        network.add_edge(NodeIndex::from(from), NodeIndex::from(to), ());
    }
    let sequence = petgraph::algo::toposort(&network, None).unwrap_or_default();
    let mut layer_of = vec![0; n_boxes];
    for &node in &sequence {
        for user in network.neighbors(node) {
            layer_of[user.index()] = layer_of[user.index()].max(layer_of[node.index()] + 1);
        }
    }
    for &node in &sequence {
        let is_source = network.neighbors_directed(node, petgraph::Direction::Incoming).next().is_none();
        let first_user = network.neighbors(node).map(|user| layer_of[user.index()]).min();
        if let (true, Some(first_user)) = (is_source, first_user) {
            layer_of[node.index()] = first_user - 1;
        }
    }
    layer_of
}

/// Boxes, and behind them the points in between.
struct Sheet {
    /// Entries of each layer from top to bottom.
    layers: Vec<Vec<u32>>,
    heights: Vec<f64>,
    left: Vec<Vec<u32>>,
    right: Vec<Vec<u32>>,
    middle: Vec<f64>,
    points_of_edge: Vec<Vec<u32>>,
}

impl Sheet {
    fn new(sizes: &[(f64, f64)], edges: &[(u32, u32)], layer_of: &[usize]) -> Self {
        let n_layers = layer_of.iter().max().map_or(0, |last| last + 1);
        let mut this = Self {
            layers: vec![Vec::new(); n_layers],
            heights: sizes.iter().map(|size| size.1).collect(),
            left: vec![Vec::new(); sizes.len()],
            right: vec![Vec::new(); sizes.len()],
            middle: vec![0.0; sizes.len()],
            points_of_edge: Vec::with_capacity(edges.len()),
        };
        for (node, &layer) in layer_of.iter().enumerate() {
            this.layers[layer].push(as_node(node));
        }
        let n_points: usize =
            edges.iter().map(|(from, to)| layer_of[*to as usize].saturating_sub(layer_of[*from as usize] + 1)).sum();
        for &(from, to) in edges {
            let mut points = Vec::new();
            let (first, last) = (layer_of[from as usize], layer_of[to as usize]);
            if first < last {
                let mut before = from;
                for layer in (first + 1..last).filter(|_| n_points <= MAX_POINTS) {
                    let point = this.add_point(layer);
                    this.join(before, point);
                    points.push(point);
                    before = point;
                }
                if n_points <= MAX_POINTS || first + 1 == last {
                    this.join(before, to);
                }
            }
            this.points_of_edge.push(points);
        }
        this
    }

    fn add_point(&mut self, layer: usize) -> u32 {
        let point = as_node(self.heights.len());
        self.heights.push(POINT_HEIGHT);
        self.left.push(Vec::new());
        self.right.push(Vec::new());
        self.middle.push(0.0);
        self.layers[layer].push(point);
        point
    }

    fn join(&mut self, left: u32, right: u32) {
        self.right[left as usize].push(right);
        self.left[right as usize].push(left);
    }

    /// Sort each layer by the mean rank of its neighbours in the layer before, then in the layer behind, and so on; keep the
    /// best order met.
    fn reduce_crossings(&mut self) {
        let mut rank = vec![0.0; self.heights.len()];
        let mut best = (self.n_crossings(), self.layers.clone());
        for sweep in 0..N_SWEEPS {
            let n_layers = self.layers.len();
            for step in 0..n_layers {
                let layer = if sweep % 2 == 0 { step } else { n_layers - 1 - step };
                let neighbours = if sweep % 2 == 0 { &self.left } else { &self.right };
                let mut wanted: Vec<(f64, u32)> = Vec::with_capacity(self.layers[layer].len());
                for (at, &node) in self.layers[layer].iter().enumerate() {
                    wanted.push((mean_of(&neighbours[node as usize], &rank).unwrap_or(as_position(at)), node));
                }
                wanted.sort_by(|left, right| left.0.total_cmp(&right.0));
                for (at, &(_, node)) in wanted.iter().enumerate() {
                    rank[node as usize] = as_position(at);
                }
                self.layers[layer] = wanted.into_iter().map(|(_, node)| node).collect();
            }
            let n_crossings = self.n_crossings();
            if n_crossings < best.0 {
                best = (n_crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    /// Pairs of arrows between neighbouring layers that cross. Counted with a Fenwick tree (Barth, Mutzel and Juenger, "Simple
    /// and Efficient Bilayer Cross Counting", 2004).
    fn n_crossings(&self) -> u64 {
        let mut place = vec![0usize; self.heights.len()];
        for layer in &self.layers {
            for (at, &node) in layer.iter().enumerate() {
                place[node as usize] = at;
            }
        }
        let mut crossings = 0;
        for (layer, next) in self.layers.iter().zip(self.layers.iter().skip(1)) {
            let mut tree = vec![0u64; next.len() + 1];
            let mut n_before = 0;
            for &node in layer {
                let mut ends: Vec<usize> = self.right[node as usize].iter().map(|&end| place[end as usize]).collect();
                ends.sort_unstable();
                for &end in &ends {
                    crossings += n_before - fenwick_sum(&tree, end + 1);
                }
                for end in ends {
                    fenwick_add(&mut tree, end + 1);
                    n_before += 1;
                }
            }
        }
        crossings
    }

    fn set_heights(&mut self) {
        for layer in 0..self.layers.len() {
            self.place(layer, |_, at| as_position(at));
        }
        for sweep in 0..=N_SWEEPS {
            let n_layers = self.layers.len();
            for step in 0..n_layers {
                let layer = if sweep % 2 == 0 { step } else { n_layers - 1 - step };
                self.place(layer, |sheet, at| {
                    let node = sheet.layers[layer][at] as usize;
                    let (left, right) = (&sheet.left[node], &sheet.right[node]);
                    let sides = if sweep == N_SWEEPS {
                        [mean_of(left, &sheet.middle), mean_of(right, &sheet.middle)]
                    } else if sweep % 2 == 0 {
                        [mean_of(left, &sheet.middle), None]
                    } else {
                        [mean_of(right, &sheet.middle), None]
                    };
                    match sides {
                        [Some(one), Some(other)] => f64::midpoint(one, other),
                        [Some(one), None] | [None, Some(one)] => one,
                        [None, None] => sheet.middle[node],
                    }
                });
            }
        }
    }

    /// Put the entries of a layer as near to where they want to be as their heights allow, in least squares: entries that
    /// would overlap form blocks that move as one (pool adjacent violators).
    fn place(&mut self, layer: usize, wanted: impl Fn(&Self, usize) -> f64) {
        let mut offset = 0.0;
        let mut blocks: Vec<(f64, f64, usize)> = Vec::new(); // sum, weight, entries
        let mut offsets = Vec::with_capacity(self.layers[layer].len());
        for (at, &node) in self.layers[layer].iter().enumerate() {
            let half = self.heights[node as usize] / 2.0;
            offset += half;
            offsets.push(offset);
            blocks.push((wanted(self, at) - offset, 1.0, 1));
            offset += half + BOX_GAP;
            while let [.., before, last] = blocks.as_slice()
                && before.0 / before.1 > last.0 / last.1
            {
                let merged = (before.0 + last.0, before.1 + last.1, before.2 + last.2);
                blocks.truncate(blocks.len() - 2);
                blocks.push(merged);
            }
        }
        let mut at = 0;
        for (sum, weight, n_entries) in blocks {
            for _ in 0..n_entries {
                let node = self.layers[layer][at] as usize;
                self.middle[node] = sum / weight + offsets[at];
                at += 1;
            }
        }
    }

    fn finish(self, sizes: &[(f64, f64)], layer_of: &[usize]) -> Layout {
        let mut widths = vec![0.0f64; self.layers.len()];
        for (node, &layer) in layer_of.iter().enumerate() {
            widths[layer] = widths[layer].max(sizes[node].0);
        }
        let mut lefts = Vec::with_capacity(widths.len());
        let mut width = 0.0;
        for layer_width in &widths {
            lefts.push(width);
            width += layer_width + LAYER_GAP;
        }
        let middle_and_half = || self.middle.iter().zip(&self.heights).map(|(middle, height)| (middle, height / 2.0));
        let top = middle_and_half().map(|(middle, half)| middle - half).fold(f64::INFINITY, f64::min);
        let bottom = middle_and_half().map(|(middle, half)| middle + half).fold(f64::NEG_INFINITY, f64::max);
        let boxes = layer_of.iter().enumerate().map(|(node, &layer)| {
            let left = lefts[layer] + (widths[layer] - sizes[node].0) / 2.0;
            (left, self.middle[node] - top)
        });
        let mut layer_of_entry = vec![0; self.heights.len()];
        for (layer, entries) in self.layers.iter().enumerate() {
            entries.iter().for_each(|&entry| layer_of_entry[entry as usize] = layer);
        }
        let stretch = |&point: &u32| {
            let layer = layer_of_entry[point as usize];
            (lefts[layer], lefts[layer] + widths[layer], self.middle[point as usize] - top)
        };
        Layout {
            boxes: boxes.collect(),
            passes: self.points_of_edge.iter().map(|points| points.iter().map(stretch).collect()).collect(),
            width: width - LAYER_GAP,
            height: bottom - top,
        }
    }
}

fn fenwick_add(tree: &mut [u64], mut at: usize) {
    while at < tree.len() {
        tree[at] += 1;
        at += at & at.wrapping_neg();
    }
}

fn fenwick_sum(tree: &[u64], mut at: usize) -> u64 {
    let mut sum = 0;
    while at > 0 {
        sum += tree[at];
        at -= at & at.wrapping_neg();
    }
    sum
}

fn mean_of(nodes: &[u32], values: &[f64]) -> Option<f64> {
    let sum: f64 = nodes.iter().map(|&node| values[node as usize]).sum();
    (!nodes.is_empty()).then(|| sum / as_position(nodes.len()))
}

fn as_position(at: usize) -> f64 {
    f64::from(as_node(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (f64, f64) = (100.0, 30.0);

    #[test]
    fn boxes_do_not_overlap_and_arrows_go_right() {
        // A dense layered tangle with arrows that pass layers.
        let n = 60u32;
        let edges: Vec<(u32, u32)> =
            (1..n).flat_map(|to| [(to * 7 % to, to), (to * 13 % to, to)]).filter(|(from, to)| from != to).collect();
        let layout = lay_out(&vec![SIZE; n as usize], &edges);
        for (one, a) in layout.boxes.iter().enumerate() {
            for b in &layout.boxes[..one] {
                assert!((a.0 - b.0).abs() >= SIZE.0 || (a.1 - b.1).abs() >= SIZE.1, "{a:?} {b:?}");
            }
            assert!(a.1 >= SIZE.1 / 2.0 && a.1 <= layout.height - SIZE.1 / 2.0 + 1e-9);
        }
        for &(from, to) in &edges {
            assert!(layout.boxes[from as usize].0 + SIZE.0 < layout.boxes[to as usize].0);
        }
    }

    #[test]
    fn crossed_pairs_are_uncrossed() {
        // Four sources, each used by the task at the other end.
        let edges: Vec<(u32, u32)> = (0..4).map(|source| (source, 7 - source)).collect();
        let layout = lay_out(&[SIZE; 8], &edges);
        for (from, to) in edges {
            assert!((layout.boxes[from as usize].1 - layout.boxes[to as usize].1).abs() < 1.0, "a straight arrow");
        }
    }

    #[test]
    fn collapsed_cycles_and_loops_are_no_trouble() {
        let layout = lay_out(&[SIZE; 3], &[(0, 0), (0, 1), (1, 0), (1, 2)]);
        assert!(layout.boxes[0].0 < layout.boxes[1].0 && layout.boxes[1].0 < layout.boxes[2].0);
        assert_eq!(lay_out(&[], &[]).width, 0.0);
    }
}
