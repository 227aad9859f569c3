//! Progress for a person who watches: a bar that counts tasks, and a line for each output. Nothing when standard error is
//! no terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rask_comm::message::TaskCounts;

use crate::terminal::{escape, escape_name, is_interactive, print_note};

/// The bars of one graph.
pub(crate) struct Bars {
    all: MultiProgress,
    tasks: ProgressBar,
    outputs: Vec<ProgressBar>,
}

impl Bars {
    /// Bars for outputs of these names and their numbers of results.
    pub(crate) fn new<'a>(outputs: impl Iterator<Item = (&'a str, usize)>, n_tasks: usize) -> Self {
        let target = if is_interactive() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let all = MultiProgress::with_draw_target(target);
        let tasks = all.add(ProgressBar::new(n_tasks as u64));
        tasks.set_style(style("{elapsed:>5} [{bar:30}] {human_pos}/{human_len} tasks {msg}"));
        let outputs = outputs.map(|(name, n_results)| {
            let bar = all.add(ProgressBar::new(n_results as u64));
            bar.set_style(style("      [{bar:30}] {msg}"));
            bar.set_message(escape_name(name));
            bar
        });
        let outputs = outputs.collect();
        Self { all, tasks, outputs }
    }

    /// The graph has come this far.
    pub(crate) fn update(&self, counts: &TaskCounts) {
        self.tasks.set_length(u64::from(counts.n_tasks));
        self.tasks.set_position(u64::from(counts.n_finished));
        let state = match (counts.n_processing, counts.n_erred) {
            (running, 0) => format!("({running} running)"),
            (running, failed) => format!("({running} running, {failed} failed)"),
        };
        self.tasks.set_message(state);
    }

    /// Say why the graph does not get on: on a terminal for as long as that is so, elsewhere once.
    pub(crate) fn waits(&self, reason: &str) {
        if self.all.is_hidden() {
            if !reason.is_empty() {
                print_note(&format!("waiting: {reason}"));
            }
            return;
        }
        let state = if reason.is_empty() { String::new() } else { format!("waiting: {}", escape(reason)) };
        self.tasks.set_message(state);
    }

    /// One more result of output number `output` is there.
    pub(crate) fn result_done(&self, output: usize) {
        if let Some(bar) = self.outputs.get(output) {
            bar.inc(1);
        }
    }

    /// Take the bars away.
    pub(crate) fn clear(&self) {
        // Nothing is lost when a terminal that has gone is not cleared.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}
