//! The dependence patterns of Task Bench: which points of a step each point of the next step depends on.
//!
//! A re-implementation after the definitions in Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating
//! Parallel Runtime Performance" (SC 2020). A graph is a grid of `steps` rows and at most `width` columns; task `(step, point)`
//! depends on tasks of row `step - 1` only. Where a pattern draws at random, the distribution is that of the paper and the
//! draws are our own.

use std::ops::Range;

use clap::ValueEnum;

/// A dependence pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pattern {
    /// No dependence at all
    #[value(name = "trivial")]
    Trivial,
    /// Each point on itself
    #[value(name = "no_comm")]
    NoComm,
    /// Each point on itself and its two neighbours
    #[value(name = "stencil_1d")]
    Stencil1d,
    /// The same, and the first and the last point are neighbours
    #[value(name = "stencil_1d_periodic")]
    Stencil1dPeriodic,
    /// A wavefront that sweeps a two-dimensional domain from corner to corner
    #[value(name = "dom")]
    Dom,
    /// A broadcast: each point on its parent in a binary tree
    #[value(name = "tree")]
    Tree,
    /// Butterflies: each point on itself and those a power of two away, another power each step
    #[value(name = "fft")]
    Fft,
    /// Each point on all points
    #[value(name = "all_to_all")]
    AllToAll,
    /// Each point on the `radix` points around it
    #[value(name = "nearest")]
    Nearest,
    /// Each point on `radix` points spread evenly over the row, others each step
    #[value(name = "spread")]
    Spread,
    /// As nearest, but each point other than itself only with probability 1/4
    #[value(name = "random_nearest")]
    RandomNearest,
}

impl Pattern {
    /// The name on the command line and in the reports.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Fewest steps with which the grid is the pattern's: the wavefront needs room to open and to close.
    pub(super) fn least_steps(self, width: u32) -> u32 {
        if self == Self::Dom { width.saturating_mul(2) } else { 1 }
    }

    /// Whether most results have no consumer within the pattern, so that they are still there when the graph ends.
    pub(super) fn leaves_results(self) -> bool {
        matches!(self, Self::Trivial | Self::Tree)
    }
}

/// Sets of dependences that `spread` and `random_nearest` go through before they repeat.
const PERIOD: u32 = 3;
/// With which `random_nearest` keeps a point of the window.
const FRACTION: f64 = 0.25;

/// A pattern of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// The pattern.
    pub(super) pattern: Pattern,
    /// Most points in a row, at least 1.
    pub(super) width: u32,
    /// Rows.
    pub(super) steps: u32,
    /// Dependences of a point in nearest, spread and random_nearest, at least 1.
    pub(super) radix: u32,
}

impl Shape {
    /// The points of row `step`.
    pub(super) fn row(&self, step: u32) -> Range<u32> {
        let Self { pattern, width, steps, .. } = *self;
        match pattern {
            Pattern::Dom => {
                let begin = (step + width).saturating_sub(steps);
                begin..begin + width.min(step + 1).min(steps - step)
            }
            Pattern::Tree => 0..1_u32.checked_shl(step).unwrap_or(u32::MAX).min(width),
            Pattern::Trivial
            | Pattern::NoComm
            | Pattern::Stencil1d
            | Pattern::Stencil1dPeriodic
            | Pattern::Fft
            | Pattern::AllToAll
            | Pattern::Nearest
            | Pattern::Spread
            | Pattern::RandomNearest => 0..width,
        }
    }

