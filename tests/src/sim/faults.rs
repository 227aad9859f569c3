//! What goes wrong: each seed draws its own faults, often none, and how its network and its scheduler are set.

use std::time::Duration;

use rask_comm::time::Time;
use rask_scheduler::machine::Config;
use rask_worker::machine::{Event, MemoryConfig};

use super::entropy::Dice;
use super::process::Process;
use super::session::JobState;
use super::world::{Delivery, World};

/// A thing that happens to the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// A worker process dies and starts anew later.
    Crash,
    /// A worker process stands still for a while; if for long, it is given up.
    Pause,
    /// A worker loses its scheduler.
    CutScheduler,
    /// Two workers cannot reach each other for a while.
    CutPeers,
    /// The cut between two workers is mended.
    MendPeers(usize, usize),
    /// One direction of a worker's connection becomes slow.
    Delay,
    /// Tasks take twenty times as long for a while.
    SlowTasks,
    /// Another worker comes.
    Join,
    /// A worker is asked to leave.
    Drain,
    /// All workers but one are asked to leave.
    DrainMany,
    /// A client's process dies.
    ClientDeath,
    /// A client cancels one of its graphs.
    Cancel,
    /// Every graph is cancelled, by anybody.
    CancelStorm,
    /// A client lets go of outputs before they are done.
    ReleaseEarly,
    /// A result in a worker's store turns out to be unreadable.
    DamageResult,
    /// A spilled result's file is damaged, or goes.
    DamageFile,
    /// A worker's disk is full for a while.
    DiskFull,
    /// A worker's disk has space again.
    DiskBack(usize),
    /// A worker is short of memory for a while.
    MemoryShort,
    /// A worker has memory again.
    MemoryBack(usize),
    /// All workers die at once.
    AllGone,
}

const KINDS: [Fault; 18] = [
    Fault::Crash,
    Fault::Pause,
    Fault::CutScheduler,
    Fault::CutPeers,
    Fault::Delay,
    Fault::SlowTasks,
    Fault::Join,
    Fault::Drain,
    Fault::DrainMany,
    Fault::ClientDeath,
    Fault::Cancel,
    Fault::CancelStorm,
    Fault::ReleaseEarly,
    Fault::DamageResult,
    Fault::DamageFile,
    Fault::DiskFull,
    Fault::MemoryShort,
    Fault::AllGone,
];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Crash => "worker crash",
            Self::Pause => "worker pause",
            Self::CutScheduler => "scheduler connection cut",
            Self::CutPeers => "peer connection cut",
            Self::MendPeers(..) => "peer connection mended",
            Self::Delay => "slow connection",
            Self::SlowTasks => "slow tasks",
            Self::Join => "worker join",
            Self::Drain => "worker drain",
            Self::DrainMany => "all but one drain",
            Self::ClientDeath => "client death",
            Self::Cancel => "cancel",
            Self::CancelStorm => "cancel storm",
            Self::ReleaseEarly => "early release",
            Self::DamageResult => "damaged result",
            Self::DamageFile => "damaged spill file",
            Self::DiskFull => "full spill disk",
            Self::DiskBack(_) => "space on the spill disk",
            Self::MemoryShort => "memory short",
            Self::MemoryBack(_) => "memory back",
            Self::AllGone => "all workers gone",
        }
    }
}

/// How a seed's world is set.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// One-way delay of messages, from and to, in microseconds.
    pub(super) latency_us: (u64, u64),
    /// Until a side notices a dead connection, in microseconds.
    pub(super) notice_us: (u64, u64),
    /// How long the scheduler's shell gathers actions; 0 to write them at once.
    pub(super) turn_us: u64,
    /// Whether every message is a frame of its own, so that a connection may die between any two.
    pub(super) splits_frames: bool,
    /// How often an item breaks a fetch.
    pub(super) fetch_breaks_per_mille: u64,
    /// Percentage of runs that take twenty times as long.
    pub(super) straggling: u64,
    /// Whether all workers go for good at the end of the faults.
    pub(super) is_abandoned: bool,
    /// When faults end, in microseconds.
    pub(super) horizon_us: u64,
    pub(super) has_faults: bool,
    /// One worker far away that loses results all the time while clients let go of others: the same task is wanted, not
    /// wanted and wanted again while news of its runs is in the air.
    pub(super) is_flickering: bool,
}

