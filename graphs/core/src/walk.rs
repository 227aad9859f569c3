//! One walk through a graph: each task once, producers before users, what is cheap to finish before anything else is begun.
//!
//! 1. Of all that was begun, go for what needs the fewest sources that have not run (*left*); of equals what was begun first, so that
//!    a blocked product goes row by row instead of growing along both axes. A goal that becomes cheaper than the one being pursued
//!    comes before it. With nothing begun, run the first source of the next task that nobody else needs.
//! 2. A goal is where ways meet: the first join (a node with several producers) above what was begun, the next one, or the end of
//!    the way up to where it branches, as [`Reach`] says.
//! 3. On the way down to a goal's sources, of several missing inputs take first the one that needs most room by itself (Sethi and
//!    Ullman, "The Generation of Optimal Code for Arithmetic Expressions", 1970), of equals the earlier added.
//! 4. When a result has one user left, and that could run, run it: one result takes the place of another, or of several.
//!
//! Sources are counted along every way (as in a tree), so what is shared counts more than once: counting sets would cost more than
//! linear time. Gather groups are nodes that cost nothing, so an n by m shuffle has n + m edges here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::links::{Links, as_node};

/// How many goals are pursued within each other at most: a bound on how often a node is looked at.
const MAX_NESTED: usize = 64;

/// How far ahead of what was begun a goal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// The first join: small steps, for reductions of the same chunks that should go together.
    Join,
    /// The join behind it, if only that one needs the first: for products that are sums of products.
    NextJoin,
    /// Where the way branches or ends: whole subtrees.
    End,
}

/// Goals that were begun. Entries are not updated but added anew: one that is out of date is recognised by what it says is left.
#[derive(Default)]
struct Agenda {
    /// Nothing left: when begun, node. Apart from the others because these are many, and asked for most.
    supplied: BinaryHeap<Reverse<(u32, u32)>>,
    /// Left, when begun, node.
    others: BinaryHeap<Reverse<(u64, u32, u32)>>,
}

impl Agenda {
    fn push(&mut self, left: u64, begun_at: u32, goal: u32) {
        if left == 0 {
            self.supplied.push(Reverse((begun_at, goal)));
        } else {
            self.others.push(Reverse((left, begun_at, goal)));
        }
    }

    /// The least that is left, and the goal; perhaps out of date.
    fn peek(&self) -> Option<(u64, u32)> {
        let supplied = self.supplied.peek().map(|&Reverse((_, goal))| (0, goal));
        supplied.or_else(|| self.others.peek().map(|&Reverse((left, _, goal))| (left, goal)))
    }

    fn pop(&mut self) {
        if self.supplied.pop().is_none() {
            self.others.pop();
        }
    }
}

/// A walk in progress.
pub(crate) struct Walk<'a> {
    links: &'a Links,
    is_output: &'a [bool],
    level: &'a [u32],
    current_level: u32,
    /// By node: how many results are alive at once, at the least, while it is computed alone (shared inputs counted twice).
    room: Vec<u32>,
    /// By node: the goal when it has been begun, of the same level.
    goal_of: Vec<u32>,
    /// By node: sources below it, counted along every way; never less than one.
    weight: Vec<u32>,
    /// By node: the weight of its producers that need sources which have not run.
    left: Vec<u64>,
    /// By node: producers that need sources which have not run.
    n_unsupplied: Vec<u32>,
    /// By goal: how many tasks had run when it was begun, or [`NEVER`].
    begun_at: Vec<u32>,
    /// By node: inputs not yet there.
    missing: Vec<u32>,
    /// By node: users that are not done. A group as user counts until its consumers are: they are what releases its members.
    remaining: Vec<u32>,
    is_done: Vec<bool>,
    /// By node: all sources below it have run.
    is_supplied: Vec<bool>,
    is_pursued: Vec<bool>,
    /// By level.
    begun: Vec<Agenda>,
    goals: Vec<u32>,
    stack: Vec<u32>,
    to_supply: Vec<u32>,
    order: Vec<u32>,
}

const NEVER: u32 = u32::MAX;

