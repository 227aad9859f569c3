//! Whole arrays: the same tree over many chunkings against plain `ndarray`, and the counts that laziness and fusion promise.

use ndarray::{ArrayD, Axis, IxDyn};

use crate::array::{Array, Index};
use crate::chunk::Chunk;
use crate::chunking::{ChunkSpec, UNKNOWN};
use crate::dtype::DType;
use crate::kernels::random::Distributed;
use crate::kernels::reduce::Reduction;
use crate::scalar::Scalar;
use crate::testing::{assert_close, compute, compute_counting, parse, value};

/// A small generator for cuts and shapes; Knuth's MMIX constants.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    /// Random cuts of an axis, sometimes with an empty chunk.
    fn cuts(&mut self, size: usize) -> Vec<usize> {
        let (mut left, mut sizes) = (size, Vec::new());
        while left > 0 {
            let piece = 1 + self.roll(left.min(5));
            sizes.push(piece);
            left -= piece;
        }
        if sizes.is_empty() || self.roll(6) == 0 {
            sizes.insert(self.roll(sizes.len() + 1), 0);
        }
        sizes
    }

    fn array(&mut self, shape: &[usize]) -> (ArrayD<f64>, Array) {
        let numbers = ArrayD::from_shape_fn(IxDyn(shape), |_| self.roll(2000) as f64 / 100.0 - 10.0);
        let cuts = shape.iter().map(|&size| self.cuts(size)).collect();
        let array = Array::from_ndarray(&numbers.view(), &ChunkSpec::explicit(cuts)).unwrap();
        (numbers, array)
    }
}

fn chunk(array: &ArrayD<f64>) -> Chunk {
    Chunk::from_ndarray(&array.view())
}

#[test]
fn elementwise_with_broadcasting_and_transposes() {
    let mut dice = Dice(1);
    for round in 0..25 {
        let (n, m) = (1 + dice.roll(12), 1 + dice.roll(12));
        let ((a, x), (b, y), (c, z)) = (dice.array(&[n, m]), dice.array(&[m, n]), dice.array(&[m]));
        let got = value("(x + y.T) * z - x.mean(axis=0)", &[("x", &x), ("y", &y), ("z", &z)]);
        let want = (&a + &b.t()) * &c - a.mean_axis(Axis(0)).unwrap();
        assert_close(&format!("round {round}"), &got, &chunk(&want.into_dyn()));
        let got = value("exp(-abs(z[:, None] - z)) + x[:1, :1]", &[("x", &x), ("z", &z)]);
        let want = ArrayD::from_shape_fn(IxDyn(&[m, m]), |at| (-(c[at[0]] - c[at[1]]).abs()).exp() + a[[0, 0]]);
        assert_close(&format!("round {round}"), &got, &chunk(&want));
    }
}

#[test]
fn long_rows_and_tiles_agree_with_ndarray() {
    for (n, m) in [(3, 5000), (5000, 3), (300, 257), (64, 64), (1, 4097)] {
        let a = ArrayD::from_shape_fn(IxDyn(&[n, m]), |at| (at[0] * 31 + at[1] * 17) as f64 % 101.0);
        let b = ArrayD::from_shape_fn(IxDyn(&[m, n]), |at| (at[0] * 7 + at[1] * 13) as f64 % 97.0);
        let whole = |array: &ArrayD<f64>| Array::from_ndarray(&array.view(), &ChunkSpec::Size(-1)).unwrap();
        let got = value("x - y.T + x[:1] * y.T[:, :1]", &[("x", &whole(&a)), ("y", &whole(&b))]);
        let want =
            ArrayD::from_shape_fn(IxDyn(&[n, m]), |at| a[[at[0], at[1]]] - b[[at[1], at[0]]] + a[[0, at[1]]] * b[[0, at[0]]]);
        assert_close("tiles", &got, &chunk(&want));
    }
}

#[test]
fn three_axes_permuted_in_every_way() {
    let mut dice = Dice(2);
    let (a, x) = dice.array(&[4, 3, 5]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let axes: Vec<i64> = order.iter().map(|&axis| axis as i64).collect();
        let view = x.transpose(Some(&axes)).unwrap();
        let want = a.view().permuted_axes(IxDyn(&order)).to_owned();
        assert_close("view", &compute(&view), &chunk(&want));
        let doubled = parse("v + v", &[("v", &view)]).unwrap();
        assert_close("fused view", &compute(&doubled), &chunk(&(&want + &want)));
    }
}

