//! The machines' clock reading: a plain duration since their start, handed in as an argument.
//!
//! The machines of scheduler and worker never look at a clock. Their shells read a monotonic one, the simulation counts.

use std::fmt;
use std::time::Duration;

/// Time since the scheduler or the worker started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub Duration);

impl Time {
    /// The time `later` after this.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// The time that has passed since `earlier`; zero when that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.0.as_secs_f64())
    }
}