impl Profile {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let slowest = dice.magnitude(100, 20_000);
        let has_faults = dice.chance(75);
        let is_flickering = has_faults && dice.chance(12);
        Self {
            is_flickering,
            latency_us: if is_flickering { (1_000, 60_000) } else { (50, slowest.max(51)) },
            notice_us: if dice.chance(50) { (50, 20_000) } else { (50, 3_000_000) },
            turn_us: if dice.chance(30) { dice.magnitude(10, 5_000) } else { 0 },
            splits_frames: dice.chance(50),
            fetch_breaks_per_mille: if has_faults && dice.chance(20) { dice.between(1, 100) } else { 0 },
            straggling: if dice.chance(40) { dice.magnitude(2, 25) } else { 0 },
            is_abandoned: has_faults && dice.chance(4),
            horizon_us: dice.magnitude(if is_flickering { 2_000_000 } else { 50_000 }, 8_000_000),
            has_faults,
        }
    }
}

/// Draw how the scheduler is set, extremes included.
pub(super) fn draw_config(dice: &mut Dice) -> Config {
    let mut config = Config { no_worker_grace: Duration::from_millis(dice.between(1_000, 8_000)), ..Config::default() };
    config.retry_pause = Duration::from_millis(dice.below(20));
    if dice.chance(50) {
        config.hot_nbytes = dice.magnitude(1, 1 << 16);
    }
    if dice.chance(40) {
        config.saturation = [0.1, 1.0, 1.1, 2.5, 20.0][dice.index(5)];
        config.prefill = Duration::from_micros(dice.magnitude(1, 500_000));
        config.max_prefill = [1, 2, 8, 1024][dice.index(4)];
        config.max_early = [0, 1, 8, 1024][dice.index(4)];
        config.backup_share = [0.0, 0.1, 0.5, 1.0][dice.index(4)];
        config.allowed_failures = dice.between(0, 4) as u32;
        config.progress_interval = Duration::from_millis(dice.between(1, 500));
        config.unknown_duration = Duration::from_micros(dice.magnitude(1, 2_000_000));
    }
    config
}

/// Draw what a worker may do with memory: plenty of it, or so little that it spills all the time.
pub(super) fn draw_memory(dice: &mut Dice) -> MemoryConfig {
    let mut memory = MemoryConfig::new(1 << 30);
    if dice.chance(40) {
        memory.limit = dice.magnitude(1_000, 1 << 24);
        memory.can_spill = true;
        memory.min_spill_nbytes = dice.magnitude(1, 100);
        memory.max_writes = dice.between(1, 3) as usize;
    }
    memory
}

/// Draw how big the disk is: as big as need be, or about as big as the memory.
pub(super) fn draw_disk(dice: &mut Dice, memory: &MemoryConfig) -> u64 {
    let is_small = memory.can_spill && dice.chance(30);
    if is_small { dice.between(0, memory.limit.saturating_mul(2)) } else { u64::MAX }
}

impl World {
    /// Put this seed's faults into the future.
    pub(super) fn plan_faults(&mut self) {
        if !self.profile.has_faults {
            return;
        }
        if self.profile.is_flickering {
            let (n_damaged, n_released) = (self.dice.between(100, 1_000), self.dice.between(5, 100));
            for n in 0..n_damaged + n_released {
                let at = Time(Duration::from_micros(self.dice.below(self.profile.horizon_us)));
                let kind = if n < n_damaged { Fault::DamageResult } else { Fault::ReleaseEarly };
                self.push(at, Delivery::Fault(kind));
            }
            return;
        }
        for _ in 0..self.dice.between(1, 4) {
            let Some(kind) = self.dice.pick(&KINDS) else { return };
            let n_times = match kind {
                Fault::AllGone | Fault::CancelStorm | Fault::DrainMany => 1,
                Fault::Crash
                | Fault::Pause
                | Fault::CutScheduler
                | Fault::CutPeers
                | Fault::MendPeers(..)
                | Fault::Delay
                | Fault::SlowTasks
                | Fault::Join
                | Fault::Drain
                | Fault::ClientDeath
                | Fault::Cancel
                | Fault::ReleaseEarly
                | Fault::DamageResult
                | Fault::DamageFile
                | Fault::DiskFull
                | Fault::DiskBack(_)
                | Fault::MemoryShort
                | Fault::MemoryBack(_) => self.dice.magnitude(1, 12),
            };
            for _ in 0..n_times {
                let at = self.dice.below(self.profile.horizon_us);
                self.push(Time(Duration::from_micros(at)), Delivery::Fault(kind));
            }
        }
    }

