//! Running a compiled program over chunks: one pass over memory, in blocks that stay in the cache.
//!
//! Axes along which all operands run on evenly are merged first, so most work is one long loop. Otherwise the output is
//! walked row by row, or, when some operand is transposed, in tiles, so that every cache line fetched is used up.

use bytemuck::Pod;
use pulp::Arch;
use rask_graphs::{KernelError, TaskContext};

use crate::buffer::Buffer;
use crate::chunk::Chunk;
use crate::chunking::{check_size, shape_text};
use crate::dtype::with_width;
use crate::kernels::loops;
use crate::kernels::program::{Compiled, Operation};

/// Elements of a block.
const BLOCK: usize = 2048;
/// Length of a tile along the output's last axis, when some operand is transposed.
const TILE: usize = 64;
/// Rows at least this long are worth a block of their own.
const LONG_ROW: usize = 256;
/// Blocks between two looks at whether the task has been cancelled.
const BLOCKS_PER_CHECK: usize = 4096;

/// How the operands lie along the merged axes of the output.
struct Layout {
    shape: Vec<usize>,
    /// For each input its stride along each merged axis, in elements.
    strides: Vec<Vec<usize>>,
}

/// Evaluate `program` on `inputs`.
///
/// # Errors
/// When an input is of another type, shapes do not broadcast, or a function refuses its operands.
pub(crate) fn run(ctx: &TaskContext, program: &Compiled, inputs: &[&Chunk]) -> Result<Chunk, KernelError> {
    for (idx, (spec, chunk)) in program.inputs.iter().zip(inputs).enumerate() {
        if spec.dtype != chunk.dtype() {
            return Err(KernelError(format!("input {idx} is {}, {} expected", chunk.dtype(), spec.dtype)));
        }
    }
    let shape = output_shape(program, inputs)?;
    check_size(&shape, program.dtype)?;
    let n: usize = shape.iter().product();
    let nbytes = n * program.dtype.size();
    ctx.check_memory(nbytes as u64)?;
    let mut out = Buffer::zeroed(nbytes);
    if n > 0 {
        let layout = merge_axes(&shape, program, inputs);
        let mut machine = Machine::new(program, inputs, &layout);
        machine.run(ctx, &layout, out.bytes_mut())?;
    }
    Ok(Chunk::from_buffer(program.dtype, shape, out))
}

fn output_shape(program: &Compiled, inputs: &[&Chunk]) -> Result<Vec<usize>, KernelError> {
    let mut shape = vec![1; program.n_axes];
    for (spec, chunk) in program.inputs.iter().zip(inputs) {
        for (size, axis) in shape.iter_mut().zip(&spec.axes) {
            let Some(axis) = axis else { continue };
            let own = *chunk
                .shape()
                .get(*axis)
                .ok_or_else(|| KernelError(format!("an input of shape {} has no axis {axis}", shape_text(chunk.shape()))))?;
            if *size == 1 {
                *size = own;
            } else if own != 1 && own != *size {
                let shapes: Vec<String> = inputs.iter().map(|chunk| shape_text(chunk.shape())).collect();
                return Err(KernelError(format!(
                    "shapes {} do not match: they cannot be broadcast together",
                    shapes.join(" and ")
                )));
            }
        }
    }
    Ok(shape)
}

fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

fn merge_axes(shape: &[usize], program: &Compiled, inputs: &[&Chunk]) -> Layout {
    let strides: Vec<Vec<usize>> = program
        .inputs
        .iter()
        .zip(inputs)
        .map(|(spec, chunk)| {
            let own = contiguous_strides(chunk.shape());
            spec.axes.iter().map(|axis| axis.map_or(0, |axis| if chunk.shape()[axis] == 1 { 0 } else { own[axis] })).collect()
        })
        .collect();
    let mut layout = Layout { shape: Vec::new(), strides: vec![Vec::new(); inputs.len()] };
    for axis in 0..shape.len() {
        if shape[axis] == 1 {
            continue;
        }
        let merges = !layout.shape.is_empty()
            && (0..inputs.len()).all(|input| layout.strides[input].last() == Some(&(strides[input][axis] * shape[axis])));
        if merges {
            if let Some(size) = layout.shape.last_mut() {
                *size *= shape[axis];
            }
            for (merged, own) in layout.strides.iter_mut().zip(&strides) {
                if let Some(stride) = merged.last_mut() {
                    *stride = own[axis];
                }
            }
        } else {
            layout.shape.push(shape[axis]);
            for (merged, own) in layout.strides.iter_mut().zip(&strides) {
                merged.push(own[axis]);
            }
        }
    }
    if layout.shape.is_empty() {
        layout.shape.push(1);
        for merged in &mut layout.strides {
            merged.push(0);
        }
    }
    layout
}

