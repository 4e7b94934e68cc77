//! The frame that holds everything the exceptions of one view need.

use core::fmt;
use core::mem::offset_of;

use kexec_abi::{PAGE_SIZE, VirtAddr};
use static_assertions::{const_assert, const_assert_eq};

use super::captured::Captured;
use super::dump::{DUMP, DumpState};
use super::exception::{EXCEPTION, stub};
use crate::gdt::Gdt;
use crate::idt::Gate;
use crate::tss::Tss;
use crate::vector::Vector;

/// Exception vectors: 0 to 31. Those above show as #GP whose error code names them.
const VECTORS: u8 = 32;
const GDT_SLOTS: usize = 16;
/// The most that an exception takes of a stack before the handler leaves it: up to 15 bytes of alignment, 6 words that the
/// processor pushes, 4 of the handler's.
const IST_STACK_SIZE: usize = 128;
/// [`DUMP`]'s 256 bytes with the call, and without IST a guarded read that faults and an NMI on top of it.
const DUMP_STACK_SIZE: usize = 512;
const ENGINE_STACK_SIZE: usize =
    PAGE_SIZE as usize - TABLES_END - IST_STACKS * IST_STACK_SIZE - DUMP_STACK_SIZE - size_of::<Captured>();
const TABLES_END: usize = 0x390;

/// The stacks of the TSS, in order. Each is for events that may come while one of the others is in use; #DF, whose cause may
/// be any of them, and #MC, which may come at any boundary, share with none.
const IST_STACKS: usize = 6;
const IST_FAULT: u8 = 1;
const IST_NMI: u8 = 2;
const IST_DOUBLE_FAULT: u8 = 3;
const IST_MACHINE_CHECK: u8 = 4;
const IST_DEBUG: u8 = 5;
const IST_BREAKPOINT: u8 = 6;

/// GDT, TSS, IDT, stacks and state for the exceptions of one view of memory: 4096 bytes, 4 KiB-aligned.
///
/// A value to be written into the frame that [`DebugSetup::frame`] names. There it is in force after LIDT of [`IDTR`](Self::IDTR),
/// LGDT of [`GDTR`](Self::GDTR) and, with [`DebugSetup::ist`], LTR of [`TSS_SELECTOR`](Self::TSS_SELECTOR): in an order in which the gates' selector is a
/// 64-bit code segment of the GDT in force at every moment.
///
/// # What whoever loads it owes
///
/// - The frame is mapped at [`DebugSetup::frame`], readable and writable; `EXCEPTION`, `DUMP` and the console's code where the setup
///   says, readable and executable; the console's block and `Progress` readable, the block writable.
/// - Without `ist`, RSP lies in this frame whenever the IDT is in force (below [`STACK_TOP`](Self::STACK_TOP), that is).
/// - LTR marks the TSS busy, and a busy TSS cannot be loaded: before another LTR, bit 1 of the byte at
///   [`TSS_ACCESS`](Self::TSS_ACCESS) is cleared.
/// - SS is null, or a data segment of the GDT in force, since IRETQ loads it again.
/// - CR4.FRED is clear: with FRED the processor does not use the IDT.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
pub struct DebugFrame {
    state: DumpState,
    reserved_0: [u64; 3],
    gdt: [u64; GDT_SLOTS],
    idt: [Gate; VECTORS as usize],
    tss: Tss,
    gdtr: PseudoDescriptor,
    idtr: PseudoDescriptor,
    reserved_1: u64,
    engine_stack: [u8; ENGINE_STACK_SIZE],
    ist_stacks: [[u8; IST_STACK_SIZE]; IST_STACKS],
    dump_stack: [u8; DUMP_STACK_SIZE],
    /// The last bytes of the frame, so that what is in use of the dumper's stack lies right below.
    captured: Captured,
}

/// What LGDT and LIDT load, with its base aligned.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct PseudoDescriptor {
    reserved: [u16; 3],
    limit: u16,
    base: u64,
}

/// How often each vector that is returned from was taken. In the order of the vectors, 1 to 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Debug exceptions, vector 1.
    pub debug: u64,
    /// NMIs, vector 2.
    pub nmi: u64,
    /// Breakpoints, vector 3.
    pub breakpoint: u64,
}

const_assert_eq!(size_of::<DebugFrame>(), PAGE_SIZE as usize);
const_assert_eq!(offset_of!(DebugFrame, state), 0); // a handler finds it by rounding RSP down
const_assert_eq!(offset_of!(DebugFrame, engine_stack), TABLES_END);
const_assert_eq!(DebugFrame::CAPTURED + size_of::<Captured>(), PAGE_SIZE as usize);
const_assert_eq!(DebugFrame::CAPTURED % 16, 0);
const_assert_eq!(DebugFrame::STACK_TOP % 16, 0);
const_assert!(ENGINE_STACK_SIZE >= 1024);
// Every byte belongs to a field: `as_bytes` reads no padding.
const_assert_eq!(
    size_of::<DumpState>()
        + size_of::<[u64; GDT_SLOTS]>()
        + size_of::<[Gate; VECTORS as usize]>()
        + size_of::<Tss>()
        + 2 * (3 * size_of::<u16>() + 10)
        + 4 * size_of::<u64>()
        + ENGINE_STACK_SIZE
        + IST_STACKS * IST_STACK_SIZE
        + DUMP_STACK_SIZE
        + size_of::<Captured>(),
    PAGE_SIZE as usize
);

