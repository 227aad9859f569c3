//! Rechunking: each input chunk is split once, each output chunk fetches exactly the pieces it consists of.
//!
//! Where an output chunk wants the same piece of many splits (rows to columns), it does so through a gather group, so
//! an all-to-all costs as many edges as there are chunks, not pieces.

use std::collections::HashMap;
use std::sync::Arc;

use rask_graphs::{Input, Part, Source, TaskIdx};

use super::{Lowering, json};
use crate::array::Array;
use crate::chunking::{UNKNOWN, offsets, ravel, unravel};
use crate::error::ArrayError;
use crate::kernels::layout::{AssembleArgs, SplitArgs};

/// How the axes of an input are cut into pieces by the cuts of its output.
pub(super) struct Cuts {
    /// For each axis and chunk of the input: the sizes of its pieces.
    pieces: Vec<Vec<Vec<usize>>>,
    /// For each axis and chunk of the output: (chunk of the input, piece) in order.
    sources: Vec<Vec<Vec<(usize, usize)>>>,
    splits: std::sync::Mutex<Splits>,
}

#[derive(Default)]
struct Splits {
    /// Split tasks by input chunk.
    tasks: HashMap<usize, TaskIdx>,
    /// Gather groups by members.
    groups: HashMap<Vec<TaskIdx>, u32>,
}

/// For one axis: pieces of each input chunk, and which pieces each output chunk consists of. Empty chunks take one empty piece.
type AxisCuts = (Vec<Vec<usize>>, Vec<Vec<(usize, usize)>>);

fn cut_axis(from: &[usize], to: &[usize]) -> AxisCuts {
    if from == to {
        // Also the only thing that can be done with an axis whose size only the run will tell.
        return (from.iter().map(|&size| vec![size]).collect(), (0..from.len()).map(|chunk| vec![(chunk, 0)]).collect());
    }
    let (starts, ends) = (offsets(from), offsets(to));
    let mut pieces: Vec<Vec<usize>> = vec![Vec::new(); from.len()];
    let mut sources: Vec<Vec<(usize, usize)>> = vec![Vec::new(); to.len()];
    let mut first = 0;
    for (output, sources) in sources.iter_mut().enumerate() {
        let (low, high) = (ends[output], ends[output + 1]);
        // Inputs that end before this output begins are done with; those that begin behind it are for others.
        while first < from.len() && starts[first + 1] <= low {
            first += 1;
        }
        for input in (first..from.len()).take_while(|&input| starts[input] < high) {
            let overlap = starts[input + 1].min(high).saturating_sub(starts[input].max(low));
            if overlap > 0 {
                sources.push((input, pieces[input].len()));
                pieces[input].push(overlap);
            }
        }
    }
    for (output, sources) in sources.iter_mut().enumerate() {
        if sources.is_empty() {
            debug_assert_eq!(to[output], 0);
            sources.push((0, pieces[0].len()));
            pieces[0].push(0);
        }
    }
    (pieces, sources)
}

impl Lowering<'_> {
    fn cuts(&mut self, array: &Array, input: &Array, hint: &str) -> Arc<Cuts> {
        if let Some(cuts) = &self.node(array, hint).cuts {
            return Arc::clone(cuts);
        }
        let (pieces, sources) = input.chunks().iter().zip(array.chunks()).map(|(from, to)| cut_axis(from, to)).unzip();
        let cuts = Arc::new(Cuts { pieces, sources, splits: std::sync::Mutex::default() });
        self.node(array, hint).cuts = Some(Arc::clone(&cuts));
        cuts
    }

    pub(super) fn rechunk(
        &mut self,
        array: &Array,
        input: &Array,
        chunk: usize,
        position: &[usize],
        hint: &str,
    ) -> Result<TaskIdx, ArrayError> {
        let cuts = self.cuts(array, input, hint);
        let along: Vec<&Vec<(usize, usize)>> =
            position.iter().enumerate().map(|(axis, &place)| &cuts.sources[axis][place]).collect();
        let counts: Vec<usize> = along.iter().map(|sources| sources.len()).collect();
        let n_pieces: usize = counts.iter().product();
        let mut wanted = Vec::with_capacity(n_pieces);
        for number in 0..n_pieces {
            let place = unravel(number, &counts);
            let (from, piece): (Vec<usize>, Vec<usize>) = place.iter().enumerate().map(|(axis, &at)| along[axis][at]).unzip();
            wanted.push(self.piece(array, input, &cuts, &from, &piece, hint)?);
        }
        if let [(task, Part::WHOLE)] = wanted[..] {
            return Ok(task);
        }
        let args = json(&AssembleArgs { counts });
        let part = wanted[0].1;
        let same_part = wanted.len() > 1 && !part.is_whole() && wanted.iter().all(|(_, other)| *other == part);
        if !same_part {
            return self.add(
                array,
                chunk,
                "array.assemble",
                &args,
                wanted.into_iter().map(|(task, part)| Input::new(Source::Task(task), part)),
            );
        }
        let members: Vec<TaskIdx> = wanted.into_iter().map(|(task, _)| task).collect();
        let mut splits = cuts.splits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let group = *splits.groups.entry(members).or_insert_with_key(|members| self.graph.group(members.clone()));
        drop(splits);
        self.add(array, chunk, "array.assemble", &args, [Input::new(Source::Group(group), part)])
    }

    /// Piece `piece` of input chunk `from`: the whole chunk if it is not cut, else a part of its split.
    fn piece(
        &mut self,
        array: &Array,
        input: &Array,
        cuts: &Cuts,
        from: &[usize],
        piece: &[usize],
        hint: &str,
    ) -> Result<(TaskIdx, Part), ArrayError> {
        let sizes: Vec<&Vec<usize>> = from.iter().enumerate().map(|(axis, &place)| &cuts.pieces[axis][place]).collect();
        let counts: Vec<usize> = sizes.iter().map(|sizes| sizes.len()).collect();
        let source = ravel(from, &input.counts());
        if counts.iter().all(|&count| count == 1) {
            return Ok((self.chunk(input, source, hint)?, Part::WHOLE));
        }
        let known = cuts.splits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tasks.get(&source).copied();
        let split = match known {
            Some(split) => split,
            None => {
                let task = self.chunk(input, source, hint)?;
                let args = SplitArgs {
                    sizes: sizes.into_iter().map(|sizes| if *sizes == [UNKNOWN] { Vec::new() } else { sizes.clone() }).collect(),
                };
                let split = self.add_helper(array, "split", "array.split", &json(&args), [task])?;
                cuts.splits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tasks.insert(source, split);
                split
            }
        };
        Ok((split, Part(u32::try_from(ravel(piece, &counts)).unwrap_or(u32::MAX))))
    }
}
