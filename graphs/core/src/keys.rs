//! Human names of tasks, stored as families: a million `x-17` cost one name and a few runs of numbers.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

/// `count` consecutive tasks whose names are consecutive members of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    first_task: u32,
    family: u32,
    /// [`SOLE`] for the only task of that name.
    first_member: u32,
}

const SOLE: u32 = u32::MAX;

/// The names of a graph's tasks, in task order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    families: Vec<String>,
    runs: Vec<Run>,
    n_tasks: u32,
}

/// A name taken apart: a family, and the member's number unless the task is alone in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Index of the family, see [`KeysBuilder::family`].
    pub family: u32,
    /// The member's number.
    pub member: Option<u32>,
}

impl Keys {
    /// Number of tasks named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_tasks as usize
    }

    /// Whether no task is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_tasks == 0
    }

    /// The name of task `idx`: `family` or `family-member`. Past the end, an empty name.
    #[must_use]
    pub fn name(&self, idx: u32) -> String {
        self.key(idx).map_or_else(String::new, |key| self.name_of(key))
    }

    fn name_of(&self, key: KeyRef) -> String {
        let family = self.families.get(key.family as usize).map_or("?", String::as_str);
        match key.member {
            None | Some(SOLE) => family.to_owned(),
            Some(member) => format!("{family}-{member}"),
        }
    }

    /// The family name of task `idx`, what tasks of one sort have in common.
    #[must_use]
    pub fn family_name(&self, idx: u32) -> &str {
        self.key(idx).and_then(|key| self.families.get(key.family as usize)).map_or("", String::as_str)
    }

    /// The parts of the name of task `idx`.
    #[must_use]
    pub fn key(&self, idx: u32) -> Option<KeyRef> {
        if idx >= self.n_tasks {
            return None;
        }
        let at = self.runs.partition_point(|run| run.first_task <= idx).checked_sub(1)?;
        let run = self.runs.get(at)?;
        let member = if run.first_member == SOLE { None } else { run.first_member.checked_add(idx - run.first_task) };
        Some(KeyRef { family: run.family, member })
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn nbytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
            + self.families.iter().map(|name| name.capacity() + size_of::<String>()).sum::<usize>()
    }

    /// Bytes of the longest name of a family.
    pub(crate) fn longest_family(&self) -> usize {
        self.families.iter().map(String::len).max().unwrap_or(0)
    }

    /// Whether the table, perhaps from a stranger, is well formed for `n_tasks` tasks.
    #[must_use]
    pub fn is_valid_for(&self, n_tasks: usize) -> bool {
        self.n_tasks as usize == n_tasks
            && self.runs.first().map_or(n_tasks == 0, |run| run.first_task == 0)
            && self.runs.windows(2).all(|pair| pair[0].first_task < pair[1].first_task)
            && self.runs.iter().all(|run| (run.family as usize) < self.families.len() && run.first_task < self.n_tasks)
    }
}

/// Collects names in task order.
#[derive(Clone, Debug, Default)]
pub struct KeysBuilder {
    keys: Keys,
    family_ids: HashMap<String, u32, FxBuildHasher>,
}

impl KeysBuilder {
    /// The index of the family called `name`, new or known.
    pub fn family(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.family_ids.get(name) {
            return id;
        }
        let id = u32::try_from(self.keys.families.len()).unwrap_or(u32::MAX);
        self.keys.families.push(name.to_owned());
        self.family_ids.insert(name.to_owned(), id);
        id
    }

    /// The full name that `key` stands for: `family` or `family-member`.
    #[must_use]
    pub fn name_of(&self, key: KeyRef) -> String {
        self.keys.name_of(key)
    }

    /// Bytes of the longest name of a family.
    pub(crate) fn longest_family(&self) -> usize {
        self.keys.longest_family()
    }

    /// Number of families.
    pub(crate) fn n_families(&self) -> usize {
        self.keys.families.len()
    }

    /// Whether `family` came from [`KeysBuilder::family`].
    pub(crate) fn has_family(&self, family: u32) -> bool {
        (family as usize) < self.keys.families.len()
    }

    /// Families whose whole name reads as a member of another one (`x-7`, when there is a family `x`): that family and member.
    pub(crate) fn canonical_families(&self) -> HashMap<u32, (u32, u32), FxBuildHasher> {
        let mut canonical = HashMap::default();
        for (name, &family) in &self.family_ids {
            let Some((stem, digits)) = name.rsplit_once('-') else { continue };
            let Ok(member) = digits.parse::<u32>() else { continue };
            // `x-07` and `x-+7` are names of their own.
            if let Some(&stem) = self.family_ids.get(stem)
                && member.to_string() == digits
            {
                canonical.insert(family, (stem, member));
            }
        }
        canonical
    }

    /// Name the next task.
    pub fn push(&mut self, key: KeyRef) {
        let first_member = key.member.unwrap_or(SOLE);
        let continues = self.keys.runs.last().is_some_and(|run| {
            run.family == key.family
                && run.first_member != SOLE
                && first_member != SOLE
                && run.first_member.checked_add(self.keys.n_tasks - run.first_task) == Some(first_member)
        });
        if !continues {
            self.keys.runs.push(Run { first_task: self.keys.n_tasks, family: key.family, first_member });
        }
        self.keys.n_tasks += 1;
    }

    /// The finished table.
    #[must_use]
    pub fn finish(mut self) -> Keys {
        self.keys.runs.shrink_to_fit();
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_members_share_a_run() {
        let mut builder = KeysBuilder::default();
        let (x, total) = (builder.family("x"), builder.family("total"));
        for member in 0..1000 {
            builder.push(KeyRef { family: x, member: Some(member) });
        }
        builder.push(KeyRef { family: total, member: None });
        builder.push(KeyRef { family: x, member: Some(7) });
        let keys = builder.finish();
        assert_eq!(keys.runs.len(), 3);
        assert!(keys.is_valid_for(1002));
        assert_eq!(keys.name(0), "x-0");
        assert_eq!(keys.name(999), "x-999");
        assert_eq!(keys.name(1000), "total");
        assert_eq!(keys.name(1001), "x-7");
        assert_eq!(keys.name(1002), "");
    }
}
