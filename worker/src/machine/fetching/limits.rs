//! How much may be in the air: what is set for life, and what memory allows at the moment.

/// How much may be asked for at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchLimits {
    /// Bytes of one request; a single larger item still goes, alone.
    pub max_request_nbytes: u64,
    /// Items of one request.
    pub max_request_items: usize,
    /// Requests a peer serves this worker at once.
    pub max_requests_per_peer: usize,
    /// Bytes in the air in all; a single larger item still goes, alone.
    pub max_nbytes_in_flight: u64,
}

impl Default for FetchLimits {
    /// 64 MiB and 1,024 items a request, 2 requests a peer, 256 MiB in all.
    fn default() -> Self {
        Self { max_request_nbytes: 64 << 20, max_request_items: 1_024, max_requests_per_peer: 2, max_nbytes_in_flight: 256 << 20 }
    }
}

/// What memory allows to be fetched.
#[derive(Clone, Copy)]
pub(in crate::machine) struct Room {
    /// Bytes in the air in all.
    pub(in crate::machine) nbytes_in_flight: u64,
    /// Whether one item may go beyond that when nothing is in the air: nothing else is in motion that could free memory.
    pub(in crate::machine) is_last_resort: bool,
}

impl Room {
    /// Where there is no room, there is none for nothing either.
    pub(super) fn fits(self, nbytes_in_flight: u64, more: u64) -> bool {
        nbytes_in_flight.saturating_add(more.max(1)) <= self.nbytes_in_flight
    }
}
