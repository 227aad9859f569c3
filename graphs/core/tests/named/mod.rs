//! Graphs that people named when the order failed them, drawn as families of tasks: what the tests of the order and the
//! comparison with Dask (`tests/peers/ordering.py`) have in common.
//!
//! Most are the subjects of Dask's own tests of its order, at the size there and larger. They are drawn here by rules, so
//! that they can be drawn at any size.

#![allow(unreachable_pub, reason = "a module of an example and of a test")]

use rask_graphs::keys::KeyRef;
use rask_graphs::{Body, GraphBuilder, TaskIdx};

/// Dask reduces by fours unless told otherwise.
const SPLIT_EVERY: usize = 4;

/// A graph and what it is called.
pub struct Named {
    pub name: String,
    pub graph: GraphBuilder,
}

/// Every named graph: each at the size of Dask's test and larger.
pub fn all() -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name: String, sketch: Sketch| all.push(Named { name, graph: sketch.graph });
    for n in [2, 6, 16] {
        add(format!("double difference {n}"), double_difference(n));
    }
    for (n, n_groups) in [(5, 2), (50, 5), (1000, 12)] {
        add(format!("anomaly mean {n}/{n_groups}"), anomaly_mean(n, n_groups));
    }
    for (n, n_groups) in [(200, 5), (2000, 12)] {
        add(format!("anomaly mean, stacked {n}/{n_groups}"), stacked_anomaly_mean(n, n_groups));
    }
    for (n_groups, n_chunks) in [(4, 2), (40, 8)] {
        add(format!("map-reduce, sliced {n_groups}x{n_chunks}"), sliced_map_reduce(n_groups, n_chunks));
    }
    for (n_common, n_reducers) in [(2, 4), (5, 7), (5, 100)] {
        add(format!("map-reduce, common inputs {n_common}/{n_reducers}"), common_inputs(n_common, n_reducers));
    }
    for n in [3, 12] {
        add(format!("map-reduce, across {n}"), reduction_across(n));
    }
    for (n_chunks, n_fields) in [(10, 2), (500, 2), (500, 5)] {
        add(format!("map-reduce, products {n_chunks}/{n_fields}"), products(n_chunks, n_fields));
    }
    for n in [10, 100] {
        add(format!("svd {n}"), svd(n));
    }
    for (n, n_power) in [(10, 0), (10, 2), (100, 2)] {
        add(format!("svd, compressed {n}/{n_power}"), compressed_svd(n, n_power));
    }
    for n in [5, 101] {
        add(format!("overlap, line {n}"), overlap_line(n));
    }
    for n in [5, 20] {
        add(format!("overlap, plane {n}"), overlap_plane(n));
    }
    for (n, width) in [(10, 3), (1000, 3), (1000, 5)] {
        add(format!("band {n}/{width}"), band(n, width));
    }
    for n in [4, 10] {
        add(format!("crossed pairs {n}"), crossed_pairs(n));
    }
    for n in [10, 1000] {
        add(format!("running sum {n}"), running_sum(n));
    }
    for n in [2, 30] {
        add(format!("cohorts {n}"), cohorts(n));
    }
    for (n_chunks, n_outputs) in [(3, 4), (50, 20)] {
        add(format!("grouped {n_chunks}x{n_outputs}"), grouped(n_chunks, n_outputs));
    }
    for n in [10, 640] {
        add(format!("two uneven trees {n}"), two_uneven_trees(n));
    }
    for n in [4, 10] {
        add(format!("blocked product {n}"), blocked_product(n));
    }
    for n in [4, 20] {
        add(format!("plus transpose {n}"), plus_transpose(n));
    }
    for n in [6, 24] {
        add(format!("cholesky {n}"), cholesky(n));
    }
    for n in [8, 40] {
        add(format!("rechunk {n}"), rechunk(n));
    }
    all
}

/// A graph of no-ops under construction.
pub struct Sketch {
    graph: GraphBuilder,
    body: u32,
}

impl Sketch {
    fn new() -> Self {
        let mut graph = GraphBuilder::new();
        let body = graph.body(Body::single("core.noop", 1, "{}"));
        Self { graph, body }
    }

    /// `n` tasks of one family.
    fn layer(&mut self, family: &str, n: usize, mut inputs: impl FnMut(usize) -> Vec<TaskIdx>) -> Vec<TaskIdx> {
        let family = self.graph.family(family);
        let member = |member: usize| Some(u32::try_from(member).expect("few members"));
        (0..n).map(|at| self.graph.task_with(KeyRef { family, member: member(at) }, self.body).inputs(inputs(at)).add()).collect()
    }

