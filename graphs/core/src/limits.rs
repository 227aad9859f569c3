//! How large a graph may be, and what it names: counts that are checked before anything is made of them.
//!
//! Tables are as long as their bytes; what grows beyond them is a *product*: tasks times the steps of their bodies, inputs
//! times the members of the groups that they name. Each product has a bound here, which graph files, builders and schedulers
//! share, so that a graph that one of them makes is never refused by another.

/// Longest name, in bytes: of a graph, a client, a resource or a worker. Names are shown in logs and in
/// everybody's status, so a long one costs all of them.
pub const NAME_NBYTES: usize = 128;

/// Longest name of a family of tasks, in bytes. Libraries make them of several names.
pub const MAX_FAMILY_NBYTES: usize = 512;

/// Most steps of one body. Fusing makes bodies of [`crate::MAX_STEPS`] at most.
pub const MAX_BODY_STEPS: usize = 1_024;

/// Most values that a task, or a step of its body, takes, groups counted member by member. A worker spreads them out for each
/// run, at about a hundred bytes each.
pub const MAX_KERNEL_INPUTS: usize = 1 << 20;

/// Inputs of steps that are counted one by one, over all tasks of a graph, when their bodies alone do not show that they are few.
pub(crate) const MAX_WIRES_COUNTED: usize = 1 << 24;

/// Most results of earlier graphs that a graph uses.
pub const MAX_EXTERNALS: usize = 1 << 20;

/// Most different wishes for resources and workers in one graph. A scheduler keeps a queue for each.
pub const MAX_GRAPH_WISHES: usize = 1_024;

/// Most members of families in one graph file. Each has a name of its own, and takes about half a kilobyte before it is a task.
pub const MAX_FILE_TASKS: u64 = 2_000_000;

/// Most inputs of the tasks of one graph file, those counted that patterns stand for.
pub const MAX_FILE_INPUTS: usize = 20_000_000;

/// Most bytes of text that the families of one graph file stand for: what is written of each, times its members.
pub const MAX_FILE_NBYTES: u64 = 1 << 30;

/// Most resources, and most workers, that the options of one task name.
pub const MAX_WISHES: usize = 64;

/// Most times that a failed run is tried again, whatever a task asks for.
pub const MAX_RETRIES: u32 = 100;

/// What is wrong with `name`, if anything is: it is longer than [`NAME_NBYTES`], or would move a cursor.
#[must_use]
pub fn name_fault(name: &str) -> Option<String> {
    if name.len() > NAME_NBYTES {
        return Some(format!("is {} bytes long, at most {NAME_NBYTES} are possible", name.len()));
    }
    let odd = name.chars().find(|character| is_odd(*character))?;
    Some(format!("contains the character {}, which names cannot have", odd.escape_unicode()))
}

/// `name`, cut to [`NAME_NBYTES`] and without characters that names cannot have: for names that people did not choose.
#[must_use]
pub fn tame_name(name: &str) -> String {
    let mut tame = String::new();
    for character in name.chars().map(|character| if is_odd(character) { '\u{fffd}' } else { character }) {
        if tame.len() + character.len_utf8() > NAME_NBYTES {
            break;
        }
        tame.push(character);
    }
    tame
}

/// Control characters, line separators, and what turns the direction of text around.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_stay_in_their_line() {
        assert_eq!(name_fault("Größe of x-17"), None);
        assert_eq!(name_fault(&"n".repeat(NAME_NBYTES)), None);
        assert_eq!(name_fault(&"n".repeat(129)).unwrap(), "is 129 bytes long, at most 128 are possible");
        for odd in ["a\nb", "\u{1b}[31m", "a\u{202e}b", "tab\t", "\u{2028}", "\u{7f}"] {
            assert!(name_fault(odd).unwrap().contains("which names cannot have"), "{odd:?}");
        }
    }

    #[test]
    fn any_name_can_be_tamed() {
        for name in ["plain", "a\nb\u{202e}", &"ä".repeat(100), &"x".repeat(1_000_000), "", &"\n".repeat(500)] {
            let tame = tame_name(name);
            assert_eq!(name_fault(&tame), None, "{tame:?}");
        }
        assert_eq!(tame_name("plain"), "plain");
    }
}