#[test]
fn reductions_over_every_choice_of_axes() {
    let mut dice = Dice(3);
    let (a, x) = dice.array(&[6, 5, 7]);
    let reduce = |axes: &[i64], keepdims: bool, fold: &dyn Fn(&[f64]) -> f64| {
        let kept: Vec<usize> = (0..3).filter(|axis| !axes.contains(&(*axis as i64))).collect();
        let shape: Vec<usize> = kept.iter().map(|&axis| a.shape()[axis]).collect();
        let result = ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let group: Vec<f64> = a
                .indexed_iter()
                .filter(|(place, _)| kept.iter().enumerate().all(|(own, &axis)| place[axis] == at[own]))
                .map(|(_, value)| *value)
                .collect();
            fold(&group)
        });
        let full: Vec<usize> = (0..3).map(|axis| if axes.contains(&(axis as i64)) { 1 } else { a.shape()[axis] }).collect();
        if keepdims { result.into_shape_with_order(IxDyn(&full)).unwrap() } else { result }
    };
    let mean = |group: &[f64]| group.iter().sum::<f64>() / group.len() as f64;
    let var = move |group: &[f64]| group.iter().map(|x| (x - mean(group)).powi(2)).sum::<f64>() / group.len() as f64;
    type Fold = Box<dyn Fn(&[f64]) -> f64>;
    let folds: Vec<(Reduction, Fold)> = vec![
        (Reduction::Sum, Box::new(|group| group.iter().sum())),
        (Reduction::Mean, Box::new(mean)),
        (Reduction::Var, Box::new(var)),
        (Reduction::Std, Box::new(move |group| var(group).sqrt())),
        (Reduction::Min, Box::new(|group| group.iter().copied().fold(f64::INFINITY, f64::min))),
        (Reduction::Max, Box::new(|group| group.iter().copied().fold(f64::NEG_INFINITY, f64::max))),
        (Reduction::Prod, Box::new(|group| group.iter().product())),
    ];
    for axes in [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 2], vec![1, 2], vec![0, 1, 2], vec![]] {
        for keepdims in [false, true] {
            for (reduction, fold) in &folds {
                let got = compute(&x.reduce(*reduction, Some(&axes), keepdims, 0).unwrap());
                assert_close(&format!("{reduction:?} over {axes:?}"), &got, &chunk(&reduce(&axes, keepdims, fold)));
            }
        }
    }
}

#[test]
fn positions_do_not_depend_on_chunks_and_find_the_first() {
    let mut dice = Dice(4);
    for _ in 0..10 {
        let numbers = ArrayD::from_shape_fn(IxDyn(&[7, 9]), |_| dice.roll(5) as f64);
        let cuts = vec![dice.cuts(7), dice.cuts(9)];
        let x = Array::from_ndarray(&numbers.view(), &ChunkSpec::explicit(cuts)).unwrap();
        let first = |values: &[f64]| {
            values.iter().position(|value| *value == values.iter().copied().fold(f64::INFINITY, f64::min)).unwrap() as i64
        };
        let flat: Vec<f64> = numbers.iter().copied().collect();
        assert_eq!(value("x.argmin()", &[("x", &x)]).as_slice::<i64>().unwrap(), &[first(&flat)]);
        let by_column: Vec<i64> =
            (0..9).map(|column| first(&numbers.index_axis(Axis(1), column).iter().copied().collect::<Vec<f64>>())).collect();
        assert_eq!(value("x.argmin(axis=0)", &[("x", &x)]).as_slice::<i64>().unwrap(), &by_column[..]);
    }
}