    fn one(&mut self, family: &str, inputs: Vec<TaskIdx>) -> TaskIdx {
        self.layer(family, 1, |_| inputs.clone())[0]
    }

    fn roots(&mut self, family: &str, n: usize) -> Vec<TaskIdx> {
        self.layer(family, n, |_| Vec::new())
    }

    /// One task for each of `from`.
    fn map(&mut self, family: &str, from: &[TaskIdx]) -> Vec<TaskIdx> {
        self.layer(family, from.len(), |at| vec![from[at]])
    }

    /// Reduce `from` to one task, a few at a time. A lone left-over is passed on as it is, and the last step has a name of its own.
    fn tree(&mut self, name: &str, from: &[TaskIdx]) -> TaskIdx {
        let mut rest = from.to_vec();
        let mut depth = 0;
        while rest.len() > SPLIT_EVERY {
            let pieces: Vec<Vec<TaskIdx>> = rest.chunks(SPLIT_EVERY).map(<[TaskIdx]>::to_vec).collect();
            let n_whole = pieces.iter().filter(|piece| piece.len() > 1).count();
            let mut next = self.layer(&format!("{name}-partial-{depth}"), n_whole, |at| pieces[at].clone());
            next.extend(pieces[n_whole..].iter().flatten());
            rest = next;
            depth += 1;
        }
        self.one(&format!("{name}-total"), rest)
    }
}

/// Differences of two fields whose chunks are shifted against each other by one element, so that the pieces in common are
/// 2n-1 by 2n-1; everything is wanted at one place.
fn double_difference(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let wide = 2 * n - 1;
    let left = s.roots("left", n * n);
    let right = s.roots("right", n * n);
    let left = s.layer("left-slice", wide * wide, |at| vec![left[at / wide / 2 * n + at % wide / 2]]);
    let right = s.layer("right-slice", wide * wide, |at| vec![right[(at / wide).div_ceil(2) * n + (at % wide).div_ceil(2)]]);
    let left = s.map("left-piece", &left);
    let right = s.map("right-piece", &right);
    let difference = s.layer("difference", wide * wide, |at| vec![left[at], right[at]]);
    let written = s.map("write", &difference);
    s.one("end", written);
    s
}

/// The mean over time of the deviation from each group's mean; a time step belongs to group `step % n_groups`.
fn anomaly_mean(n: usize, n_groups: usize) -> Sketch {
    let mut s = Sketch::new();
    let x = s.roots("random", n);
    let means: Vec<TaskIdx> = (0..n_groups)
        .map(|group| {
            let members: Vec<TaskIdx> = x.iter().copied().skip(group).step_by(n_groups).collect();
            let taken = s.map(&format!("take-{group}"), &members);
            let chunks = s.map(&format!("mean-chunk-{group}"), &taken);
            let total = s.tree(&format!("mean-{group}"), &chunks);
            s.one(&format!("mean-stack-{group}"), vec![total])
        })
        .collect();
    let spread = s.layer("spread", n, |at| vec![means[at % n_groups]]);
    let anomaly = s.layer("anomaly", n, |at| vec![x[at], spread[at]]);
    let chunks = s.map("anomaly-chunk", &anomaly);
    s.tree("anomaly-mean", &chunks);
    s
}

/// The same as xarray draws it, with the numbers of the groups as an input of every access.
fn stacked_anomaly_mean(n: usize, n_groups: usize) -> Sketch {
    let mut s = Sketch::new();
    let taker = s.one("taker", Vec::new());
    let x = s.roots("random", n);
    let means: Vec<TaskIdx> = (0..n_groups)
        .map(|group| {
            let members: Vec<TaskIdx> = x.iter().copied().skip(group).step_by(n_groups).collect();
            let taken = s.layer(&format!("take-{group}"), members.len(), |at| vec![members[at], taker]);
            let chunks = s.map(&format!("mean-chunk-{group}"), &taken);
            let total = s.tree(&format!("mean-{group}"), &chunks);
            s.one(&format!("stack-{group}"), vec![total])
        })
        .collect();
    let spread = s.layer("spread", n, |at| vec![means[at % n_groups], taker]);
    let chunks = s.layer("anomaly-chunk", n, |at| vec![x[at], spread[at]]);
    s.tree("anomaly-mean", &chunks);
    s
}