/// A register: memory of its own, or a piece of an input used where it lies.
enum Register<'a> {
    Own(Buffer),
    Borrowed(&'a [u8]),
}

impl Register<'_> {
    fn bytes(&self, nbytes: usize) -> &[u8] {
        match self {
            Register::Own(buffer) => &buffer.bytes()[..nbytes],
            Register::Borrowed(bytes) => &bytes[..nbytes],
        }
    }
}

/// A rectangle of the output in elements: `n_rows` rows of `n_columns`, rows `row_stride` apart.
struct Tile {
    at: usize,
    n_rows: usize,
    n_columns: usize,
    row_stride: usize,
}

struct Machine<'a> {
    arch: Arch,
    program: &'a Compiled,
    inputs: &'a [&'a Chunk],
    registers: Vec<Register<'a>>,
}

impl<'a> Machine<'a> {
    fn new(program: &'a Compiled, inputs: &'a [&'a Chunk], layout: &Layout) -> Self {
        let mut registers: Vec<Register<'a>> =
            program.widths.iter().map(|width| Register::Own(Buffer::zeroed(width * BLOCK))).collect();
        for (idx, (dtype, value)) in program.constants.iter().enumerate() {
            if let Register::Own(buffer) = &mut registers[inputs.len() + idx] {
                fill(buffer, &value.to_bytes(*dtype), BLOCK);
            }
        }
        for (idx, chunk) in inputs.iter().enumerate() {
            // A single element repeated everywhere is spread out once.
            if let (Register::Own(buffer), true) = (&mut registers[idx], layout.strides[idx].iter().all(|&stride| stride == 0)) {
                fill(buffer, &chunk.bytes()[..chunk.dtype().size()], BLOCK);
            }
        }
        Self { arch: Arch::new(), program, inputs, registers }
    }

    fn run(&mut self, ctx: &TaskContext, layout: &Layout, out: &mut [u8]) -> Result<(), KernelError> {
        let n_axes = layout.shape.len();
        let last = n_axes - 1;
        let transposed = layout.strides.iter().find(|strides| strides[last] > 1);
        let rows_axis = match transposed {
            Some(strides) => (0..last).find(|&axis| strides[axis] == 1).or(last.checked_sub(1)),
            None if layout.shape[last] < LONG_ROW => last.checked_sub(1),
            None => None,
        };
        let width = match (rows_axis, transposed) {
            (Some(_), Some(_)) => TILE,
            (Some(_), None) => layout.shape[last],
            (None, _) => BLOCK,
        };
        let height = rows_axis.map_or(1, |_| (BLOCK / width).max(1));
        let out_strides = contiguous_strides(&layout.shape);
        let outer: Vec<usize> = (0..last).filter(|&axis| Some(axis) != rows_axis).collect();
        let n_outer: usize = outer.iter().map(|&axis| layout.shape[axis]).product();
        let n_rows = rows_axis.map_or(1, |axis| layout.shape[axis]);
        let mut bases = vec![0usize; self.inputs.len()];
        let mut n_blocks = 0;
        for number in 0..n_outer {
            let (mut rest, mut out_base) = (number, 0);
            bases.fill(0);
            for &axis in outer.iter().rev() {
                let place = rest % layout.shape[axis];
                rest /= layout.shape[axis];
                out_base += place * out_strides[axis];
                for (base, strides) in bases.iter_mut().zip(&layout.strides) {
                    *base += place * strides[axis];
                }
            }
            for row in (0..n_rows).step_by(height) {
                for column in (0..layout.shape[last]).step_by(width) {
                    let row_stride = rows_axis.map_or(0, |axis| out_strides[axis]);
                    let tile = Tile {
                        at: out_base + row * row_stride + column,
                        n_rows: height.min(n_rows - row),
                        n_columns: width.min(layout.shape[last] - column),
                        row_stride,
                    };
                    for (input, base) in bases.iter().enumerate() {
                        let strides = &layout.strides[input];
                        let by_row = rows_axis.map_or(0, |axis| strides[axis]);
                        self.load(input, base + row * by_row + column * strides[last], by_row, strides[last], &tile);
                    }
                    self.compute(&tile, out)?;
                    n_blocks += 1;
                    if n_blocks % BLOCKS_PER_CHECK == 0 {
                        ctx.check_cancelled()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bring a tile of an input into its register, or let the register point at it.
    fn load(&mut self, input: usize, at: usize, by_row: usize, by_column: usize, tile: &Tile) {
        let chunk = self.inputs[input];
        let size = chunk.dtype().size();
        let n = tile.n_rows * tile.n_columns;
        let everywhere = chunk.len() == 1;
        if everywhere {
            return;
        }
        if by_column == 1 && (tile.n_rows == 1 || by_row == tile.n_columns) {
            self.registers[input] = Register::Borrowed(&chunk.bytes()[at * size..(at + n) * size]);
            return;
        }
        if let Register::Borrowed(_) = self.registers[input] {
            self.registers[input] = Register::Own(Buffer::zeroed(size * BLOCK));
        }
        let Register::Own(buffer) = &mut self.registers[input] else { return };
        with_width!(size, T => gather::<T>(&chunk.typed::<T>()[at..], by_row, by_column, tile, buffer.typed_mut()));
    }

    fn compute(&mut self, tile: &Tile, out: &mut [u8]) -> Result<(), KernelError> {
        let n = tile.n_rows * tile.n_columns;
        let size = self.program.dtype.size();
        let is_dense = tile.n_rows == 1 || tile.row_stride == tile.n_columns;
        for (idx, step) in self.program.steps.iter().enumerate() {
            let is_last = idx + 1 == self.program.steps.len();
            if is_last && is_dense {
                return self.step(step, n, &mut out[tile.at * size..(tile.at + n) * size]);
            }
            let mut place = std::mem::replace(&mut self.registers[step.out], Register::Borrowed(&[]));
            if let Register::Own(buffer) = &mut place {
                let nbytes = n * step.operation.result_size();
                self.step(step, n, &mut buffer.bytes_mut()[..nbytes])?;
            }
            self.registers[step.out] = place;
        }
        let result = self.registers[self.program.result].bytes(n * size);
        for (row, from) in result.chunks_exact(tile.n_columns * size).enumerate() {
            let at = (tile.at + row * tile.row_stride) * size;
            out[at..at + from.len()].copy_from_slice(from);
        }
        Ok(())
    }

    fn step(&self, step: &crate::kernels::program::Step, n: usize, out: &mut [u8]) -> Result<(), KernelError> {
        match step.operation {
            Operation::Cast(from, to) => {
                loops::convert(self.arch, from, to, self.registers[step.operands[0]].bytes(n * from.size()), out);
                Ok(())
            }
            Operation::Apply(function, dtype) => {
                let is_condition = |idx: usize| step.operands.len() == 3 && idx == 0;
                let bytes = |idx: usize| {
                    let size = if is_condition(idx) { 1 } else { dtype.size() };
                    self.registers[step.operands[idx]].bytes(n * size)
                };
                match step.operands.len() {
                    1 => loops::apply(self.arch, function, dtype, &[bytes(0)], out),
                    2 => loops::apply(self.arch, function, dtype, &[bytes(0), bytes(1)], out),
                    _ => loops::apply(self.arch, function, dtype, &[bytes(0), bytes(1), bytes(2)], out),
                }
            }
        }
    }
}

/// Write `n` copies of `element` at the front of `buffer`.
fn fill(buffer: &mut Buffer, element: &[u8], n: usize) {
    for place in buffer.bytes_mut().chunks_exact_mut(element.len()).take(n) {
        place.copy_from_slice(element);
    }
}

/// Copy a tile with any strides into rows that follow one another.
fn gather<T: Pod>(from: &[T], by_row: usize, by_column: usize, tile: &Tile, out: &mut [T]) {
    let n_columns = tile.n_columns;
    if by_column == 0 || by_column == 1 {
        for (row, place) in out.chunks_exact_mut(n_columns).take(tile.n_rows).enumerate() {
            let at = row * by_row;
            if by_column == 0 {
                place.fill(from[at]);
            } else {
                place.copy_from_slice(&from[at..at + n_columns]);
            }
        }
        return;
    }
    // The output's rows run along the input's short stride: read the input in its own order.
    for column in 0..n_columns {
        let at = column * by_column;
        for row in 0..tile.n_rows {
            out[row * n_columns + column] = from[at + row * by_row];
        }
    }
}