#[test]
fn nan_and_integers_reduce_as_in_numpy() {
    let x = Array::from_ndarray(
        &ArrayD::from_shape_vec(IxDyn(&[4]), vec![1.0, f64::NAN, 0.0, 3.0]).unwrap().view(),
        &ChunkSpec::Size(1),
    )
    .unwrap();
    assert_eq!(value("[x.min(), x.max(), x.sum(), 1]", &[("x", &x)]).to_string(), "[nan nan nan  1.]");
    assert_eq!(value("x.argmax()", &[("x", &x)]).to_string(), "1");
    assert_eq!(value("isnan(x).sum()", &[("x", &x)]).to_string(), "1");
    let bytes = parse("arange(200).astype('uint8')", &[]).unwrap();
    let sum = value("b.sum()", &[("b", &bytes)]);
    assert_eq!((sum.dtype(), sum.to_string()), (DType::U64, "19900".to_owned()));
    assert_eq!(value("b.mean()", &[("b", &bytes)]).to_string(), "99.5");
    assert_eq!(value("b + b", &[("b", &bytes)]).element(199), Some(Scalar::Int((199 * 2) % 256)));
}

#[test]
fn slices_rechunks_and_reshapes() {
    let mut dice = Dice(5);
    for round in 0..60 {
        let (n, m) = (dice.roll(12), 1 + dice.roll(12));
        let (a, x) = dice.array(&[n, m]);
        let mut bound = |size: usize| (dice.roll(3) > 0).then(|| dice.roll(2 * size + 4) as i64 - size as i64 - 2);
        let (start, stop) = (bound(n), bound(n));
        let step = [1, 2, 3, -1, -2][dice.roll(5)];
        let sliced = x.index(&[Index::Slice(start, stop, step), Index::Slice(None, None, -1)]).unwrap();
        let range = crate::kernels::layout::Range::of(start, stop, step, n).unwrap();
        let want = ArrayD::from_shape_fn(IxDyn(&[range.n, m]), |at| a[[range.at(at[0]), m - 1 - at[1]]]);
        assert_close(&format!("round {round}: {start:?}:{stop:?}:{step}"), &compute(&sliced), &chunk(&want));
        let cuts = ChunkSpec::explicit(vec![dice.cuts(n), dice.cuts(m)]);
        assert_close(&format!("round {round}: rechunk"), &compute(&x.rechunk(&cuts).unwrap()), &chunk(&a));
        let reshaped = x.reshape(&[m as i64, n as i64]).unwrap();
        assert_close(
            &format!("round {round}: reshape"),
            &compute(&reshaped),
            &chunk(&a.clone().into_shape_with_order(IxDyn(&[m, n])).unwrap()),
        );
        assert_close(
            &format!("round {round}: ravel"),
            &compute(&x.ravel().unwrap()),
            &chunk(&a.into_shape_with_order(IxDyn(&[n * m])).unwrap()),
        );
    }
}

#[test]
fn products_of_irregular_blocks() {
    let mut dice = Dice(6);
    for _ in 0..10 {
        let (n, k, m) = (1 + dice.roll(9), 1 + dice.roll(30), 1 + dice.roll(9));
        let ((a, x), (b, y)) = (dice.array(&[n, k]), dice.array(&[k, m]));
        let want = ArrayD::from_shape_fn(IxDyn(&[n, m]), |at| (0..k).map(|i| a[[at[0], i]] * b[[i, at[1]]]).sum());
        assert_close("matmul", &value("x @ y", &[("x", &x), ("y", &y)]), &chunk(&want));
        assert_close(
            "integers",
            &value("(x.astype('int32') @ y.astype('int32')).astype('float64')", &[("x", &x), ("y", &y)]),
            &{
                let whole = |v: f64| v.trunc();
                chunk(&ArrayD::from_shape_fn(IxDyn(&[n, m]), |at| {
                    (0..k).map(|i| whole(a[[at[0], i]]) * whole(b[[i, at[1]]])).sum()
                }))
            },
        );
    }
}

