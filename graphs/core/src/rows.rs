//! The inputs of tasks under construction, one row a task: an allocation for all instead of one for each.

use std::ops::Index;

use crate::graph::Input;

/// Rows of inputs. A row that is replaced leaves its old values behind, unused.
#[derive(Default)]
pub(crate) struct InputRows {
    rows: Vec<Row>,
    values: Vec<Input>,
}

#[derive(Clone, Copy)]
struct Row {
    first: usize,
    len: u32,
}

impl InputRows {
    /// Add a row.
    pub(crate) fn push(&mut self, inputs: &[Input]) {
        let row = self.store(inputs);
        self.rows.push(row);
    }

    /// Replace row `at`.
    pub(crate) fn set(&mut self, at: usize, inputs: &[Input]) {
        self.rows[at] = self.store(inputs);
    }

    fn store(&mut self, inputs: &[Input]) -> Row {
        let row = Row { first: self.values.len(), len: u32::try_from(inputs.len()).unwrap_or(u32::MAX) };
        self.values.extend_from_slice(inputs);
        row
    }

    /// All rows, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Input]> {
        self.rows.iter().map(|&row| self.values_of(row))
    }

    /// How many values all rows have together.
    pub(crate) fn n_values(&self) -> usize {
        self.rows.iter().map(|row| row.len as usize).sum()
    }

    fn values_of(&self, row: Row) -> &[Input] {
        &self.values[row.first..row.first + row.len as usize]
    }
}

impl Index<usize> for InputRows {
    type Output = [Input];

    fn index(&self, at: usize) -> &[Input] {
        self.values_of(self.rows[at])
    }
}