impl<'a> Walk<'a> {
    /// A walk that has not begun; `level` is by node, lower ones go first, and producers are never of a higher one than users.
    pub(crate) fn new(links: &'a Links, is_output: &'a [bool], level: &'a [u32], topological: &[u32], reach: Reach) -> Self {
        let n_nodes = links.n_nodes();
        let n_producers: Vec<u32> = (0..n_nodes).map(|node| as_node(links.producers_of(as_node(node)).len())).collect();
        let weight = weights(links, topological);
        let weights_of =
            |node: usize| links.producers_of(as_node(node)).iter().map(|&producer| u64::from(weight[producer as usize]));
        Self {
            room: rooms(links, topological),
            goal_of: goals(links, level, topological, reach),
            left: (0..n_nodes).map(|node| weights_of(node).sum()).collect(),
            weight,
            n_unsupplied: n_producers.clone(),
            begun_at: vec![NEVER; n_nodes],
            missing: n_producers,
            remaining: (0..n_nodes).map(|node| as_node(links.users_of(as_node(node)).len())).collect(),
            is_done: vec![false; n_nodes],
            is_supplied: vec![false; n_nodes],
            is_pursued: vec![false; n_nodes],
            begun: Vec::new(),
            goals: Vec::new(),
            stack: Vec::new(),
            to_supply: Vec::new(),
            order: Vec::with_capacity(links.n_tasks()),
            current_level: 0,
            links,
            is_output,
            level,
        }
    }

    /// Walk until all of `n_live` tasks were met, and return them. `starts` has, by level, the tasks that no other task of the level
    /// needs; the last is the first.
    pub(crate) fn sequence(mut self, starts: &[Vec<u32>], n_live: usize) -> Vec<u32> {
        self.begun.resize_with(starts.len(), Agenda::default);
        for (level, starts) in starts.iter().enumerate() {
            self.current_level = as_node(level);
            for &start in starts.iter().rev() {
                while !self.is_done[start as usize] {
                    let source = self.first_below(start);
                    self.pursue(source);
                    // What is on the agenda in the end is out of date; there may be millions.
                    while self.order.len() < n_live
                        && let Some(goal) = self.take_begun(u64::MAX)
                    {
                        self.pursue(goal);
                    }
                }
            }
        }
        self.order
    }

    /// What could run at once of all that `node` needs, on the way of most room.
    fn first_below(&self, mut node: u32) -> u32 {
        while self.missing[node as usize] > 0 {
            let missing = self.links.producers_of(node).iter().filter(|&&producer| !self.is_done[producer as usize]);
            let Some(&next) = missing.max_by_key(|&&producer| (self.room[producer as usize], Reverse(producer))) else { break };
            node = next;
        }
        node
    }

    /// The begun goal with the least left, if that is below `bound`.
    fn take_begun(&mut self, bound: u64) -> Option<u32> {
        let begun = &mut self.begun[self.current_level as usize];
        while let Some((left, goal)) = begun.peek() {
            let is_current = !self.is_pursued[goal as usize] && !self.is_done[goal as usize] && self.left[goal as usize] == left;
            if is_current && left >= bound {
                return None;
            }
            begun.pop();
            if is_current {
                return Some(goal);
            }
        }
        None
    }

    /// Do everything that `goal` needs, then `goal`; and what becomes cheaper on the way, before.
    fn pursue(&mut self, goal: u32) {
        self.push_goal(goal);
        while let Some(&node) = self.stack.last() {
            if self.is_done[node as usize] {
                self.stack.pop();
            } else if self.missing[node as usize] == 0 {
                self.stack.pop();
                self.complete(node);
                self.turn_aside();
            } else {
                let first = self.stack.len();
                let (links, is_done, room) = (self.links, &self.is_done, &self.room);
                self.stack.extend(links.producers_of(node).iter().filter(|&&producer| !is_done[producer as usize]));
                self.stack[first..].sort_unstable_by_key(|&producer| (room[producer as usize], Reverse(producer)));
            }
        }
        self.goals.clear();
    }

    fn push_goal(&mut self, goal: u32) {
        self.is_pursued[goal as usize] = true;
        self.goals.push(goal);
        self.stack.push(goal);
    }

    /// Pursue a goal that has less left than the one being pursued.
    fn turn_aside(&mut self) {
        while self.goals.last().is_some_and(|&goal| self.is_done[goal as usize]) {
            self.goals.pop();
        }
        let Some(&goal) = self.goals.last() else { return };
        if self.goals.len() < MAX_NESTED
            && let Some(cheaper) = self.take_begun(self.left[goal as usize])
        {
            self.push_goal(cheaper);
        }
    }

    fn complete(&mut self, node: u32) {
        let links = self.links;
        self.is_done[node as usize] = true;
        if !self.is_supplied[node as usize] {
            self.supply(node);
        }
        if !links.is_group(node) {
            self.order.push(node);
            for &producer in links.producers_of(node) {
                self.use_up(producer);
            }
        }
        for &user in links.users_of(node) {
            self.missing[user as usize] -= 1;
            if self.missing[user as usize] == 0 && (links.is_group(user) || self.releases(user)) {
                self.run(user);
            }
        }
    }