#[test]
fn least_squares_recovers_a_line_also_from_rows_of_unknown_number() {
    let x = Array::random(Distributed::Normal, &[], &[200, 2], 3, None, &ChunkSpec::explicit(vec![vec![70, 1, 129], vec![1, 1]]))
        .unwrap();
    let y = parse("x @ [2.0, -3.0]", &[("x", &x)]).unwrap();
    assert_close(
        "lstsq",
        &value("linalg.lstsq(x, y)", &[("x", &x), ("y", &y)]),
        &Chunk::from_slice(vec![2], &[2.0, -3.0]).unwrap(),
    );
    // Two equal columns: the shortest solution shares the weight.
    let twice = parse("concatenate([x[:, :1], x[:, :1]], axis=1)", &[("x", &x)]).unwrap();
    let y = parse("4 * x[:, 0]", &[("x", &x)]).unwrap();
    assert_close(
        "rank",
        &value("linalg.lstsq(t, y)", &[("t", &twice), ("y", &y)]),
        &Chunk::from_slice(vec![2], &[2.0, 2.0]).unwrap(),
    );
    // The same with the number of rows hidden.
    let mut registry = rask_graphs::Registry::new();
    crate::register(&mut registry);
    let mut graph = rask_graphs::GraphBuilder::new();
    let mut lowering = crate::Lowering::new(&mut graph);
    let tasks = lowering.lower(&x.rechunk(&ChunkSpec::explicit(vec![vec![70, 1, 129], vec![2]])).unwrap()).unwrap().tasks;
    let hidden = Array::from_tasks(tasks, DType::F64, vec![vec![UNKNOWN; 3], vec![2]]).unwrap();
    let solution =
        parse("linalg.lstsq(concatenate([h, ones_like(h[:, :1])], axis=1), 2 * h[:, 0] - 3 * h[:, 1] + 1)", &[("h", &hidden)])
            .unwrap();
    let mean = parse("h.mean(axis=0)", &[("h", &hidden)]).unwrap();
    let wanted = [lowering.assemble(&solution).unwrap(), lowering.assemble(&mean).unwrap()];
    for task in wanted {
        graph.output(task);
    }
    let finished = graph.finish(&rask_graphs::FinishOptions::default()).unwrap();
    let outputs = wanted.map(|task| finished.renumbering[task.index()].unwrap());
    let values = rask_graphs::evaluate::evaluate(&finished.graph, &registry, &outputs).unwrap();
    assert_close("unknown rows", values[0].downcast::<Chunk>().unwrap(), &Chunk::from_slice(vec![3], &[2.0, -3.0, 1.0]).unwrap());
    assert_close("mean", values[1].downcast::<Chunk>().unwrap(), &value("x.mean(axis=0)", &[("x", &x)]));
}

#[test]
fn random_numbers_do_not_depend_on_chunks() {
    let whole = Array::random(Distributed::Normal, &[], &[50, 40], 9, None, &ChunkSpec::Size(-1)).unwrap();
    let mut dice = Dice(7);
    for _ in 0..5 {
        let cuts = ChunkSpec::explicit(vec![dice.cuts(50), dice.cuts(40)]);
        let cut = Array::random(Distributed::Normal, &[], &[50, 40], 9, None, &cuts).unwrap();
        assert_eq!(compute(&cut), compute(&whole));
    }
    let other = Array::random(Distributed::Normal, &[], &[50, 40], 10, None, &ChunkSpec::Size(-1)).unwrap();
    assert_ne!(compute(&other), compute(&whole));
}

#[test]
fn empty_and_0d_arrays() {
    let empty = Array::zeros(&[0, 3], None, &ChunkSpec::default()).unwrap();
    assert_eq!(compute(&empty).shape(), &[0, 3]);
    assert_eq!(value("z.sum(axis=0) + 1", &[("z", &empty)]).to_string(), "[1. 1. 1.]");
    assert_eq!(value("z.T @ z", &[("z", &empty)]).to_string(), "[[0. 0. 0.]\n [0. 0. 0.]\n [0. 0. 0.]]");
    assert_eq!(value("(z + 1).reshape(3, 0).sum()", &[("z", &empty)]).to_string(), "0.0");
    assert!(empty.reduce(Reduction::Max, None, false, 0).is_err());
    assert_eq!(value("z.mean()", &[("z", &empty)]).to_string(), "nan");
    let point = Array::full(&[], Scalar::Float(2.0), None, &ChunkSpec::default()).unwrap();
    assert_eq!(value("sqrt(p * p) + p.sum() + p.T", &[("p", &point)]).to_string(), "6.0");
    assert_eq!(value("p[None, ...].reshape(1, 1, 1)", &[("p", &point)]).to_string(), "[[[2.]]]");
}

