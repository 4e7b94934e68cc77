//! Page code that writes one byte to a serial port, for the time when nothing else is there to do it.
//!
//! Each piece is a console as [`kexec_abi::Console`] asks for it, and works on a [`Block`] alone. A byte waits for an empty
//! transmitter, at most the block's number of status reads; the wait that fails sets that number to 0, which is silence.
//! A status of all ones, which is what no device reads as, counts as not ready. Neither a FIFO nor any set-up is used:
//! pieces leave the line as it is.

use core::mem::offset_of;

use kexec_abi::{Console, ConsoleConfig, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr, page_code};
use uart_16550::spec::registers::{LSR, offsets};

use crate::config::{Access, Config};

/// The configuration block of the pieces here: what a [`ConsoleConfig`] of theirs holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Block {
    /// The I/O port, or the address under the map in force, of the first register.
    pub base: u64,
    /// How often the line status is read in one wait. 0 is silence; a wait that fails sets it.
    pub status_reads: u32,
    /// The distance between two registers, as a power of two. Only for byte accesses to memory.
    pub shift: u8,
}

impl Block {
    /// The block as bytes; the rest is zero.
    #[must_use]
    pub const fn config(&self) -> ConsoleConfig {
        let mut bytes = [0; size_of::<ConsoleConfig>()];
        let (at, _) = bytes.split_at_mut(offset_of!(Self, shift) + 1);
        let base = self.base.to_le_bytes();
        let reads = self.status_reads.to_le_bytes();
        let mut n = 0;
        while n < base.len() {
            at[offset_of!(Self, base) + n] = base[n];
            n += 1;
        }
        n = 0;
        while n < reads.len() {
            at[offset_of!(Self, status_reads) + n] = reads[n];
            n += 1;
        }
        at[offset_of!(Self, shift)] = self.shift;
        ConsoleConfig(bytes)
    }
}

impl Config {
    /// This port as the console of a transition. Its line stays as it is.
    ///
    /// - `status_reads` bounds each wait; [`STATUS_READS`](crate::STATUS_READS) is a good number.
    /// - `mapped` is where the running kernel maps, uncached, the 4 KiB page in which the first register of a port in memory
    ///   lies. Without it such a port is silent until the transition has its own map.
    #[must_use]
    pub fn console(&self, status_reads: u32, mapped: Option<VirtAddr>) -> Console {
        let (code, base, shift) = match self.access() {
            Access::Pio { port } => (&PIO, u64::from(port), 0),
            Access::Mmio8 { base, stride } => (&MMIO8, base, stride.shift()),
            Access::Mmio32 { base } => (&MMIO32, base, 0),
        };
        let config = |base| Block { base, status_reads, shift }.config();
        let mmio =
            self.mmio().map(|range| PhysRange::new(PhysAddr::new(range.start), PhysAddr::new(range.end)));
        let live = mmio.and(mapped).map(|page| {
            let page = page.align_down(PAGE_SIZE);
            (config(page.as_u64() + base % PAGE_SIZE), page)
        });
        Console { code, config: config(base), mmio, live }
    }
}

/// QEMU's and Bochs's debug console, as the console of a transition: nothing to configure, nothing to wait for.
#[must_use]
pub const fn debug_console() -> Console {
    Console { code: &DEBUG_CONSOLE, config: ConsoleConfig([0; 64]), mmio: None, live: None }
}

page_code! {
    /// Writes one byte to a port over port I/O. [`Block::shift`] is not used.
    ///
    /// `extern "sysv64" fn(rdi: *mut ConsoleConfig, sil: u8)`; clobbers `rax`, `rcx`, `rdx`, flags.
    pub static PIO: [64];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "mov ecx, [rdi + {status_reads}]",
        "mov edx, [rdi + {base}]",
        "add edx, {lsr}",
        "jrcxz 5f", // silent
        "2:",
        "in al, dx",
        "cmp al, 0xff", // nobody drives the bus
        "je 3f",
        "test al, {thr_empty}",
        "jnz 4f",
        "3:",
        "pause",
        "dec ecx",
        "jnz 2b",
        "mov [rdi + {status_reads}], ecx", // 0: silent from now on
        "ret",
        "4:",
        "sub edx, {lsr} - {data}",
        "mov eax, esi",
        "out dx, al",
        "5:",
        "ret",
    }
    operands {
        base = const offset_of!(Block, base),
        status_reads = const offset_of!(Block, status_reads),
        lsr = const offsets::LSR,
        data = const offsets::DATA,
        thr_empty = const LSR::THR_EMPTY.bits(),
    }
}

page_code! {
    /// Writes one byte to a port in memory, accessed a byte at a time.
    ///
    /// `extern "sysv64" fn(rdi: *mut ConsoleConfig, sil: u8)`; clobbers `rax`, `rcx`, `rdx`, `r8`, flags.
    pub static MMIO8: [96];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "mov r8, [rdi + {base}]",
        "mov cl, [rdi + {shift}]",
        "mov edx, {lsr}",
        "shl edx, cl",
        "mov ecx, [rdi + {status_reads}]",
        "jrcxz 5f", // silent
        "2:",
        "mov al, [r8 + rdx]",
        "cmp al, 0xff", // nobody drives the bus
        "je 3f",
        "test al, {thr_empty}",
        "jnz 4f",
        "3:",
        "pause",
        "dec ecx",
        "jnz 2b",
        "mov [rdi + {status_reads}], ecx", // 0: silent from now on
        "ret",
        "4:",
        "mov [r8], sil", // register 0, at any distance
        "5:",
        "ret",
    }
    operands {
        base = const offset_of!(Block, base),
        status_reads = const offset_of!(Block, status_reads),
        shift = const offset_of!(Block, shift),
        lsr = const offsets::LSR,
        thr_empty = const LSR::THR_EMPTY.bits(),
    }
}

page_code! {
    /// Writes one byte to a port in memory, registers 4 bytes apart, accessed 32 bits at a time. [`Block::shift`] is not
    /// used.
    ///
    /// `extern "sysv64" fn(rdi: *mut ConsoleConfig, sil: u8)`; clobbers `rax`, `rcx`, `r8`, flags.
    pub static MMIO32: [64];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "mov r8, [rdi + {base}]",
        "mov ecx, [rdi + {status_reads}]",
        "jrcxz 5f", // silent
        "2:",
        "mov eax, [r8 + 4 * {lsr}]",
        "cmp al, 0xff", // nobody drives the bus
        "je 3f",
        "test al, {thr_empty}",
        "jnz 4f",
        "3:",
        "pause",
        "dec ecx",
        "jnz 2b",
        "mov [rdi + {status_reads}], ecx", // 0: silent from now on
        "ret",
        "4:",
        "movzx eax, sil",
        "mov [r8 + 4 * {data}], eax",
        "5:",
        "ret",
    }
    operands {
        base = const offset_of!(Block, base),
        status_reads = const offset_of!(Block, status_reads),
        lsr = const offsets::LSR,
        data = const offsets::DATA,
        thr_empty = const LSR::THR_EMPTY.bits(),
    }
}

page_code! {
    /// Writes one byte to port 0xe9, the debug console of QEMU (`-debugcon`) and Bochs. The block is not used.
    ///
    /// `extern "sysv64" fn(rdi: *mut ConsoleConfig, sil: u8)`; clobbers `rax`.
    pub static DEBUG_CONSOLE: [32];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "mov eax, esi",
        "out {port}, al",
        "ret",
    }
    operands { port = const 0xe9 }
}
