//! Which host and user a process is on: workers with equal answers have cheaper ways to hand results to each other.

use std::fs;

use ring::digest;

/// A text that two processes share exactly when they run on the same host as the same user.
///
/// The machine's id is hashed, as its documentation asks; the id of the current boot tells cloned machines apart.
#[must_use]
pub fn host_identity() -> String {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let (machine, boot) = (read("/etc/machine-id"), read("/proc/sys/kernel/random/boot_id"));
    let unknown = if machine.is_empty() && boot.is_empty() {
        // Nothing to know the host by: then no other process may seem to be on it.
        format!("process {} since {:?}", std::process::id(), std::time::SystemTime::now())
    } else {
        String::new()
    };
    let uid = rustix::process::getuid().as_raw();
    let hash = digest::digest(&digest::SHA256, format!("rask host\n{machine}\n{boot}\n{unknown}").as_bytes());
    format!("{}:{uid}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..16]))
}

/// A name for this host that people know it by.
#[must_use]
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// A name for this process that is good in a certificate, however long the host's is.
#[must_use]
pub fn process_name() -> String {
    let host: String = host_name().chars().filter(char::is_ascii_graphic).take(48).collect();
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stable_and_says_nothing_of_the_machine_id() {
        assert_eq!(host_identity(), host_identity());
        if let Ok(machine) = fs::read_to_string("/etc/machine-id")
            && !machine.trim().is_empty()
        {
            assert!(!host_identity().contains(machine.trim()));
        }
        assert!(!host_name().is_empty());
        crate::identity::check_name(&process_name()).unwrap();
    }
}