/// Groups of pieces cut from chunks of one file, each chunk with labels shared by all groups.
fn sliced_map_reduce(n_groups: usize, n_chunks: usize) -> Sketch {
    let mut s = Sketch::new();
    let file = s.one("file", Vec::new());
    let labels = s.roots("labels", n_chunks);
    let opened = s.layer("open", n_groups * n_chunks, |_| vec![file]);
    let pieces = s.map("piece", &opened);
    let chunks = s.layer("group-chunk", n_groups * n_chunks, |at| vec![labels[at % n_chunks], pieces[at]]);
    let groups = s.layer("group", n_groups, |at| chunks[at * n_chunks..(at + 1) * n_chunks].to_vec());
    s.map("transpose", &groups);
    s
}

/// Blocks that all need the same few inputs, summed row by row.
fn common_inputs(n_common: usize, n_reducers: usize) -> Sketch {
    let mut s = Sketch::new();
    let common = s.roots("object", n_common);
    let blocks = s.layer("block", n_reducers * n_reducers, |_| common.clone());
    let sums = s.map("sum", &blocks);
    s.layer("total", n_reducers, |at| sums[at * n_reducers..(at + 1) * n_reducers].to_vec());
    s
}

/// Two roots a row give three products each; each output takes one row's products.
fn reduction_across(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let a = s.roots("a", 2 * n);
    let b = s.layer("b", 3 * n, |at| {
        let row = &a[at / 3 * 2..at / 3 * 2 + 2];
        [&row[..1], row, &row[1..]][at % 3].to_vec()
    });
    let c = s.map("c", &b);
    s.layer("d", n, |at| (0..3).map(|row| c[(at * 3 + row) % c.len()]).collect());
    s
}

/// The means of all products of two of `n_fields` fields: `mean(u^2)`, `mean(u v)`, `mean(v^2)`.
fn products(n_chunks: usize, n_fields: usize) -> Sketch {
    let mut s = Sketch::new();
    let fields: Vec<Vec<TaskIdx>> = (0..n_fields).map(|field| s.roots(&format!("field-{field}"), n_chunks)).collect();
    for one in 0..n_fields {
        for other in one..n_fields {
            let inputs = |at: usize| if one == other { vec![fields[one][at]] } else { vec![fields[one][at], fields[other][at]] };
            let product = s.layer(&format!("product-{one}-{other}"), n_chunks, inputs);
            let chunks = s.map(&format!("mean-chunk-{one}-{other}"), &product);
            s.tree(&format!("mean-{one}-{other}"), &chunks);
        }
    }
    s
}

/// Orthogonal factors of tall chunks; returns those of the whole, and its triangular factor.
fn tall_qr(s: &mut Sketch, name: &str, chunks: &[TaskIdx]) -> (Vec<TaskIdx>, TaskIdx) {
    let n = chunks.len();
    let qr = s.map(&format!("{name}-qr"), chunks);
    let q = s.map(&format!("{name}-q"), &qr);
    let r = s.map(&format!("{name}-r"), &qr);
    let stacked = s.one(&format!("{name}-stack"), r);
    let outer = s.one(&format!("{name}-outer-qr"), vec![stacked]);
    let outer_q = s.one(&format!("{name}-outer-q"), vec![outer]);
    let outer_r = s.one(&format!("{name}-outer-r"), vec![outer]);
    let slices = s.layer(&format!("{name}-outer-q-slice"), n, |_| vec![outer_q]);
    (s.layer(&format!("{name}-dot"), n, |at| vec![q[at], slices[at]]), outer_r)
}

/// Singular values and both factors, signs made even, from `r` and the chunks of `q`.
fn factors(s: &mut Sketch, q: &[TaskIdx], r: TaskIdx) {
    let svd = s.one("svd", vec![r]);
    let (u, _, v) = (s.one("u", vec![svd]), s.one("s", vec![svd]), s.one("v", vec![svd]));
    let dot = s.layer("u-dot", q.len(), |at| vec![q[at], u]);
    let sign_sum = s.one("sign-sum", vec![v]);
    let sign = s.one("sign", vec![sign_sum]);
    s.layer("u-out", q.len(), |at| vec![dot[at], sign]);
    s.one("v-out", vec![v, sign]);
}

