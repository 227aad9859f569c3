//! METG(50 %), the minimum effective task granularity: how small tasks may be before less than half of the machine's peak is
//! left for work (Slaughter et al., "Task Bench", SC 2020).
//!
//! The search knows nothing of tasks or clusters: it is given something that measures one problem size, goes up or down in
//! large steps until it has efficiencies on both sides of a half, closes in, and interpolates.

use anyhow::Result;

/// Below this share of the peak a granularity is not effective.
const WANTED: f64 = 0.5;
/// Factor between the sizes of the first sweep.
const STRIDE: u64 = 4;
/// Halvings (of the logarithm) of what the sweep left open: 4 -> 2 -> 1.4.
const N_HALVINGS: u32 = 2;

/// What was measured at one problem size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Iterations of the kernel in a task.
    pub(super) iterations: u64,
    /// Rows of the graph.
    pub(super) steps: u32,
    /// Wall time x slots / tasks, in microseconds: the kernel and all that comes on top.
    pub(super) granularity_us: f64,
    /// Share of the peak of the same kernel without a runtime.
    pub(super) efficiency: f64,
}

/// Where the efficiency crosses one half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Metg {
    /// At this granularity, in microseconds.
    At(f64),
    /// It never fell below: tasks of this granularity are still effective.
    Below(f64),
    /// It was never reached: tasks of this granularity are not yet effective.
    Above(f64),
}

/// What a search found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The crossing.
    pub(super) metg: Metg,
    /// All points measured, by falling size.
    pub(super) points: Vec<Point>,
}

/// Look for the crossing, from `first` iterations on, among `1..=most` iterations.
///
/// # Errors
/// Those of `measure`.
pub(super) fn search(first: u64, most: u64, mut measure: impl FnMut(u64) -> Result<Point>) -> Result<Found> {
    let mut points = Vec::new();
    let mut at = |iterations| -> Result<Point> {
        let point = measure(iterations)?;
        points.push(point);
        Ok(point)
    };
    let mut point = at(first.clamp(1, most))?;
    let goes_down = point.efficiency >= WANTED;
    let bracket = loop {
        let next = if goes_down { point.iterations / STRIDE } else { point.iterations.saturating_mul(STRIDE) }.clamp(1, most);
        if next == point.iterations {
            break None;
        }
        let last = std::mem::replace(&mut point, at(next)?);
        if (point.efficiency >= WANTED) != goes_down {
            break Some(if goes_down { (point, last) } else { (last, point) });
        }
    };
    let metg = match bracket {
        None if goes_down => Metg::Below(point.granularity_us),
        None => Metg::Above(point.granularity_us),
        Some((mut below, mut above)) => {
            for _ in 0..N_HALVINGS {
                let middle = (below.iterations as f64 * above.iterations as f64).sqrt().round() as u64;
                if middle == below.iterations || middle == above.iterations {
                    break;
                }
                let point = at(middle)?;
                if point.efficiency >= WANTED { above = point } else { below = point }
            }
            Metg::At(interpolate(below, above))
        }
    };
    points.sort_by_key(|point| std::cmp::Reverse(point.iterations));
    Ok(Found { metg, points })
}

/// The granularity at which a line through both points has the wanted efficiency.
fn interpolate(below: Point, above: Point) -> f64 {
    let share = (WANTED - below.efficiency) / (above.efficiency - below.efficiency);
    below.granularity_us + share * (above.granularity_us - below.granularity_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime that adds `overhead_us` to every task, on a machine that does 1,000 iterations a microsecond.
    fn model(overhead_us: f64, n_measured: &mut u32) -> impl FnMut(u64) -> Result<Point> {
        move |iterations| {
            *n_measured += 1;
            let kernel_us = iterations as f64 / 1000.0;
            let granularity_us = kernel_us + overhead_us;
            Ok(Point { iterations, steps: 1, granularity_us, efficiency: kernel_us / granularity_us })
        }
    }

    #[test]
    fn it_finds_twice_the_overhead_from_either_side() {
        for overhead_us in [0.7, 5.0, 90.0, 500.0, 20_000.0] {
            let mut n_measured = 0;
            let found = search(1_000_000, 1_000_000_000, model(overhead_us, &mut n_measured)).unwrap();
            let Metg::At(metg_us) = found.metg else { panic!("{found:?}") };
            assert!((metg_us / (2.0 * overhead_us) - 1.0).abs() < 0.02, "{metg_us} for {overhead_us}");
            assert!(n_measured <= 10 && found.points.len() == n_measured as usize);
            assert!(found.points.is_sorted_by_key(|point| std::cmp::Reverse(point.iterations)));
        }
    }

    #[test]
    fn it_says_so_when_there_is_no_crossing() {
        let always = |iterations| Ok(Point { iterations, steps: 1, granularity_us: iterations as f64, efficiency: 0.9 });
        assert_eq!(search(1_000, 1_000_000, always).unwrap().metg, Metg::Below(1.0));
        let never = |iterations| Ok(Point { iterations, steps: 1, granularity_us: iterations as f64, efficiency: 0.1 });
        let found = search(1_000, 50_000, never).unwrap();
        assert_eq!(found.metg, Metg::Above(50_000.0));
        assert_eq!(found.points.first().unwrap().iterations, 50_000);
    }

    #[test]
    fn a_failed_measurement_ends_the_search() {
        assert!(search(10, 100, |_| anyhow::bail!("no cluster")).is_err());
    }
}