    pub(super) fn note_fault(&mut self, name: &'static str) {
        *self.trace.counts.faults.entry(name).or_default() += 1;
    }

    pub(super) fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::MendPeers(left, right) => {
                self.cut_peers.remove(&(left, right));
                return;
            }
            Fault::MemoryBack(process) => {
                self.set_memory_short(process, false);
                return;
            }
            Fault::DiskBack(process) => {
                self.processes[process].is_disk_full = false;
                return;
            }
            Fault::Crash
            | Fault::Pause
            | Fault::CutScheduler
            | Fault::CutPeers
            | Fault::Delay
            | Fault::SlowTasks
            | Fault::Join
            | Fault::Drain
            | Fault::DrainMany
            | Fault::ClientDeath
            | Fault::Cancel
            | Fault::CancelStorm
            | Fault::ReleaseEarly
            | Fault::DamageResult
            | Fault::DamageFile
            | Fault::DiskFull
            | Fault::MemoryShort
            | Fault::AllGone => {}
        }
        if self.is_healed {
            return;
        }
        self.note_fault(fault.name());
        let process = self.pick_process();
        match fault {
            Fault::Crash => {
                let restart = self.dice.between(1_000, 2_000_000);
                self.crash(process, Some(restart));
            }
            Fault::Pause => self.pause(process),
            Fault::CutScheduler => {
                self.may_repeat_work = true;
                if let Some(conn) = self.processes[process].conn {
                    self.cut(conn);
                }
            }
            Fault::CutPeers => {
                self.may_repeat_work = true;
                let other = self.pick_process();
                let pair = (process.min(other), process.max(other));
                self.cut_peers.insert(pair);
                self.break_watches_between(pair.0, pair.1);
                let lasts = self.dice.between(1_000, 2_000_000);
                self.push_in(lasts, Delivery::Fault(Fault::MendPeers(pair.0, pair.1)));
            }
            Fault::Delay => {
                let until = self.now.after(Duration::from_micros(self.dice.between(1_000, 3_000_000)));
                let delay = Duration::from_micros(self.dice.magnitude(1_000, 1_000_000));
                let is_up = self.dice.chance(50);
                if let Some(conn) = self.processes[process].conn {
                    let conn = &mut self.conns[conn];
                    *(if is_up { &mut conn.slow_up } else { &mut conn.slow_down }) = (until, delay);
                }
            }
            Fault::SlowTasks => {
                self.slow_until = self.now.after(Duration::from_micros(self.dice.between(1_000, 1_000_000)));
            }
            Fault::Join => self.join(),
            Fault::Drain => self.drain(process),
            Fault::DrainMany => {
                for other in 0..self.processes.len() {
                    if other != process {
                        self.drain(other);
                    }
                }
            }
            Fault::ClientDeath => {
                let session = self.dice.index(self.sessions.len());
                self.kill_client(session);
            }
            Fault::Cancel => {
                let session = self.dice.index(self.sessions.len());
                let own: Vec<_> = self.sessions[session].jobs.iter().filter_map(|job| job.graph()).collect();
                if let Some(graph) = self.dice.pick(&own) {
                    self.cancel(session, graph);
                }
            }
            Fault::CancelStorm => {
                for graph in self.graphs.keys().copied().collect::<Vec<_>>() {
                    let session = self.dice.index(self.sessions.len());
                    self.cancel(session, graph);
                }
            }
            Fault::ReleaseEarly => self.release_some(),
            Fault::DamageResult => self.damage(process),
            Fault::DamageFile => self.damage_file(process),
            Fault::DiskFull => {
                self.processes[process].is_disk_full = true;
                let lasts = self.dice.between(1_000, 4_000_000);
                self.push_in(lasts, Delivery::Fault(Fault::DiskBack(process)));
            }
            Fault::MemoryShort => {
                self.set_memory_short(process, true);
                let lasts = self.dice.between(1_000, 2_000_000);
                self.push_in(lasts, Delivery::Fault(Fault::MemoryBack(process)));
            }
            Fault::AllGone => {
                let restart = self.dice.between(1_000, 12_000_000);
                for process in 0..self.processes.len() {
                    self.crash(process, Some(restart));
                }
            }
            Fault::MendPeers(..) | Fault::MemoryBack(_) | Fault::DiskBack(_) => {}
        }
    }

    fn pick_process(&mut self) -> usize {
        self.dice.index(self.processes.len())
    }

    fn pause(&mut self, process: usize) {
        let lasts = self.dice.magnitude(1_000, 6_000_000);
        // Never shortened: what waits for the first pause to end must not be overtaken.
        let until = self.now.after(Duration::from_micros(lasts));
        self.processes[process].paused_until = self.processes[process].paused_until.max(until);
        if lasts > 3_000_000 {
            self.may_repeat_work = true;
            if let Some(conn) = self.processes[process].conn {
                self.cut(conn);
            }
        }
    }

    fn join(&mut self) {
        let like = self.pick_process();
        let name = format!("late-{}", self.processes.len());
        let (n_slots, resources) = (self.processes[like].n_slots, self.processes[like].resources.clone());
        let config = self.processes[like].config;
        self.processes.push(Process::new(name, n_slots, resources, config));
        self.connect(self.processes.len() - 1);
    }

    fn drain(&mut self, process: usize) {
        let Some(conn) = self.processes[process].conn else { return };
        let is_welcome = self.processes[process].machine.as_ref().is_some_and(|machine| machine.worker().is_some());
        if !is_welcome || self.processes[process].is_draining {
            return;
        }
        self.processes[process].is_draining = true;
        let is_known = |process: &Process| process.conn.is_some_and(|conn| self.conns[conn].worker.is_some());
        if self.processes.iter().all(|process| !process.is_up || process.is_draining || !is_known(process)) {
            // With nowhere to move results to, they will have to be made again.
            self.may_repeat_work = true;
        }
        self.tell_worker(conn, Event::RetireRequested);
    }

    fn release_some(&mut self) {
        let session = self.dice.index(self.sessions.len());
        let at = self.dice.index(self.sessions[session].jobs.len());
        let is_running = matches!(self.sessions[session].jobs[at].state, JobState::Running(_) | JobState::Held(_));
        if is_running && !self.sessions[session].has_users_to_come(at) {
            self.release_early(session, at);
            self.settle_jobs(session);
        }
    }

    fn damage(&mut self, process: usize) {
        let Some(conn) = self.processes[process].conn else { return };
        let held: Vec<_> = self.processes[process].store.keys().filter(|(_, part)| part.is_whole()).copied().collect();
        let Some((task, _)) = self.dice.pick(&held) else { return };
        self.lose_stored(conn, task);
    }

    fn set_memory_short(&mut self, process: usize, is_short: bool) {
        self.processes[process].is_memory_short = is_short;
        if let Some(conn) = self.processes[process].conn {
            self.measure(conn);
        }
    }

    /// End all faults: from here on everything has to come to an end.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.cut_peers.clear();
        self.slow_until = self.now;
        self.profile.fetch_breaks_per_mille = 0;
        for process in 0..self.processes.len() {
            if self.profile.is_abandoned {
                self.crash(process, None);
                continue;
            }
            self.processes[process].is_disk_full = false;
            self.processes[process].disk_limit = u64::MAX;
            // A process that stands still goes on by itself within seconds; waking it now would disorder its messages.
            self.set_memory_short(process, false);
            self.push(self.now, Delivery::Connect { process });
        }
        for conn in &mut self.conns {
            conn.slow_up.0 = self.now;
            conn.slow_down.0 = self.now;
        }
        if self.profile.is_abandoned {
            self.note_fault("all workers gone for good");
        }
    }
}