/// The decomposition of a tall matrix of `n` chunks.
fn svd(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let x = s.roots("random", n);
    let (q, r) = tall_qr(&mut s, "x", &x);
    factors(&mut s, &q, r);
    s
}

/// The approximate one (Halko, Martinsson and Tropp, 2011): a sample of the range, refined `n_power` times, then a small one.
fn compressed_svd(n: usize, n_power: usize) -> Sketch {
    let mut s = Sketch::new();
    let omega = s.one("omega", Vec::new());
    let x = s.roots("random", n);
    let mut sample = s.layer("sample", n, |at| vec![x[at], omega]);
    for round in 0..n_power {
        let (q, _) = tall_qr(&mut s, &format!("power-{round}"), &sample);
        let turned = s.layer(&format!("turned-{round}"), n, |at| vec![x[at], q[at]]);
        let sum = s.tree(&format!("turned-{round}"), &turned);
        let small = s.one(&format!("small-qr-{round}"), vec![sum]);
        sample = s.layer(&format!("sample-{round}"), n, |at| vec![x[at], small]);
    }
    let (q, _) = tall_qr(&mut s, "range", &sample);
    let projected = s.layer("projected", n, |at| vec![x[at], q[at]]);
    let sum = s.tree("projected", &projected);
    let small = s.one("small-qr", vec![sum]);
    factors(&mut s, &q, small);
    s
}

/// Odd chunks are read and passed on, even ones made; each odd output needs the neighbourhoods around it.
fn overlap_line(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let read = s.roots("read", n.div_ceil(2));
    let chunks = s.layer("chunk", n, |at| if at % 2 == 0 { vec![read[at / 2]] } else { Vec::new() });
    let joined = s.layer("joined", n, |at| if at % 2 == 0 { vec![chunks[at]] } else { chunks[at - 1..=at + 1].to_vec() });
    s.layer("out", n.div_ceil(2), |at| joined[(2 * at).max(1) - 1..(2 * at + 2).min(n)].to_vec());
    s
}

/// A plane of n by n chunks, each joined with slices of its neighbours, mapped and trimmed.
fn overlap_plane(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let x = s.roots("random", n * n);
    let mut slices: Vec<Vec<TaskIdx>> = Vec::with_capacity(n * n);
    for at in 0..n * n {
        let (row, column) = (at / n, at % n);
        let rows = row.saturating_sub(1)..(row + 2).min(n);
        let around = rows.flat_map(|row| (column.saturating_sub(1)..(column + 2).min(n)).map(move |column| row * n + column));
        let around: Vec<usize> = around.collect();
        slices.push(s.layer(&format!("slice-{at}"), around.len(), |other| vec![x[around[other]]]));
    }
    let joined = s.layer("joined", n * n, |at| slices[at].clone());
    s.map("trim", &joined);
    s
}

/// Each output needs `width` neighbouring roots, as far as there are so many.
fn band(n: usize, width: usize) -> Sketch {
    let mut s = Sketch::new();
    let a = s.roots("a", n);
    // Names and order of adding say nothing about who is whose neighbour.
    let place = |at: usize| at * 7 % n;
    s.layer("b", n, |at| (at.saturating_sub(width - 1)..=at).map(|near| a[place(near)]).collect());
    s
}

/// Every row crossed with every row, and two results of each crossing (`maxima, argmax`).
fn crossed_pairs(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let x = s.roots("x", n);
    let shifted = s.map("shifted", &x);
    let left = s.map("left", &x);
    let right = s.map("right", &shifted);
    let crossed = s.layer("crossed", n * n, |at| vec![left[at / n], right[at % n]]);
    let best = s.map("best", &crossed);
    for name in ["max", "argmax"] {
        let picked = s.map(name, &best);
        s.map(&format!("{name}-out"), &picked);
    }
    s
}

/// A running sum of slices of two roots.
fn running_sum(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let start = s.roots("start", 3);
    let b = s.layer("b", n - 1, |_| vec![start[1]]);
    let c = s.layer("c", n - 1, |_| vec![start[2]]);
    let mut last = s.one("first", start);
    for at in 0..n - 1 {
        last = s.one(&format!("sum-{at}"), vec![last, b[at], c[at]]);
    }
    s
}

