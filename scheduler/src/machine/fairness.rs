//! Whose turn it is: clients share the workers by start-time fair queuing (Goyal, Vin and Cheng, SIGCOMM 1996).
//!
//! Each client is a *flow* with a virtual time, which every run given for it advances by the run's estimated cost over the
//! client's share: owners have equal shares, and an owner's is divided among its clients by weight. Wherever tasks of several
//! clients wait for the same room, the flow whose virtual time is least goes first; a client's own priorities and order count only
//! among its own tasks. A flow that has had nothing to send starts where the
//! others are: having been idle is no credit. When a run ends, what it was charged is set right by how long it took, so that
//! tasks whose cost is not known yet cost their client nothing but a short wait.
//!
//! A graph stays in the flow it was submitted in, also when its client has gone: a detached graph has the share its client had.

use std::collections::BTreeMap;

use rask_comm::Owner;
use rask_graphs::ClientId;

/// A client's place among the others. Slots of flows that are over are used again.
#[derive(Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FlowId(pub(super) u32);

/// Which flow goes first: the one with the lesser virtual time; among equals the lesser number.
pub(super) type StartTag = (u128, FlowId);

/// Weights outside this range are taken for its nearest end.
const WEIGHTS: std::ops::RangeInclusive<f64> = 0.01..=100.0;
/// A virtual nanosecond is this many units, so that cheap tasks of heavy clients are still told apart.
const UNITS_PER_NS: f64 = 1024.0;
/// How far a flow may be behind the foremost one, in units: one whose tasks could not be sent, because they wait for workers
/// of their own, must not keep everybody else from working once they can.
const MAX_LAG: u128 = 100_000_000 * 1024;
/// No run counts for more than this, in nanoseconds: an hour.
const MAX_COST_NS: u64 = 3_600_000_000_000;

struct Flow {
    virtual_time: u128,
    /// In thousandths, beside the other flows of its owner.
    weight: u64,
    owner: usize,
    /// Tasks in state queued.
    n_queued: u32,
    /// Graphs in the tables.
    n_graphs: u32,
    is_connected: bool,
}

/// Whoever has flows: all of them together have one share, however many they are and whatever they weigh.
struct Share {
    owner: Owner,
    n_flows: u32,
    /// Sum of the weights of those with queued tasks.
    active_weight: u64,
}

/// The flows of all clients.
#[derive(Default)]
pub(super) struct Flows {
    table: Vec<Flow>,
    by_client: BTreeMap<ClientId, FlowId>,
    free: Vec<FlowId>,
    /// By place; places of owners without flows are used again.
    shares: Vec<Share>,
    /// The greatest virtual time at which a run was given.
    foremost: u128,
    /// Flows with queued tasks, and owners of such.
    n_active: u32,
    n_active_owners: u32,
}

impl Flows {
    /// A client has come.
    pub(super) fn join(&mut self, client: ClientId, weight: f64, owner: Owner) {
        let weight = if weight.is_nan() { 1.0 } else { weight.clamp(*WEIGHTS.start(), *WEIGHTS.end()) };
        let owner = self.share_of(owner);
        self.shares[owner].n_flows += 1;
        let weight = (weight * 1_000.0) as u64;
        let flow = Flow { virtual_time: 0, weight, owner, n_queued: 0, n_graphs: 0, is_connected: true };
        let id = if let Some(id) = self.free.pop() {
            self.table[id.0 as usize] = flow;
            id
        } else {
            self.table.push(flow);
            FlowId(self.table.len() as u32 - 1)
        };
        self.by_client.insert(client, id);
    }

    /// The place of what `owner` has, made if there is none.
    fn share_of(&mut self, owner: Owner) -> usize {
        if let Some(at) = self.shares.iter().position(|share| share.n_flows > 0 && share.owner == owner) {
            return at;
        }
        let share = Share { owner, n_flows: 0, active_weight: 0 };
        match self.shares.iter().position(|share| share.n_flows == 0) {
            Some(at) => {
                self.shares[at] = share;
                at
            }
            None => {
                self.shares.push(share);
                self.shares.len() - 1
            }
        }
    }

    /// A client has gone; its flow stays as long as graphs of it do.
    pub(super) fn leave(&mut self, client: ClientId) {
        if let Some(flow) = self.by_client.remove(&client) {
            self.table[flow.0 as usize].is_connected = false;
            self.free_if_over(flow);
        }
    }

    /// A graph of a connected client begins; the flow it belongs to from now on.
    pub(super) fn begin_graph(&mut self, client: ClientId) -> FlowId {
        let flow = *self.by_client.get(&client).expect("only a connected client submits");
        self.table[flow.0 as usize].n_graphs += 1;
        flow
    }