/// What becomes of a debug exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDebug {
    /// It is counted, dumped and returned from.
    Dump,
    /// It is counted and returned from: a transition can be run with the trap flag on.
    Count,
}

/// What follows a dump from which there is no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The processor halts, with interrupts off.
    Halt,
    /// The machine is reset: by the chipset (port 0xcf9), else by the keyboard controller, else by a shutdown.
    Reset {
        /// Reads of port 0x80 before, each about a microsecond on a PC.
        wait: u32,
    },
}

/// What a [`DebugFrame`] is made from. All addresses are those of the view in which it will be in force.
#[derive(Clone, Copy, Debug)]
pub struct DebugSetup {
    /// Where the frame itself lies; 4 KiB-aligned.
    pub frame: VirtAddr,
    /// Where the first byte of [`EXCEPTION`] lies.
    pub stubs: VirtAddr,
    /// Where the first byte of [`DUMP`] lies.
    pub dump: VirtAddr,
    /// The console's entry `put_byte`, and its `ConsoleConfig`. `None`: nothing is printed, all else is the same.
    pub console: Option<(VirtAddr, VirtAddr)>,
    /// Where the engine's [`Progress`](kexec_abi::Progress) lies.
    pub progress: VirtAddr,
    /// The code segment that the gates name: [`CODE_SELECTOR`](DebugFrame::CODE_SELECTOR), or the CS of a running kernel whose GDT may be
    /// in force together with this frame's IDT. From 0x8 to 0x60, GDT, RPL 0. The frame's GDT has a 64-bit code segment there;
    /// with 0x18 in the place of the data segment, which can still be loaded to DS, ES, FS and GS.
    pub gate_selector: u16,
    /// Whether the gates switch to stacks of the TSS, so that a bad RSP dumps, too. `false`: they stay on the stack in use.
    pub ist: bool,
    /// What becomes of a debug exception.
    pub on_debug: OnDebug,
    /// What follows a dump from which there is no return.
    pub after: After,
    /// Where physical address 0 is mapped, for reading the tables of a failed walk; `None`: the walk is left out.
    pub phys_offset: Option<VirtAddr>,
}

/// What is wrong with a [`DebugSetup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DebugSetupError {
    /// The address of the frame is not a multiple of 4096.
    FrameAlignment(VirtAddr),
    /// The selector is null, not of the GDT, not of RPL 0, or above 0x60.
    GateSelector(u16),
}

impl fmt::Display for DebugSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FrameAlignment(frame) => {
                write!(f, "the debug frame's address {frame} is not 4 KiB-aligned")
            }
            Self::GateSelector(selector) => {
                write!(f, "the gate selector {selector:#x} is none of 0x8, 0x10, … 0x60")
            }
        }
    }
}

impl core::error::Error for DebugSetupError {}

impl DebugFrame {
    /// A 64-bit code segment, where Linux's boot protocol has one, too: it survives Linux's early LGDT.
    pub const CODE_SELECTOR: u16 = 0x10;
    /// A flat data segment; see [`CODE_SELECTOR`](Self::CODE_SELECTOR).
    pub const DATA_SELECTOR: u16 = 0x18;
    /// A flat 32-bit code segment, for a way that leaves long mode.
    pub const CODE32_SELECTOR: u16 = 0x68;
    /// The TSS, for LTR.
    pub const TSS_SELECTOR: u16 = 0x70;

    /// Offset of the operand of LGDT, in bytes.
    pub const GDTR: usize = offset_of!(Self, gdtr) + offset_of!(PseudoDescriptor, limit);
    /// Offset of the operand of LIDT, in bytes.
    pub const IDTR: usize = offset_of!(Self, idtr) + offset_of!(PseudoDescriptor, limit);
    /// Offset of the byte of the TSS descriptor whose bit 1 says that the TSS is busy.
    pub const TSS_ACCESS: usize = offset_of!(Self, gdt) + Self::TSS_SELECTOR as usize + 5;
    /// Offset of the end of a stack for the engine, 16-aligned. It has more than 1024 bytes, of which exceptions take up to 256
    /// where gates do not switch stacks.
    pub const STACK_TOP: usize = offset_of!(Self, engine_stack) + ENGINE_STACK_SIZE;
    /// Offset of the [`Counters`].
    pub const COUNTERS: usize = offset_of!(Self, state) + offset_of!(DumpState, counters);
    /// Offset of the [`Captured`] that the handler fills; whoever enters `EXCEPTION` at `fatal` may fill it, too.
    pub const CAPTURED: usize = offset_of!(Self, captured);

