//! How numbers are written for people, and the last line of a run.

use rask_comm::message::GraphStats;
use serde_json::{Value as Json, json};

/// Bytes as people read them: `1.2 MiB`.
pub(crate) fn size_text(nbytes: u64) -> String {
    if nbytes < 1024 { format!("{nbytes} B") } else { bytesize::ByteSize(nbytes).display().iec().to_string() }
}

/// Seconds as people read them: `0.35 s`, `2 min 5 s`.
pub(crate) fn time_text(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.2} s");
    }
    let whole = std::time::Duration::from_secs_f64(seconds.min(1e12)).as_secs();
    match (whole / 3600, whole % 3600 / 60, whole % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

pub(crate) fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// The last line of a run.
pub(crate) fn stats_text(stats: &GraphStats) -> String {
    let again = stats.n_executions.saturating_sub(stats.n_tasks);
    let again = if again == 0 { String::new() } else { format!(" ({again} run again)") };
    format!(
        "{}{again} on {} in {}, {} moved between workers, {} spilled",
        plural(stats.n_tasks, "task"),
        plural(stats.n_workers, "worker"),
        time_text(stats.seconds),
        size_text(stats.nbytes_transferred),
        size_text(stats.nbytes_spilled),
    )
}

/// The `stats` of a run as JSON.
pub(crate) fn stats_json(stats: &GraphStats) -> Json {
    json!({
        "n_tasks": stats.n_tasks, "seconds": stats.seconds, "nbytes_transferred": stats.nbytes_transferred,
        "nbytes_spilled": stats.nbytes_spilled, "n_workers": stats.n_workers, "n_executions": stats.n_executions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([size_text(0), size_text(1536), size_text(3 << 30)], ["0 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([time_text(0.354), time_text(125.9), time_text(7260.0)], ["0.35 s", "2 min 5 s", "2 h 1 min"]);
        let stats = GraphStats { n_tasks: 1, n_executions: 3, seconds: 0.5, n_workers: 2, ..GraphStats::default() };
        assert_eq!(stats_text(&stats), "1 task (2 run again) on 2 workers in 0.50 s, 0 B moved between workers, 0 B spilled");
    }
}
