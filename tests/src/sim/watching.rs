//! The workers' talk about results that are not made yet: watches, pushes, and connections that break in between.
//!
//! A conversation is between two registrations: a process that has registered again refuses watches meant for its past.

use rask_comm::time::Time;
use rask_graphs::WorkerId;
use rask_worker::machine::{Event, FetchItem};

use super::oracle::part_of;
use super::world::{Delivery, Stored, World};

/// As the real data plane: bigger results are announced, not pushed.
const MAX_PUSHED_NBYTES: u64 = 64 << 10;

impl World {
    /// Registration `conn` watches for items at the worker `from`.
    pub(super) fn watch(&mut self, conn: usize, from: WorkerId, items: Vec<FetchItem>) {
        assert!(!items.is_empty(), "a watch for nothing");
        let maker = self.conn_of[&from];
        let (at, peer) = (self.conns[conn].process, self.conns[maker].process);
        let is_there = self.processes[peer].is_up && self.processes[peer].conn == Some(maker);
        let is_reachable = is_there && !self.cut_peers.contains(&(at.min(peer), at.max(peer)));
        let breaks = self.dice.below(1_000) < self.profile.fetch_breaks_per_mille;
        let is_new = !self.watching.contains_key(&(conn, maker));
        if is_new {
            self.watching.insert((conn, maker), Some(Time::default()));
        }
        if !is_reachable || breaks {
            self.break_where(|_, pair| pair == (conn, maker));
            return;
        }
        self.send_watches(conn, maker, items, true);
    }

    pub(super) fn unwatch(&mut self, conn: usize, from: WorkerId, items: Vec<FetchItem>) {
        assert!(!items.is_empty(), "the end of no watch");
        self.send_watches(conn, self.conn_of[&from], items, false);
    }

    /// What one registration says to another arrives in order.
    fn send_watches(&mut self, conn: usize, maker: usize, items: Vec<FetchItem>, begins: bool) {
        let latency = self.draw_latency();
        let now = self.now;
        let Some(Some(last)) = self.watching.get_mut(&(conn, maker)) else { return };
        let at = now.after(std::time::Duration::from_micros(latency)).max(*last);
        *last = at;
        self.push(at, Delivery::Watches { conn, maker, items, begins });
    }

    pub(super) fn serve_watches(&mut self, conn: usize, maker: usize, items: Vec<FetchItem>, begins: bool) {
        // A connection that has broken since carries nothing any more.
        let Some(peer) = self.conns[conn].worker.filter(|_| self.is_connected(conn, maker)) else { return };
        let event = if begins { Event::PeerWatches { peer, items } } else { Event::PeerUnwatches { peer, items } };
        self.tell_worker(maker, event);
    }

    fn is_connected(&self, conn: usize, maker: usize) -> bool {
        self.watching.get(&(conn, maker)).is_some_and(Option::is_some)
    }

    /// The watcher notices that the connection has broken; only then it would make another.
    pub(super) fn notice_watch_lost(&mut self, conn: usize, from: WorkerId) {
        self.watching.remove(&(conn, self.conn_of[&from]));
        self.tell_worker(conn, Event::WatchLost { from });
    }

    /// The maker's shell sends an item, or word of it, to a watcher.
    pub(super) fn begin_push(&mut self, maker: usize, to: WorkerId, item: FetchItem) {
        let at = self.conns[maker].process;
        // What is in a file only is not sent along: the watcher is told that it can be fetched.
        let Some(mut stored) = self.processes[at].stored(item) else {
            assert!(self.processes[at].damaged.contains(&item.task), "worker {at} pushes {item:?}, which it does not hold");
            return;
        };
        if self.processes[at].disk.evicted.contains(&item.task) {
            stored.nbytes = stored.nbytes.max(MAX_PUSHED_NBYTES + 1);
        }
        let latency = self.draw_latency() + stored.nbytes.min(MAX_PUSHED_NBYTES) / 200;
        self.push_in(latency, Delivery::Pushed { conn: self.conn_of[&to], maker, item, stored });
    }

    pub(super) fn end_push(&mut self, conn: usize, maker: usize, item: FetchItem, stored: Stored) {
        let at = self.conns[conn].process;
        let Some(from) = self.conns[maker].worker.filter(|_| self.is_connected(conn, maker)) else { return };
        if self.processes[at].conn != Some(conn) {
            return;
        }
        if stored.nbytes > MAX_PUSHED_NBYTES {
            self.tell_worker(conn, Event::Made { from, item, nbytes: stored.nbytes });
            return;
        }
        assert_eq!(stored.value, part_of(self.truth(item.task), item.part), "{item:?} is pushed with a wrong value");
        self.trace.counts.n_pushes += 1;
        self.processes[at].put(item.task, item.part, stored);
        self.tell_worker(conn, Event::Pushed { from, item, nbytes: stored.nbytes });
    }

    /// A registration is over: whoever it talked with notices.
    pub(super) fn break_watches(&mut self, conn: usize) {
        self.break_where(|_, (watcher, maker)| watcher == conn || maker == conn);
    }

    /// The connection between two processes breaks.
    pub(super) fn break_watches_between(&mut self, left: usize, right: usize) {
        self.break_where(|world, (watcher, maker)| {
            let (watcher, maker) = (world.conns[watcher].process, world.conns[maker].process);
            (watcher.min(maker), watcher.max(maker)) == (left, right)
        });
    }

    fn break_where(&mut self, is_concerned: impl Fn(&Self, (usize, usize)) -> bool) {
        let alive = self.watching.iter().filter(|(_, last)| last.is_some()).map(|(pair, _)| *pair);
        let broken: Vec<(usize, usize)> = alive.filter(|pair| is_concerned(self, *pair)).collect();
        for (conn, maker) in broken {
            self.watching.insert((conn, maker), None);
            let (Some(watcher), Some(from)) = (self.conns[conn].worker, self.conns[maker].worker) else { continue };
            let notice = self.dice.between(100, 2_000_000);
            self.push_in(notice, Delivery::WatchLost { conn, from });
            self.push_in(notice, Delivery::WatcherGone { conn: maker, watcher });
        }
    }
}
