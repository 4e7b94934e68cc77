//! Exceptions of this kernel that are counted, not feared.

use core::sync::atomic::{AtomicU64, Ordering};

use hobby::exit;
use kexec_exception::{Handler, Tables, TrapFrame, Vector};

use crate::CONSOLE;

static DEBUG: AtomicU64 = AtomicU64::new(0);
static NMI: AtomicU64 = AtomicU64::new(0);

struct Traps;

impl Handler for Traps {
    fn handle(frame: &mut TrapFrame) {
        match frame.vector {
            Vector::DEBUG => DEBUG.fetch_add(1, Ordering::Relaxed),
            Vector::NMI => NMI.fetch_add(1, Ordering::Relaxed),
            _ => {
                writeln!(CONSOLE, "{frame}");
                exit::exit(exit::FAILURE)
            }
        };
    }
}

/// Counts from here on, in place of the handler that ends the machine.
pub fn install() {
    static mut TABLES: Tables = Tables::new();
    x86_64::instructions::interrupts::disable();
    let tables = &raw mut TABLES;
    // SAFETY: CPL 0, interrupts are off; nothing else names these tables, whose reloading leaves them as they are.
    unsafe { (*tables).install::<Traps>() };
}

/// Debug exceptions and NMIs so far.
pub fn counts() -> (u64, u64) {
    (DEBUG.load(Ordering::Relaxed), NMI.load(Ordering::Relaxed))
}