    /// A frame as the setup says, with no exception taken.
    ///
    /// # Errors
    ///
    /// - [`DebugSetupError::FrameAlignment`]
    /// - [`DebugSetupError::GateSelector`]
    pub fn new(setup: &DebugSetup) -> Result<Self, DebugSetupError> {
        if !setup.frame.is_aligned(PAGE_SIZE) {
            return Err(DebugSetupError::FrameAlignment(setup.frame));
        }
        if !setup.gate_selector.is_multiple_of(8)
            || !(0x8..Self::CODE32_SELECTOR).contains(&setup.gate_selector)
        {
            return Err(DebugSetupError::GateSelector(setup.gate_selector));
        }
        let at = |offset: usize| setup.frame.as_u64().wrapping_add(offset as u64);
        let in_piece = |piece: VirtAddr, offset: usize| piece.as_u64().wrapping_add(offset as u64);

        let mut tss = Tss::new();
        for index in 0..IST_STACKS {
            let top = at(offset_of!(Self, ist_stacks) + (index + 1) * IST_STACK_SIZE);
            tss.set_ist_top(index as u8 + 1, top);
        }

        let silent = in_piece(setup.stubs, EXCEPTION.find("silent").unwrap_or_default());
        let (dump, mark, put_byte, console) = match setup.console {
            Some((put_byte, config)) => (
                in_piece(setup.dump, DUMP.find("dump").unwrap_or_default()),
                in_piece(setup.dump, DUMP.find("mark").unwrap_or_default()),
                put_byte.as_u64(),
                config.as_u64(),
            ),
            None => (silent, silent, 0, 0),
        };

        Ok(Self {
            state: DumpState {
                dump,
                mark,
                put_byte,
                console,
                progress: setup.progress.as_u64(),
                phys_offset: setup.phys_offset.map_or(DumpState::NO_PHYS, VirtAddr::as_u64),
                wait: match setup.after {
                    After::Halt => u64::MAX,
                    After::Reset { wait } => u64::from(wait),
                },
                count_debug: u64::from(setup.on_debug == OnDebug::Count),
                ..DumpState::default()
            },
            reserved_0: [0; 3],
            gdt: gdt(setup.gate_selector, at(offset_of!(Self, tss))),
            idt: core::array::from_fn(|vector| {
                let vector = vector as u8;
                let offset = setup.stubs.as_u64().wrapping_add(stub(vector));
                Gate::new(offset, setup.gate_selector, if setup.ist { ist(vector) } else { 0 })
            }),
            tss,
            gdtr: PseudoDescriptor::new(size_of::<[u64; GDT_SLOTS]>(), at(offset_of!(Self, gdt))),
            idtr: PseudoDescriptor::new(size_of::<[Gate; VECTORS as usize]>(), at(offset_of!(Self, idt))),
            reserved_1: 0,
            engine_stack: [0; ENGINE_STACK_SIZE],
            ist_stacks: [[0; IST_STACK_SIZE]; IST_STACKS],
            dump_stack: [0; DUMP_STACK_SIZE],
            captured: Captured::default(),
        })
    }

    /// The bytes to write into the frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PAGE_SIZE as usize] {
        // SAFETY: the value has that size, no padding (asserted above: its fields' sizes sum up to its own) and no interior
        // mutability; bytes have no alignment.
        unsafe { &*(&raw const *self).cast() }
    }
}

impl PseudoDescriptor {
    fn new(size: usize, base: u64) -> Self {
        Self { reserved: [0; 3], limit: size as u16 - 1, base }
    }
}

/// Flat segments at the selectors promised, and the TSS. All are marked accessed: the processor writes to none of them.
fn gdt(gate_selector: u16, tss: u64) -> [u64; GDT_SLOTS] {
    let slot = |selector: u16| usize::from(selector / 8);
    let mut flat = Gdt::new();
    flat.set_tss_at(tss as *const Tss);
    let flat = flat.descriptors();
    let code = flat[slot(Gdt::KERNEL_CODE)];

    let mut gdt = [0; GDT_SLOTS];
    gdt[slot(DebugFrame::CODE_SELECTOR)] = code;
    gdt[slot(DebugFrame::DATA_SELECTOR)] = flat[slot(Gdt::KERNEL_DATA)];
    gdt[slot(gate_selector)] = code;
    // Bit 53 is L, bit 54 D/B (SDM Vol. 3A, 3.4.5).
    gdt[slot(DebugFrame::CODE32_SELECTOR)] = code & !(1 << 53) | 1 << 54;
    gdt[slot(DebugFrame::TSS_SELECTOR)] = flat[slot(Gdt::TSS)];
    gdt[slot(DebugFrame::TSS_SELECTOR) + 1] = flat[slot(Gdt::TSS) + 1];
    gdt
}

fn ist(vector: u8) -> u8 {
    match Vector(vector) {
        Vector::DEBUG => IST_DEBUG,
        Vector::NMI => IST_NMI,
        Vector::BREAKPOINT => IST_BREAKPOINT,
        Vector::DOUBLE_FAULT => IST_DOUBLE_FAULT,
        Vector::MACHINE_CHECK => IST_MACHINE_CHECK,
        _ => IST_FAULT,
    }
}