    /// The points of row `step - 1` that `(step, point)` depends on, ascending and distinct; none for the first row.
    pub(super) fn dependencies(&self, step: u32, point: u32) -> Vec<u32> {
        if step == 0 {
            return Vec::new();
        }
        let (width, radix, i) = (i64::from(self.width), i64::from(self.radix), i64::from(point));
        let nearest = i - radix / 2..=i + (radix - 1) / 2;
        let wanted: Vec<i64> = match self.pattern {
            Pattern::Trivial => Vec::new(),
            Pattern::NoComm => vec![i],
            Pattern::Stencil1d => vec![i - 1, i, i + 1],
            Pattern::Stencil1dPeriodic => vec![(i + width - 1) % width, i, (i + 1) % width],
            Pattern::Dom => vec![i - 1, i],
            Pattern::Tree => vec![i / 2],
            Pattern::Fft => {
                // The smallest power of two that is not less than the width has this many halvings.
                let n_sets = self.width.next_power_of_two().trailing_zeros();
                match (step - 1).checked_rem(n_sets) {
                    Some(set) => vec![i - (1 << set), i, i + (1 << set)],
                    None => vec![i],
                }
            }
            Pattern::AllToAll => (0..width).collect(),
            Pattern::Nearest => nearest.collect(),
            Pattern::Spread => {
                // More sets than points between two dependences would repeat them.
                let set = i64::from(step % PERIOD.min(self.width.div_ceil(self.radix)));
                let shifted = |k: i64| i + k * width / radix + if k > 0 { set } else { 0 };
                (0..radix).map(|k| shifted(k) % width).collect()
            }
            Pattern::RandomNearest => {
                let is_kept = |j: &i64| *j == i || draw(step % PERIOD, point, *j) < FRACTION;
                nearest.filter(is_kept).collect()
            }
        };
        let previous = self.row(step - 1);
        let mut points: Vec<u32> =
            wanted.into_iter().filter_map(|point| u32::try_from(point).ok()).filter(|point| previous.contains(point)).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Number of tasks.
    #[cfg(test)]
    pub(super) fn n_tasks(&self) -> u64 {
        (0..self.steps).map(|step| self.row(step).len() as u64).sum()
    }
}

/// A number in [0, 1) that is always the same for the same three: the finaliser of splitmix64 (Steele et al. 2014) over each.
fn draw(set: u32, point: u32, other: i64) -> f64 {
    let mut state = 0_u64;
    for word in [u64::from(set), u64::from(point), other.cast_unsigned()] {
        state = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pattern: Pattern, width: u32, steps: u32) -> Shape {
        Shape { pattern, width, steps, radix: 5 }
    }

    /// The dependences of all points of row `step`.
    fn sets(shape: Shape, step: u32) -> Vec<Vec<u32>> {
        shape.row(step).map(|point| shape.dependencies(step, point)).collect()
    }

    #[test]
    fn trivial_depends_on_nothing_and_no_comm_on_itself() {
        assert_eq!(sets(shape(Pattern::Trivial, 3, 5), 4), [[0_u32; 0]; 3]);
        assert_eq!(sets(shape(Pattern::NoComm, 3, 5), 4), [[0], [1], [2]]);
    }

    #[test]
    fn a_stencil_is_clipped_at_its_ends_unless_it_is_periodic() {
        let stencil = shape(Pattern::Stencil1d, 4, 9);
        assert_eq!(sets(stencil, 8), vec![vec![0, 1], vec![0, 1, 2], vec![1, 2, 3], vec![2, 3]]);
        let periodic = shape(Pattern::Stencil1dPeriodic, 4, 9);
        assert_eq!(sets(periodic, 8), vec![vec![0, 1, 3], vec![0, 1, 2], vec![1, 2, 3], vec![0, 2, 3]]);
        assert_eq!(sets(shape(Pattern::Stencil1dPeriodic, 2, 9), 8), vec![vec![0, 1], vec![0, 1]]);
        assert_eq!(sets(shape(Pattern::Stencil1dPeriodic, 1, 9), 8), vec![vec![0]]);
    }

    #[test]
    fn the_wavefront_opens_and_closes() {
        let dom = shape(Pattern::Dom, 3, 6);
        let rows: Vec<Range<u32>> = (0..6).map(|step| dom.row(step)).collect();
        assert_eq!(rows, [0..1, 0..2, 0..3, 0..3, 1..3, 2..3]);
        assert_eq!(sets(dom, 1), vec![vec![0], vec![0]]);
        assert_eq!(sets(dom, 3), vec![vec![0], vec![0, 1], vec![1, 2]]);
        assert_eq!(sets(dom, 4), vec![vec![0, 1], vec![1, 2]]);
        assert_eq!(sets(dom, 5), vec![vec![1, 2]]);
    }

    #[test]
    fn the_tree_doubles_until_it_is_as_wide_as_allowed() {
        let tree = shape(Pattern::Tree, 5, 40);
        let widths: Vec<usize> = (0..5).map(|step| tree.row(step).len()).collect();
        assert_eq!(widths, [1, 2, 4, 5, 5]);
        assert_eq!(tree.row(39), 0..5, "a step number past the bits of a word");
        assert_eq!(sets(tree, 2), [[0], [0], [1], [1]]);
        assert_eq!(sets(tree, 4), [[0], [0], [1], [1], [2]]);
    }

    #[test]
    fn butterflies_go_through_the_powers_of_two() {
        let fft = shape(Pattern::Fft, 8, 9);
        assert_eq!(fft.dependencies(1, 3), [2, 3, 4]);
        assert_eq!(fft.dependencies(2, 3), [1, 3, 5]);
        assert_eq!(fft.dependencies(3, 3), [3, 7]);
        assert_eq!(fft.dependencies(4, 3), [2, 3, 4], "eight points have three sets");
        assert_eq!(shape(Pattern::Fft, 5, 9).dependencies(3, 0), [0, 4]);
        assert_eq!(shape(Pattern::Fft, 1, 9).dependencies(3, 0), [0]);
    }

    #[test]
    fn all_to_all_depends_on_the_whole_row() {
        assert_eq!(sets(shape(Pattern::AllToAll, 3, 2), 1), [[0, 1, 2], [0, 1, 2], [0, 1, 2]]);
    }

    #[test]
    fn nearest_is_a_window_that_leans_left_when_even() {
        let nearest = shape(Pattern::Nearest, 10, 2);
        assert_eq!(nearest.dependencies(1, 5), [3, 4, 5, 6, 7]);
        assert_eq!(nearest.dependencies(1, 0), [0, 1, 2]);
        assert_eq!(nearest.dependencies(1, 9), [7, 8, 9]);
        assert_eq!(Shape { radix: 4, ..nearest }.dependencies(1, 5), [3, 4, 5, 6]);
        assert_eq!(Shape { radix: 1, ..nearest }.dependencies(1, 5), [5]);
    }

    #[test]
    fn spread_is_even_and_moves_on_each_step() {
        let spread = shape(Pattern::Spread, 20, 9);
        assert_eq!(spread.dependencies(3, 1), [1, 5, 9, 13, 17]);
        assert_eq!(spread.dependencies(4, 1), [1, 6, 10, 14, 18]);
        assert_eq!(spread.dependencies(5, 1), [1, 7, 11, 15, 19]);
        assert_eq!(spread.dependencies(6, 1), [1, 5, 9, 13, 17], "three sets, then again");
        assert_eq!(spread.dependencies(3, 19), [3, 7, 11, 15, 19], "around the end");
        // Two points for five dependences: each point twice or more, which counts once.
        assert_eq!(sets(shape(Pattern::Spread, 2, 9), 4), [[0, 1], [0, 1]]);
    }

    #[test]
    fn random_nearest_keeps_itself_and_a_quarter_of_the_window() {
        let (random, nearest) = (shape(Pattern::RandomNearest, 1000, 9), shape(Pattern::Nearest, 1000, 9));
        let mut n_others = 0;
        for step in 1..4 {
            for point in 0..1000 {
                let kept = random.dependencies(step, point);
                let window = nearest.dependencies(step, point);
                assert!(kept.contains(&point) && kept.iter().all(|other| window.contains(other)));
                n_others += kept.len() - 1;
            }
        }
        // Binomial: 12,000 draws (less the ends) of 1/4 have a standard deviation of 47.
        assert!((2750..3250).contains(&n_others), "{n_others} of 12,000");
        assert_ne!(sets(random, 1), sets(random, 2));
        assert_eq!(sets(random, 1), sets(random, 4), "three sets, then again");
    }

    #[test]
    fn every_task_past_the_first_row_hangs_on_the_row_before() {
        for &pattern in Pattern::value_variants() {
            for width in 1..12 {
                let steps = pattern.least_steps(width).max(9);
                let shape = shape(pattern, width, steps);
                let mut n_tasks = 0;
                for step in 0..steps {
                    assert!(shape.row(step).end <= width);
                    for point in shape.row(step) {
                        n_tasks += 1;
                        let dependencies = shape.dependencies(step, point);
                        assert!(dependencies.is_sorted() && dependencies.windows(2).all(|pair| pair[0] != pair[1]));
                        let has_none = step == 0 || pattern == Pattern::Trivial;
                        assert_eq!(dependencies.is_empty(), has_none, "{pattern:?} {width} at {step}, {point}");
                        assert!(dependencies.iter().all(|point| shape.row(step - 1).contains(point)));
                    }
                }
                assert_eq!(shape.n_tasks(), n_tasks);
            }
        }
    }
}