#[test]
fn only_what_is_needed_is_lowered_and_trees_are_one_task_a_chunk() {
    let ones = Array::ones(&[100, 100], None, &ChunkSpec::Size(10)).unwrap();
    let count = |text: &str| compute_counting(&parse(text, &[("x", &ones)]).unwrap()).unwrap().1;
    assert_eq!(count("x[:10, :10]"), 1);
    assert_eq!(count("x[3:5, :10] * 2"), 3);
    assert_eq!(count("sqrt(x * x + 1) - x / 2"), 200);
    assert_eq!(count("(x * 2)[0, :10].sum()"), 5);
    // Rows to columns: ten splits, ten assemblies, and ten times ten parts behind ten edges.
    let rows = Array::ones(&[100, 100], None, &ChunkSpec::explicit(vec![vec![10; 10], vec![100]])).unwrap();
    let columns = rows.rechunk(&ChunkSpec::explicit(vec![vec![100], vec![10; 10]])).unwrap();
    assert_eq!(compute_counting(&columns).unwrap().1, 30);
    let mut graph = rask_graphs::GraphBuilder::new();
    crate::Lowering::new(&mut graph).lower(&columns).unwrap();
    let finished = graph.finish(&rask_graphs::FinishOptions { fuse: false, ..Default::default() }).unwrap();
    assert_eq!((finished.graph.n_groups(), finished.graph.inputs.len()), (1, 20));
}

#[test]
fn what_cannot_be_held_is_refused_before_it_is_made() {
    let mut registry = rask_graphs::Registry::new();
    crate::register(&mut registry);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npy");
    std::fs::write(&path, npy_of_zeros(2_000)).unwrap();
    let ctx = rask_graphs::TaskContext { memory_limit: Some(10_000), ..rask_graphs::TaskContext::detached("it") };
    let row = || rask_graphs::Value::new(Chunk::from_slice(vec![1, 900], &[1.0; 900]).unwrap());
    let column = || rask_graphs::Value::new(Chunk::from_slice(vec![900, 1], &[1.0; 900]).unwrap());
    let line = || rask_graphs::Value::new(Chunk::from_slice(vec![900], &[1.0; 900]).unwrap());
    let cases = [
        ("array.random", r#"{"distribution": "normal", "shape": [2000], "seed": 1}"#.to_owned(), vec![]),
        ("array.create", r#"{"fill": {"full": 1.0}, "shape": [2000]}"#.to_owned(), vec![]),
        ("array.load", format!("{{\"path\": {:?}}}", path.display().to_string()), vec![]),
        ("array.add", "{}".to_owned(), vec![row(), column()]),
        ("array.matmul", "{}".to_owned(), vec![column(), row()]),
        ("array.diag", "{}".to_owned(), vec![line()]),
        ("array.concatenate", "{}".to_owned(), vec![line(), line()]),
        ("array.assemble", r#"{"counts": [2]}"#.to_owned(), vec![line(), line()]),
    ];
    for (operator, args, inputs) in cases {
        let kernel = registry.prepare(operator, 1, &args).unwrap();
        let error = kernel.run(&ctx, &inputs).map(|value| value.nbytes()).unwrap_err();
        assert!(error.0.contains("the worker has 10000"), "{operator}: {error}");
        let made = kernel.run(&rask_graphs::TaskContext::detached("it"), &inputs).unwrap();
        assert!(made.nbytes() > 10_000, "{operator}: {} bytes", made.nbytes());
    }
}

/// An npy file of `n` zeros.
fn npy_of_zeros(n: usize) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({n},), }}");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + n * 8, 0);
    file
}

#[test]
fn files_come_back_as_they_went() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.npy");
    let (a, x) = Dice(8).array(&[13, 11]);
    let mut registry = rask_graphs::Registry::new();
    crate::register(&mut registry);
    let mut graph = rask_graphs::GraphBuilder::new();
    let written = crate::Lowering::new(&mut graph).write_npy(&x, &path.display().to_string()).unwrap();
    graph.output(written);
    let finished = graph.finish(&rask_graphs::FinishOptions::default()).unwrap();
    rask_graphs::evaluate::evaluate(&finished.graph, &registry, &[finished.renumbering[written.index()].unwrap()]).unwrap();
    let back = Array::load(&path, &ChunkSpec::Size(4)).unwrap();
    assert_eq!(back.shape(), &[13, 11]);
    assert_eq!(compute(&back), chunk(&a));
    let error = Array::load(&directory.path().join("y.npy"), &ChunkSpec::default()).unwrap_err().to_string();
    assert!(error.contains("y.npy"), "{error}");
}