    /// All sources below `node` have run: what needs it has less left, and is begun.
    fn supply(&mut self, node: u32) {
        let links = self.links;
        self.is_supplied[node as usize] = true;
        self.to_supply.push(node);
        while let Some(node) = self.to_supply.pop() {
            let weight = u64::from(self.weight[node as usize]);
            for &user in links.users_of(node) {
                self.left[user as usize] -= weight;
                self.n_unsupplied[user as usize] -= 1;
                if self.n_unsupplied[user as usize] == 0 && !std::mem::replace(&mut self.is_supplied[user as usize], true) {
                    self.to_supply.push(user);
                }
                let goal = self.goal_of[user as usize];
                if goal != user && self.begun_at[user as usize] != NEVER {
                    self.begin(user);
                }
                self.begin(goal);
            }
        }
    }

    /// Note that `goal` was begun, or has less left than before.
    fn begin(&mut self, goal: u32) {
        if self.is_done[goal as usize] || self.is_pursued[goal as usize] {
            return;
        }
        let begun_at = &mut self.begun_at[goal as usize];
        if *begun_at == NEVER {
            *begun_at = as_node(self.order.len());
        }
        self.begun[self.level[goal as usize] as usize].push(self.left[goal as usize], *begun_at, goal);
    }

    /// One user of `node` is done.
    fn use_up(&mut self, node: u32) {
        let links = self.links;
        self.remaining[node as usize] -= 1;
        if self.remaining[node as usize] == 1 && self.may_release(node) {
            let last = links.users_of(node).iter().find(|&&user| !self.is_done[user as usize]);
            if let Some(&last) = last
                && self.missing[last as usize] == 0
            {
                self.run(last);
            }
        }
        if self.remaining[node as usize] == 0 && links.is_group(node) {
            for &member in links.producers_of(node) {
                self.remaining[member as usize] -= 1;
            }
        }
    }

    /// Whether `node` is the last user of something.
    fn releases(&self, node: u32) -> bool {
        let is_last = |&&producer: &&u32| self.remaining[producer as usize] == 1 && self.may_release(producer);
        self.links.producers_of(node).iter().any(|producer| is_last(&producer))
    }

    fn may_release(&self, node: u32) -> bool {
        self.links.is_group(node) || !self.is_output[node as usize]
    }

    /// Run `node`, which can, next.
    fn run(&mut self, node: u32) {
        if self.level[node as usize] == self.current_level {
            self.stack.push(node);
        }
    }
}

/// See [`Walk::goal_of`].
fn goals(links: &Links, level: &[u32], topological: &[u32], reach: Reach) -> Vec<u32> {
    let n_nodes = links.n_nodes();
    let only_user = |node: u32| match links.users_of(node) {
        &[user] if level[user as usize] == level[node as usize] => Some(user),
        _ => None,
    };
    let is_join = |node: u32| links.producers_of(node).len() > 1;
    let mut goal_of: Vec<u32> = (0..as_node(n_nodes)).collect();
    for &node in topological.iter().rev() {
        if let Some(user) = only_user(node)
            && (reach == Reach::End || !is_join(node))
        {
            goal_of[node as usize] = goal_of[user as usize];
        }
    }
    if reach == Reach::NextJoin {
        // `topological` has producers first, so what is read here still is the first join.
        for &node in topological {
            let join = goal_of[node as usize];
            if let Some(user) = only_user(join)
                && let next = goal_of[user as usize]
                && is_join(next)
            {
                goal_of[node as usize] = next;
            }
        }
    }
    goal_of
}

/// See [`Walk::weight`].
fn weights(links: &Links, topological: &[u32]) -> Vec<u32> {
    let mut weight = vec![1u32; links.n_nodes()];
    for &node in topological {
        let below = links.producers_of(node).iter().map(|&producer| weight[producer as usize]).fold(0, u32::saturating_add);
        weight[node as usize] = below.max(1);
    }
    weight
}

/// See [`Walk::room`].
fn rooms(links: &Links, topological: &[u32]) -> Vec<u32> {
    let mut room = vec![1u32; links.n_nodes()];
    let mut inputs: Vec<(u32, u32)> = Vec::new();
    for &node in topological {
        inputs.clear();
        for &producer in links.producers_of(node) {
            let left = if links.is_group(producer) { as_node(links.producers_of(producer).len()) } else { 1 };
            inputs.push((room[producer as usize], left));
        }
        inputs.sort_unstable_by_key(|&(room, left)| Reverse(room.saturating_sub(left)));
        let mut held = 0u32;
        for &(own, left) in &inputs {
            room[node as usize] = room[node as usize].max(held.saturating_add(own));
            held = held.saturating_add(left);
        }
    }
    room
}