/// Groups of rows out of chunks that do not end where groups do: neighbouring groups share a chunk.
fn cohorts(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let opened = s.roots("open", 3 * n + 1);
    let pieces = s.layer("piece", 4 * n, |at| vec![opened[at / 4 * 3 + at % 4]]);
    let merged = s.layer("merged", 2 * n, |at| pieces[at * 2..at * 2 + 2].to_vec());
    let chunks = s.map("group-chunk", &merged);
    // A cohort takes the odd or the even ones of four.
    let cohort = s.layer("cohort", n, |at| {
        let first = at / 2 * 4 + at % 2;
        [first, first + 2].into_iter().filter(|&chunk| chunk < chunks.len()).map(|chunk| chunks[chunk]).collect()
    });
    s.map("transpose", &cohort);
    s
}

/// Each output takes a piece of every chunk.
fn grouped(n_chunks: usize, n_outputs: usize) -> Sketch {
    let mut s = Sketch::new();
    let chunks = s.roots("chunk", n_chunks);
    let pieces = s.layer("piece", n_chunks * n_outputs, |at| vec![chunks[at % n_chunks]]);
    let joined = s.layer("joined", n_outputs, |at| pieces[at * n_chunks..(at + 1) * n_chunks].to_vec());
    s.map("out", &joined);
    s
}

/// Two reductions of the same chunks, one added up in pairs, one in pairs that end differently; a chunk is done with when both took it.
fn two_uneven_trees(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let read = s.roots("read", n);
    let chunks = s.map("chunk", &read);
    let mut ends = Vec::new();
    for (name, first) in [("sum", 0), ("count", n % 8)] {
        let mut rest: Vec<TaskIdx> = s.map(&format!("{name}-chunk"), &chunks);
        rest.rotate_left(first);
        let mut depth = 0;
        while rest.len() > 1 {
            let pieces: Vec<Vec<TaskIdx>> = rest.chunks(2).map(<[TaskIdx]>::to_vec).collect();
            rest = s.layer(&format!("{name}-{depth}"), pieces.len(), |at| pieces[at].clone());
            depth += 1;
        }
        ends.push(rest[0]);
    }
    s.one("divide", ends);
    s
}

/// Two matrices of n by n blocks, multiplied.
fn blocked_product(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let (a, b) = (s.roots("a", n * n), s.roots("b", n * n));
    let products = s.layer("product", n * n * n, |at| vec![a[at / n / n * n + at % n], b[at % n * n + at / n % n]]);
    s.layer("sum", n * n, |at| products[at * n..(at + 1) * n].to_vec());
    s
}

/// The sum over `x + transpose(x)` of n by n blocks.
fn plus_transpose(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let x = s.roots("x", n * n);
    let turned = s.map("turned", &x);
    let both = s.layer("both", n * n, |at| vec![x[at], turned[at % n * n + at / n]]);
    let sums = s.map("sum-chunk", &both);
    s.tree("sum", &sums);
    s
}

/// The right-looking factorisation of n by n blocks; the factor's blocks are the outputs.
fn cholesky(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let mut block: Vec<Vec<TaskIdx>> = (0..n).map(|row| s.roots(&format!("a-{row}"), row + 1)).collect();
    for k in 0..n {
        block[k][k] = s.one(&format!("factor-{k}"), vec![block[k][k]]);
        for row in k + 1..n {
            block[row][k] = s.one(&format!("solve-{row}-{k}"), vec![block[row][k], block[k][k]]);
        }
        for row in k + 1..n {
            for column in k + 1..=row {
                let inputs = vec![block[row][column], block[row][k], block[column][k]];
                block[row][column] = s.one(&format!("update-{row}-{column}-{k}"), inputs);
            }
        }
    }
    s
}

/// Rows of an n by n plane to columns, square by square of four, and a sum a column.
fn rechunk(n: usize) -> Sketch {
    let mut s = Sketch::new();
    let rows = s.roots("row", n);
    let pieces = s.layer("piece", n * n / 4, |at| vec![rows[at / (n / 4)]]);
    let squares = s.layer("square", n / 4 * (n / 4), |at| {
        (0..4).map(|row| pieces[(at / (n / 4) * 4 + row) * (n / 4) + at % (n / 4)]).collect()
    });
    let cuts = s.layer("cut", n / 4 * n, |at| vec![squares[at / n * (n / 4) + at % n / 4]]);
    let columns = s.layer("column", n, |at| (0..n / 4).map(|square| cuts[square * n + at]).collect());
    s.map("sum", &columns);
    s
}
