//! One access to one byte, of which a fault may come.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kexec_exception::{Handler, Tables, TrapFrame, Vector};

/// The machine code of a near return.
pub const RET: u8 = 0xc3;

/// What is done to the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// What came of it instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    vector: u8,
    error_code: u64,
    /// CR2, for a page fault.
    address: Option<u64>,
}

impl Fault {
    /// A general protection, for an address that is not canonical.
    pub const PROTECTION: Self = Self { vector: Vector::GENERAL_PROTECTION.0, error_code: 0, address: None };

    /// A page fault: the page is mapped, but not for that, or it is not mapped (SDM Vol. 3A, 5.7).
    pub const fn page(address: u64, access: Access, mapped: bool) -> Self {
        let why = match access {
            Access::Read => 0,
            Access::Write => 1 << 1,
            Access::Execute => 1 << 4,
        };
        Self { vector: Vector::PAGE_FAULT.0, error_code: why | mapped as u64, address: Some(address) }
    }
}

/// Whether a probe is under way; and what came of it.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);
static VECTOR: AtomicU64 = AtomicU64::new(0);
static ERROR_CODE: AtomicU64 = AtomicU64::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

struct Probes;

impl Handler for Probes {
    fn handle(frame: &mut TrapFrame) {
        // Any other fault is this kernel's own.
        if !UNDER_WAY.swap(false, Ordering::Relaxed) {
            return crate::Faults::handle(frame);
        }
        VECTOR.store(frame.vector.0.into(), Ordering::Relaxed);
        ERROR_CODE.store(frame.error_code, Ordering::Relaxed);
        ADDRESS.store(frame.page_fault_address().unwrap_or(0), Ordering::Relaxed);
        // Where a probe goes on, whatever came of it.
        frame.rip = frame.r10;
    }
}

/// Takes exceptions from here on.
pub fn install() {
    static mut TABLES: Tables = Tables::new();
    let tables = &raw mut TABLES;
    // SAFETY: CPL 0, interrupts are off, as the boot loader leaves them; nothing else names these tables, whose reloading leaves
    // them as they are.
    unsafe { (*tables).install::<Probes>() };
}

/// Leaves exceptions to this kernel's own handler again.
pub fn uninstall() {
    let tables = &raw mut crate::TABLES;
    // SAFETY: as above; the reference that `main` made is gone.
    unsafe { (*tables).install::<crate::Faults>() };
}

/// Reads the byte at `address`, writes `byte` there, or calls what is there. Gives the byte, or the fault.
///
/// # Safety
///
/// - [`install`] was called last.
/// - Where the access does not fault: memory that may be read, or changed; for a call, a [`RET`].
pub unsafe fn attempt(access: Access, address: u64, byte: u8) -> Result<u8, Fault> {
    let mut byte = byte;
    UNDER_WAY.store(true, Ordering::Relaxed);
    match access {
        // SAFETY: a fault goes on at the label, with nothing changed; the rest is the caller's.
        Access::Read => unsafe {
            asm!(
                "lea r10, [rip + 2f]",
                "mov {byte}, byte ptr [{address}]",
                "2:",
                byte = inout(reg_byte) byte,
                address = in(reg) address,
                out("r10") _,
                options(nostack, preserves_flags),
            );
        },
        // SAFETY: as above.
        Access::Write => unsafe {
            asm!(
                "lea r10, [rip + 2f]",
                "mov byte ptr [{address}], {byte}",
                "2:",
                byte = in(reg_byte) byte,
                address = in(reg) address,
                out("r10") _,
                options(nostack, preserves_flags),
            );
        },
        // SAFETY: as above. The instruction was just written, through another address: after that a processor wants a serializing
        // one (SDM Vol. 3A, 9.1.3).
        Access::Execute => unsafe {
            core::arch::x86_64::__cpuid(0);
            asm!(
                "mov r11, rsp",
                "lea r10, [rip + 2f]",
                "call {address}",
                "2:",
                // The fault of a call comes with the return address pushed.
                "mov rsp, r11",
                address = in(reg) address,
                out("r10") _,
                out("r11") _,
            );
        },
    }
    // Cleared by a fault.
    if UNDER_WAY.swap(false, Ordering::Relaxed) {
        return Ok(byte);
    }
    let vector = VECTOR.load(Ordering::Relaxed) as u8;
    let address = (vector == Vector::PAGE_FAULT.0).then(|| ADDRESS.load(Ordering::Relaxed));
    Err(Fault { vector, error_code: ERROR_CODE.load(Ordering::Relaxed), address })
}