    /// A graph of `flow` is forgotten; nothing of it is queued.
    pub(super) fn end_graph(&mut self, flow: FlowId) {
        self.table[flow.0 as usize].n_graphs -= 1;
        self.free_if_over(flow);
    }

    fn free_if_over(&mut self, id: FlowId) {
        let flow = &self.table[id.0 as usize];
        if flow.n_graphs == 0 && !flow.is_connected {
            self.shares[flow.owner].n_flows -= 1;
            self.free.push(id);
        }
    }

    /// `n` more tasks of `flow` are queued.
    pub(super) fn add_queued(&mut self, flow: FlowId, n: u32) {
        let foremost = self.foremost;
        let flow = &mut self.table[flow.0 as usize];
        if flow.n_queued == 0 && n > 0 {
            flow.virtual_time = flow.virtual_time.max(foremost);
            self.n_active += 1;
            let share = &mut self.shares[flow.owner];
            self.n_active_owners += u32::from(share.active_weight == 0);
            share.active_weight += flow.weight;
        }
        flow.n_queued += n;
    }

    /// A task of `flow` is no longer queued.
    pub(super) fn remove_queued(&mut self, flow: FlowId) {
        let flow = &mut self.table[flow.0 as usize];
        flow.n_queued -= 1;
        if flow.n_queued == 0 {
            self.n_active -= 1;
            let share = &mut self.shares[flow.owner];
            share.active_weight -= flow.weight;
            self.n_active_owners -= u32::from(share.active_weight == 0);
        }
    }

    /// Whether a flow with a task to send is the only one that has any.
    pub(super) fn is_alone(&self) -> bool {
        self.n_active <= 1
    }

    /// The place of `flow` among the others.
    pub(super) fn start_tag(&self, flow: FlowId) -> StartTag {
        (self.table[flow.0 as usize].virtual_time.max(self.foremost.saturating_sub(MAX_LAG)), flow)
    }

    /// A run with this estimated cost is given for `flow`.
    pub(super) fn charge(&mut self, flow: FlowId, estimate_ns: u64) {
        let (start, _) = self.start_tag(flow);
        self.foremost = self.foremost.max(start);
        let units = self.units(flow, estimate_ns);
        self.table[flow.0 as usize].virtual_time = start + units;
    }

    /// A run that was charged `estimate_ns` has turned out to cost `actual_ns`.
    pub(super) fn correct(&mut self, flow: FlowId, estimate_ns: u64, actual_ns: u64) {
        let (charged, owed) = (self.units(flow, estimate_ns), self.units(flow, actual_ns));
        let flow = &mut self.table[flow.0 as usize];
        flow.virtual_time = (flow.virtual_time + owed).saturating_sub(charged);
    }

    /// What a cost counts for: the more, the smaller the flow's part of its owner's share, as long as there are several owners to
    /// share. Rounded up, so that a client of weight 3 is
    /// not a hair ahead after three runs to another's one.
    fn units(&self, flow: FlowId, cost_ns: u64) -> u128 {
        let flow = &self.table[flow.0 as usize];
        let active = if self.n_active_owners <= 1 { 1_000 } else { self.shares[flow.owner].active_weight.max(flow.weight) };
        (cost_ns.min(MAX_COST_NS) as f64 * UNITS_PER_NS * active as f64 / flow.weight as f64).ceil() as u128
    }

