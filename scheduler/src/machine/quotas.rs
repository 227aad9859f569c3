//! What one owner may have at the scheduler at once: graphs that run or whose results are held, their tasks, and the queues that
//! their wishes make.
//!
//! An owner is an identity, not a connection: many connections do not give more, and what is detached counts until it is
//! released.

use std::collections::BTreeMap;

use rask_comm::Owner;
use rask_comm::limits::MAX_OWNER_WISHES;

/// What an owner may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// Graphs.
    pub max_graphs: u32,
    /// Tasks of all these together.
    pub max_tasks: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { max_graphs: 4_096, max_tasks: 1 << 26 }
    }
}

/// What something takes of a quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    pub(super) n_graphs: u32,
    pub(super) n_tasks: u64,
    /// Different wishes for resources and workers, counted by graph.
    pub(super) n_wishes: u32,
}

impl Size {
    pub(super) fn of_graph(n_tasks: u32, n_wishes: u32) -> Self {
        Self { n_graphs: 1, n_tasks: n_tasks.into(), n_wishes }
    }
}

/// What all owners have.
#[derive(Default)]
pub(super) struct Held {
    by_owner: BTreeMap<Owner, Size>,
}

impl Held {
    /// Whether `owner` may have `size` more; otherwise what it has too much of.
    pub(super) fn check(&self, owner: &Owner, size: Size, quotas: &Quotas) -> Result<(), String> {
        let held = self.by_owner.get(owner).copied().unwrap_or_default();
        let table = [
            ("graphs", held.n_graphs.into(), size.n_graphs.into(), quotas.max_graphs.into()),
            ("tasks", held.n_tasks, size.n_tasks, quotas.max_tasks),
            ("different wishes for resources and workers", held.n_wishes.into(), size.n_wishes.into(), MAX_OWNER_WISHES.into()),
        ];
        match table.into_iter().find(|(_, held, more, limit)| held.saturating_add(*more) > *limit) {
            Some((what, held, more, limit)) => Err(format!(
                "{more} more {what}, beside {held} in graphs of the same owner that run or whose results are held; at most {limit} \
                 are possible: release results, or cancel graphs"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn add(&mut self, owner: &Owner, size: Size) {
        let held = self.by_owner.entry(owner.clone()).or_default();
        held.n_graphs += size.n_graphs;
        held.n_tasks += size.n_tasks;
        held.n_wishes += size.n_wishes;
    }

    pub(super) fn remove(&mut self, owner: &Owner, size: Size) {
        let Some(held) = self.by_owner.get_mut(owner) else { return };
        held.n_graphs -= size.n_graphs;
        held.n_tasks -= size.n_tasks;
        held.n_wishes -= size.n_wishes;
        if held.n_graphs == 0 {
            self.by_owner.remove(owner);
        }
    }

    /// # Panics
    /// When what is counted is not what graphs take.
    pub(super) fn validate<'a>(&self, graphs: impl Iterator<Item = (&'a Owner, Size)>) {
        let mut counted = Self::default();
        graphs.for_each(|(owner, size)| counted.add(owner, size));
        assert_eq!(self.by_owner, counted.by_owner, "what owners have");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_so_much_and_gets_it_back() {
        let (mut held, quotas) = (Held::default(), Quotas { max_graphs: 2, max_tasks: 100 });
        let (own, other) = (Owner::Named("a".to_owned()), Owner::Local);
        let size = Size::of_graph(40, 0);
        held.add(&own, size);
        assert!(held.check(&own, Size::of_graph(60, 0), &quotas).is_ok());
        let refusal = held.check(&own, Size::of_graph(61, 0), &quotas).unwrap_err();
        assert!(refusal.starts_with("61 more tasks, beside 40 in graphs") && refusal.contains("at most 100"), "{refusal}");
        held.add(&own, size);
        let refusal = held.check(&own, size, &quotas).unwrap_err();
        assert!(refusal.starts_with("1 more graphs, beside 2 in graphs"), "{refusal}");
        assert!(held.check(&other, size, &quotas).is_ok());
        let refusal = held.check(&other, Size::of_graph(1, MAX_OWNER_WISHES + 1), &quotas).unwrap_err();
        assert!(refusal.contains("different wishes"), "{refusal}");
        held.remove(&own, size);
        held.remove(&own, size);
        assert!(held.by_owner.is_empty());
    }
}
