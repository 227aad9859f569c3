//! Whether what processes take at rest has grown.

use serde_json::{Value as Json, json};

use super::gauges::{Process, median};

/// The processes when nothing is held.
#[derive(Clone, Copy, Default)]
pub(super) struct Rest {
    pub(super) scheduler: Process,
    pub(super) client: Process,
    /// The one that is there from the beginning.
    pub(super) worker: Process,
    /// Descriptors and threads are compared at equally many.
    pub(super) n_workers: u64,
}

impl Rest {
    pub(super) fn to_json(self) -> Json {
        json!({
            "scheduler": self.scheduler.to_json(),
            "client": self.client.to_json(),
            "worker": self.worker.to_json(),
            "n_workers": self.n_workers,
        })
    }
}

/// What may be more late than early: a share, and so much besides, since allocators keep some of what is free.
const RSS_PERCENT: u64 = 15;
const RSS_SLACK: u64 = 24 << 20;
/// Descriptors, mappings of memory files, and threads. A connection to a worker that was killed takes a while to end.
const COUNT_SLACK: u64 = 6;
/// What else a process has for each worker there is.
const COUNT_PER_WORKER: u64 = 8;
/// Fewer rounds say nothing, and nothing is said of them.
const MIN_ROUNDS: usize = 5;

/// The medians early, after a fifth of the time to warm up, and late, and what of it must not be.
pub(super) fn verdict(rests: &[Rest]) -> (Json, Vec<String>) {
    if rests.len() < MIN_ROUNDS {
        let text =
            format!("not judged: {} rounds are too few to tell whether anything grows; it takes {MIN_ROUNDS}", rests.len());
        return (Json::String(text), Vec::new());
    }
    let window = (rests.len() / 4).max(2);
    let warm = (rests.len() / 5).max(1);
    let (early, late) = (&rests[warm..warm + window], &rests[rests.len() - window..]);
    let (mut figures, mut grown) = (Vec::new(), Vec::new());
    let workers = |rests: &[Rest]| median(rests.iter().map(|rest| rest.n_workers).collect());
    let more_workers = workers(late).saturating_sub(workers(early));
    for (name, of) in [
        ("scheduler", (|rest| rest.scheduler) as fn(&Rest) -> Process),
        ("client", |rest| rest.client),
        ("worker", |rest| rest.worker),
    ] {
        for (what, gauge, percent, slack) in [
            ("rss_nbytes", (|process| process.rss_nbytes) as fn(Process) -> u64, RSS_PERCENT, RSS_SLACK),
            ("n_descriptors", |process| process.n_descriptors, 0, COUNT_SLACK + COUNT_PER_WORKER * more_workers),
            ("n_memory_files", |process| process.n_memory_files, 0, COUNT_SLACK),
            ("n_threads", |process| process.n_threads, 0, COUNT_SLACK + COUNT_PER_WORKER * more_workers),
        ] {
            let middle = |rests: &[Rest]| median(rests.iter().map(|rest| gauge(of(rest))).collect());
            let (early, late) = (middle(early), middle(late));
            let most = early + early / 100 * percent + slack;
            if late > most {
                grown.push(format!("{what} of the {name} at rest grew from {early} to {late}; {most} is allowed"));
            }
            figures.push(json!({ "process": name, "what": what, "early": early, "late": late, "allowed": most }));
        }
    }
    (Json::Array(figures), grown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(rss_nbytes: u64, n_descriptors: u64) -> Rest {
        let process = Process { rss_nbytes, n_descriptors, ..Process::default() };
        Rest { scheduler: process, client: process, worker: process, n_workers: 2 }
    }

    #[test]
    fn what_stays_as_it_is_after_warming_up_is_well() {
        let rests: Vec<Rest> = (0..20).map(|round| if round < 3 { rest(10 << 20, 5) } else { rest(200 << 20, 40) }).collect();
        assert_eq!(verdict(&rests).1, Vec::<String>::new());
    }

    #[test]
    fn what_grows_is_named() {
        let leaks: Vec<Rest> = (0..20).map(|round| rest((100 << 20) + round * (8 << 20), 40)).collect();
        let grown = verdict(&leaks).1;
        assert_eq!(grown.len(), 3, "{grown:?}");
        assert!(grown[2].starts_with("rss_nbytes of the worker at rest grew"), "{grown:?}");
        let leaks: Vec<Rest> = (0..20).map(|round| rest(100 << 20, 40 + round)).collect();
        assert!(verdict(&leaks).1[0].starts_with("n_descriptors of the scheduler"), "{:?}", verdict(&leaks).1);
        assert!(verdict(&leaks[..3]).0.as_str().is_some_and(|text| text.starts_with("not judged")), "too few rounds");
    }
}