#[test]
fn an_axis_of_length_1_may_be_cut_into_empty_chunks_and_a_full_one() {
    let numbers = ArrayD::from_shape_fn(IxDyn(&[1, 3]), |at| at[1] as f64 + 1.0);
    let others = ArrayD::from_shape_fn(IxDyn(&[5, 3]), |at| (at[0] * 3 + at[1]) as f64);
    let v = Array::from_ndarray(&others.view(), &ChunkSpec::explicit(vec![vec![2, 0, 3], vec![2, 1]])).unwrap();
    let texts = [
        "k + v",
        "v - k",
        "maximum(k, v)",
        "where(k > 2, v, k)",
        "(k * v).sum(axis=0)",
        "k[0]",
        "k[-1, 1]",
        "k[0] + v",
        "k + k[0]",
        "k.T + v[:3]",
        "squeeze(k)",
        "k @ v.T",
        "v @ k.T",
        "k.reshape(3)",
        "k[..., None] + k[:, None, :]",
        "outer(k, k)",
        "concatenate([k, v])",
        "stack([k, k])",
        "k.sum(axis=0)",
        "k.argmax(axis=1)",
        "k[:, ::-1]",
        "diag(k)",
        "k[0].argmax()",
        "clip(v, k, k + 1)",
        "stack([v, v]) @ k.T",
        "ones_like(k) + k",
        "k.astype('float32') + v",
        "fmod(v, k) // k",
    ];
    for cuts in [vec![vec![0, 1], vec![3]], vec![vec![1, 0], vec![0, 3, 0]], vec![vec![0, 0, 1, 0], vec![1, 0, 2]]] {
        let k = Array::from_ndarray(&numbers.view(), &ChunkSpec::explicit(cuts.clone())).unwrap();
        let plain = Array::from_ndarray(&numbers.view(), &ChunkSpec::Size(-1)).unwrap();
        for text in texts {
            let got = value(text, &[("k", &k), ("v", &v)]);
            assert_eq!(got, value(text, &[("k", &plain), ("v", &v)]), "{text} with {cuts:?}");
        }
    }
}

#[test]
fn depth_of_a_tree_costs_no_stack() {
    let run = || {
        // Each step is a task of its own: a reversed view cannot be fused.
        let mut x = parse("arange(4.0)", &[]).unwrap();
        for _ in 0..6_000 {
            x = parse("x[::-1] + 1", &[("x", &x)]).unwrap();
        }
        assert_eq!(compute(&x).to_string(), "[6000. 6001. 6002. 6003.]");
        let mut y = parse("arange(3.0)", &[]).unwrap();
        let error = loop {
            match parse("-y", &[("y", &y)]) {
                Ok(next) => y = next,
                Err(error) => break error,
            }
        };
        assert!(error.message.contains("20000 operations one after another"), "{error}");
    };
    // As little stack as a thread of a runtime has.
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn doubling_again_and_again_is_no_bomb() {
    let mut x = parse("ones((2,))", &[]).unwrap();
    for _ in 0..500 {
        x = parse("x + x", &[("x", &x)]).unwrap();
    }
    let (chunk, n_tasks) = compute_counting(&x).unwrap();
    assert_eq!(chunk.element(0), Some(Scalar::Float(2f64.powi(500))));
    assert!(n_tasks < 600, "{n_tasks}");
}

#[test]
fn many_chunks_are_planned_in_time_that_grows_with_them_only() {
    let started = std::time::Instant::now();
    for text in [
        "arange(30000, chunks=1)[1:].rechunk(7)[::-1]",
        "zeros((30000,), chunks=1)[1:].argmin()",
        "concatenate([arange(15000, chunks=1), arange(15000, chunks=2)])[::3]",
    ] {
        let array = parse(text, &[]).unwrap();
        let mut graph = rask_graphs::GraphBuilder::new();
        crate::Lowering::new(&mut graph).lower(&array).unwrap();
        assert!(graph.n_tasks() > 10_000, "{text}");
    }
    // Quadratic planning took minutes.
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}
