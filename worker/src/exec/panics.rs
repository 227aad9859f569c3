//! Panics in kernels become failures of their run, with message and place, and do not clutter the log.
//!
//! The panic hook belongs to the whole process; this one passes on every panic that does not happen in a kernel.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static IS_IN_KERNEL: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Have the hook in place; once a process.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_IN_KERNEL.get() {
                LAST_PANIC.set(Some(describe(info)));
            } else {
                previous(info);
            }
        }));
    });
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("a panic without a message");
    match info.location() {
        Some(place) => format!("{message} (at {}:{})", place.file(), place.line()),
        None => message.to_owned(),
    }
}

/// Run a kernel; an unwinding panic becomes its description.
///
/// Kernels take shared, immutable inputs and a result of a panicked one is never seen, so nothing half-changed can be.
pub(super) fn catch<T>(kernel: impl FnOnce() -> T) -> Result<T, String> {
    IS_IN_KERNEL.set(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(kernel));
    IS_IN_KERNEL.set(false);
    outcome.map_err(|_payload| LAST_PANIC.take().unwrap_or_else(|| "a panic without a message".to_owned()))
}
