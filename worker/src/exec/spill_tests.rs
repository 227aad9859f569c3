//! Spilling with real files and threads, and whatever can happen to a file. The limit is far below what the process takes, so
//! every result that is big enough goes to its file as soon as nothing uses it.

use std::fs;
use std::path::Path;

use rask_comm::message::{FailureKind, RunInput, Traffic};
use rask_graphs::Part;
use rask_graphs::builtin::Opaque;

use super::tests::{BIG, Bench, HUGE, JOIN, MANY, bench_with, id, input, run};
use super::*;
use crate::store::spill::SpillConfig;

const LONG: Duration = Duration::from_secs(10);

struct Spiller {
    bench: Bench,
    area: Arc<SpillArea>,
    base: tempfile::TempDir,
}

fn spiller(limit: u64) -> Spiller {
    let base = tempfile::tempdir().unwrap();
    let config = SpillConfig { limit, ..SpillConfig::new(base.path()) };
    let area = SpillArea::create(&config, Arc::new(super::tests::registry())).unwrap();
    let core = CoreConfig { memory_limit: 1 << 20, spill: Some(Arc::clone(&area)), ..CoreConfig::new("spiller", 1) };
    Spiller { bench: bench_with(&core), area, base }
}

fn whole(idx: u32) -> FetchItem {
    FetchItem::whole(id(idx), Attempt(1))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

impl Spiller {
    /// The next `n` messages that are not about the worker's state, what was spilled, or a run that takes long, as on a busy machine.
    fn news(&self, n: usize) -> Vec<FromWorker> {
        let mut news = Vec::new();
        while news.len() < n {
            news.extend(self.bench.ear.take(1).into_iter().filter(|message| {
                !matches!(message, FromWorker::Status(_) | FromWorker::Spilled { .. } | FromWorker::Executing { .. })
            }));
        }
        news
    }

    fn make(&self, idx: u32, body: u32) {
        self.bench.core.deliver([run(idx, body, Vec::new())]);
        assert!(matches!(self.news(1)[..], [FromWorker::Finished { .. }]));
    }

    /// Make result `idx` and wait until it is in a file only; that file.
    fn spill(&self, idx: u32, body: u32) -> std::path::PathBuf {
        let before = self.files();
        self.make(idx, body);
        wait_until("it is spilled", || self.bench.core.store().spilled_nbytes(&whole(idx)).is_some());
        self.files().into_iter().find(|path| !before.contains(path)).unwrap()
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        let entries = fs::read_dir(self.area.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.file_name().is_some_and(|name| name != "lock")).collect()
    }

    fn bytes(&self, idx: u32) -> Vec<u8> {
        let value = self.bench.core.store().read(&whole(idx), false).unwrap().unwrap();
        value.downcast::<Opaque>().unwrap().0.to_vec()
    }
}

#[test]
fn a_task_reads_its_spilled_inputs_back_whole_and_by_part() {
    let spiller = spiller(0);
    spiller.spill(0, BIG);
    spiller.spill(1, MANY);
    assert_eq!(spiller.bench.core.store().nbytes(), 0);
    let part = RunInput { part: Part(1), ..input(1, &[0]) };
    spiller.bench.core.deliver([run(2, JOIN, vec![input(0, &[0]), part])]);
    assert!(matches!(spiller.news(1)[..], [FromWorker::Finished { nbytes: 400_000, .. }]));
    let (first, parts) = (spiller.bytes(0), spiller.bench.core.store().read(&whole(1), false).unwrap().unwrap());
    let part = parts.part(1).unwrap().downcast::<Opaque>().unwrap().0.clone();
    assert_eq!(spiller.bytes(2), [first, part.to_vec()].concat());
}

/// What happens to a file, with another at hand.
type Damage<'a> = &'a dyn Fn(&Path, &Path);

#[test]
fn whatever_happens_to_a_file_the_result_is_lost_and_can_be_made_again() {
    let flip = |path: &Path, _: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[100_000] ^= 4;
        fs::write(path, bytes).unwrap();
    };
    let cut = |path: &Path, _: &Path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(70_000).unwrap();
    let swap = |path: &Path, other: &Path| {
        let (one, two) = (fs::read(path).unwrap(), fs::read(other).unwrap());
        fs::write(path, two).unwrap();
        fs::write(other, one).unwrap();
    };
    let delete = |path: &Path, _: &Path| fs::remove_file(path).unwrap();
    let damages: [(&str, Damage<'_>); 4] = [("flipped", &flip), ("cut", &cut), ("swapped", &swap), ("deleted", &delete)];
    for (name, damage) in damages {
        let spiller = spiller(0);
        let (path, other) = (spiller.spill(0, BIG), spiller.spill(1, BIG));
        let sound = spiller.bytes(0);
        damage(&path, &other);
        spiller.bench.core.deliver([run(2, JOIN, vec![input(0, &[0])])]);
        let news = spiller.news(2);
        let is_lost = matches!(
            news[..],
            [FromWorker::Lost { task }, FromWorker::InputLost { input, .. }] if task == id(0) && input == id(0)
        );
        assert!(is_lost, "{name}: {news:?}");
        assert_eq!(spiller.bench.core.inspect(|machine| machine.held(id(0))), None, "{name}");
        let ToWorker::Run(mut again) = run(0, BIG, Vec::new()) else { unreachable!() };
        again.attempt = Attempt(2);
        spiller.bench.core.deliver([ToWorker::Run(again)]);
        assert!(matches!(spiller.news(1)[..], [FromWorker::Finished { .. }]), "{name}");
        let made = spiller.bench.core.store().read(&FetchItem::whole(id(0), Attempt(2)), false).unwrap().unwrap();
        assert_eq!(made.downcast::<Opaque>().unwrap().0, sound, "{name}");
    }
}

#[test]
fn a_file_that_is_damaged_when_a_peer_asks_is_a_lost_replica() {
    let spiller = spiller(0);
    let path = spiller.spill(0, BIG);
    let ask = |spiller: &Spiller| {
        let (give, given) = std::sync::mpsc::channel();
        spiller.bench.core.read_later(whole(0), move |value| drop(give.send(value)));
        given.recv_timeout(LONG).unwrap()
    };
    assert_eq!(ask(&spiller).map(|value| value.nbytes()), Some(200_000));
    assert_eq!(spiller.bench.core.store().nbytes(), 0, "what a peer reads is not kept");
    fs::write(path, "garbage").unwrap();
    assert!(ask(&spiller).is_none());
    assert!(matches!(spiller.news(1)[..], [FromWorker::Lost { task }] if task == id(0)));
    assert!(spiller.bench.core.store().is_empty());
}

#[test]
fn a_full_disk_keeps_results_in_memory_says_so_and_recovers() {
    let spiller = spiller(250_000);
    let store = spiller.bench.core.store();
    spiller.spill(0, BIG);
    spiller.make(1, BIG);
    let is_full = |is_full: bool| {
        let is_it = |message: &FromWorker| matches!(message, FromWorker::Status(status) if status.is_spill_full == is_full);
        wait_until("the state of the disk is told", || {
            spiller.bench.core.measure(Traffic::default());
            spiller.bench.ear.take(1).iter().any(is_it)
        });
    };
    is_full(true);
    assert_eq!((store.nbytes(), spiller.files().len()), (200_000, 1));
    // The process takes far more than its limit, so what would only make that worse waits.
    spiller.bench.core.deliver([run(2, BIG, Vec::new())]);
    thread::sleep(Duration::from_millis(30));
    assert_eq!(spiller.bench.core.inspect(|machine| (machine.n_waiting(), machine.n_executing())), (1, 0));
    // Space returns when the first result is freed: the second goes to its file, and the third is made.
    spiller.bench.core.deliver([ToWorker::Free { tasks: vec![id(0)] }]);
    let is_made = || spiller.bench.core.inspect(|machine| machine.held(id(2)).is_some());
    wait_until("the third is made", || {
        spiller.bench.core.measure(Traffic::default());
        is_made() && store.nbytes() == 200_000
    });
    assert_eq!((spiller.bytes(1), spiller.bytes(2).len()), (spiller.bytes(2), 200_000));
    spiller.bench.core.deliver([ToWorker::Free { tasks: vec![id(1)] }]);
    wait_until("the third is in its file", || {
        spiller.bench.core.measure(Traffic::default());
        store.nbytes() == 0
    });
    is_full(false);
}

#[test]
fn inputs_larger_than_memory_are_refused_with_a_reason() {
    let spiller = spiller(0);
    let huge = RunInput { nbytes: 2 << 20, ..input(7, &[9]) };
    spiller.bench.core.deliver([run(0, JOIN, vec![huge])]);
    let news = spiller.news(1);
    let [FromWorker::Failed { failure, .. }] = &news[..] else { panic!("{news:?}") };
    assert_eq!(failure.kind, FailureKind::TooLarge);
    assert!(failure.message.contains("2.0 MiB") && failure.message.contains("1.0 MiB"), "{}", failure.message);
}

#[test]
fn a_result_larger_than_memory_is_refused_before_it_is_made() {
    let spiller = spiller(0);
    spiller.bench.core.deliver([run(0, HUGE, Vec::new())]);
    let news = spiller.news(1);
    let [FromWorker::Failed { failure, .. }] = &news[..] else { panic!("{news:?}") };
    assert_eq!((failure.kind, failure.operator.as_str()), (FailureKind::Operator, "test.huge"));
    assert!(failure.message.contains("1073741824") && failure.message.contains("1048576"), "{}", failure.message);
    // Without a limit it is made.
    let unlimited = bench_with(&CoreConfig::new("unlimited", 1));
    unlimited.core.deliver([run(0, HUGE, Vec::new())]);
    assert!(matches!(unlimited.ear.take(1)[..], [FromWorker::Finished { .. }]));
}

#[test]
fn freed_results_and_a_worker_that_ends_leave_no_files() {
    let spiller = spiller(0);
    spiller.spill(0, BIG);
    spiller.spill(1, BIG);
    spiller.bench.core.deliver([ToWorker::Free { tasks: vec![id(0)] }]);
    wait_until("the file is deleted", || spiller.files().len() == 1);
    spiller.bench.core.shutdown();
    spiller.area.close();
    assert_eq!(fs::read_dir(spiller.base.path()).unwrap().count(), 0);
}

#[test]
fn big_results_are_sent_one_after_another_when_memory_is_small_and_count_meanwhile() {
    let spiller = spiller(0);
    spiller.spill(0, BIG);
    spiller.make(1, 0);
    spiller.spill(2, BIG);
    let core = &spiller.bench.core;
    assert!(core.needs_room_to_send(&whole(0)) && !core.needs_room_to_send(&whole(1)));
    let nbytes_lent = || core.inspect(crate::machine::Machine::nbytes_lent);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let first = core.room_to_send("a", whole(0)).await;
        assert_eq!(nbytes_lent(), 200_000);
        let again =
            tokio::time::timeout(LONG, core.room_to_send("b", whole(0))).await.expect("the same result takes no more room");
        assert_eq!(nbytes_lent(), 200_000);
        let another = core.room_to_send("b", whole(2));
        let waited = tokio::time::timeout(Duration::from_secs(3), another).await;
        assert!(waited.is_err(), "there is room for one, and nobody goes on without");
        drop((first, again));
        assert_eq!(nbytes_lent(), 0);
        let another = tokio::time::timeout(LONG, core.room_to_send("b", whole(2))).await.unwrap();
        drop(another);
    });
    assert_eq!(nbytes_lent(), 0);
}