    /// Panics when the counts are not those of `n_queued` and `n_graphs`, by flow.
    pub(super) fn validate(&self, counted: &BTreeMap<FlowId, (u32, u32)>) {
        let mut n_active = 0;
        for (id, flow) in self.table.iter().enumerate() {
            let id = FlowId(id as u32);
            let (n_queued, n_graphs) = counted.get(&id).copied().unwrap_or_default();
            assert_eq!((flow.n_queued, flow.n_graphs), (n_queued, n_graphs), "{id:?}: queued tasks and graphs");
            assert_eq!(self.free.contains(&id), n_graphs == 0 && !flow.is_connected, "{id:?}: free");
            n_active += u32::from(n_queued > 0);
        }
        assert_eq!(self.n_active, n_active, "flows with queued tasks");
        let n_active_owners = self.shares.iter().filter(|share| share.active_weight > 0).count();
        assert_eq!(self.n_active_owners as usize, n_active_owners, "owners with queued tasks");
        for (at, share) in self.shares.iter().enumerate() {
            let own = || self.table.iter().filter(|flow| flow.owner == at);
            let active: u64 = own().filter(|flow| flow.n_queued > 0).map(|flow| flow.weight).sum();
            assert_eq!(share.active_weight, active, "{:?}: weight of flows with queued tasks", share.owner);
            let n_flows = own().filter(|flow| flow.n_graphs > 0 || flow.is_connected).count();
            assert_eq!(share.n_flows as usize, n_flows, "{:?}: flows", share.owner);
        }
        assert!(self.by_client.values().all(|flow| self.table[flow.0 as usize].is_connected), "flows of clients that are here");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(weights: &[f64]) -> Flows {
        let mut flows = Flows::default();
        for (client, weight) in weights.iter().enumerate() {
            flows.join(ClientId(client as u32), *weight, Owner::Local);
            flows.begin_graph(ClientId(client as u32));
        }
        flows
    }

    /// The runs given to each flow, which all have something to send, in a row of `n`.
    fn serve(flows: &mut Flows, n: usize, cost_ns: u64) -> Vec<u32> {
        let mut served = vec![0; flows.table.len()];
        for _ in 0..n {
            let active = (0..flows.table.len()).filter(|flow| flows.table[*flow].n_queued > 0);
            let (_, first) =
                active.map(|flow| flows.start_tag(FlowId(flow as u32))).min().expect("someone has something to send");
            flows.charge(first, cost_ns);
            served[first.0 as usize] += 1;
        }
        served
    }

    #[test]
    fn flows_share_by_weight() {
        let mut flows = flows(&[1.0, 3.0, 0.5]);
        (0..3).for_each(|flow| flows.add_queued(FlowId(flow), 1));
        let served = serve(&mut flows, 9_000, 5_000);
        for (got, fair) in served.iter().zip([2_000u32, 6_000, 1_000]) {
            assert!(got.abs_diff(fair) <= 3, "{served:?}");
        }
    }

    #[test]
    fn neither_weight_nor_many_connections_give_an_owner_more_than_others() {
        let mut flows = Flows::default();
        let owner = |name: &str| Owner::Named(name.to_owned());
        for (client, weight, name) in [(0, 100.0, "greedy"), (1, 100.0, "greedy"), (2, 50.0, "greedy"), (3, 1.0, "modest")] {
            flows.join(ClientId(client), weight, owner(name));
            flows.begin_graph(ClientId(client));
            flows.add_queued(FlowId(client), 1);
        }
        let served = serve(&mut flows, 10_000, 5_000);
        assert!(served[3].abs_diff(5_000) <= 5, "{served:?}");
        assert!(served[0].abs_diff(2_000) <= 5 && served[2].abs_diff(1_000) <= 5, "its own are told apart: {served:?}");
        // Whoever has nothing to do counts for nothing.
        flows.remove_queued(FlowId(0));
        flows.remove_queued(FlowId(1));
        let served = serve(&mut flows, 10_000, 5_000);
        assert!(served[2].abs_diff(5_000) <= 5, "{served:?}");
    }

    #[test]
    fn having_been_idle_is_no_credit_and_having_worked_alone_no_debt() {
        let mut flows = flows(&[1.0, 1.0]);
        flows.add_queued(FlowId(0), 1);
        serve(&mut flows, 1_000, 1_000_000);
        flows.add_queued(FlowId(1), 1);
        let served = serve(&mut flows, 100, 1_000_000);
        assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
    }

    #[test]
    fn a_flow_that_could_not_be_served_catches_up_by_no_more_than_the_greatest_lag() {
        let mut flows = Flows::default();
        for (client, owner) in [(0, "a"), (1, "b")] {
            flows.join(ClientId(client), 1.0, Owner::Named(owner.to_owned()));
            flows.begin_graph(ClientId(client));
        }
        flows.add_queued(FlowId(1), 1);
        flows.add_queued(FlowId(0), 1);
        (0..10_000).for_each(|_| flows.charge(FlowId(0), 1_000_000));
        let served = serve(&mut flows, 300, 1_000_000);
        assert!((195..=205).contains(&served[1]), "100 ms to catch up, then half: {served:?}");
    }

    #[test]
    fn a_charge_that_was_too_high_is_given_back() {
        let mut flows = flows(&[1.0, 1.0]);
        (0..2).for_each(|flow| flows.add_queued(FlowId(flow), 1));
        flows.charge(FlowId(1), 500_000_000);
        flows.correct(FlowId(1), 500_000_000, 1_000_000);
        let served = serve(&mut flows, 100, 1_000_000);
        assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
    }

    #[test]
    fn weights_are_bounded_and_slots_of_flows_that_are_over_are_used_again() {
        let mut flows = flows(&[f64::NAN, -1.0, f64::INFINITY]);
        let weights: Vec<u64> = flows.table.iter().map(|flow| flow.weight).collect();
        assert_eq!(weights, [1_000, 10, 100_000]);
        flows.leave(ClientId(1));
        flows.join(ClientId(3), 1.0, Owner::Local);
        assert_eq!(flows.table.len(), 4, "a flow with a graph stays when its client goes");
        flows.end_graph(FlowId(1));
        flows.join(ClientId(4), 1.0, Owner::Local);
        assert_eq!(flows.table.len(), 4);
    }
}
