//! The control block: all that the engine works on, in one data frame.
//!
//! The engine alone reads and writes it after the jump; before it, [`Prepared`](crate::Prepared) fills it in. It is seen at two
//! addresses: at the running kernel's (`live`), which the transition map aliases, and at its identity address.

use core::mem::offset_of;

use kexec_abi::{ConsoleConfig, Progress};

/// What `lgdt` and `lidt` take, padded so that the base is aligned: the operand starts at `limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Descriptor {
    _pad: [u16; 3],
    pub(crate) limit: u16,
    pub(crate) base: u64,
}

impl Descriptor {
    pub(crate) const fn new(limit: u16, base: u64) -> Self {
        Self { _pad: [0; 3], limit, base }
    }
}

/// A model-specific register and its value, restored if it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Msr {
    pub(crate) index: u32,
    pub(crate) _pad: u32,
    pub(crate) value: u64,
}

/// MSRs that are restored on the way back, at most.
pub(crate) const MSRS: usize = 7;

/// Slots of the GDT from which TR and LDTR are reloaded on the way back: selectors up to 0x7f.
pub(crate) const RETURN_GDT_SLOTS: usize = 16;

/// The running kernel's state, taken by `jump` and restored by the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Saved {
    /// Written by the engine: the stack, with the callee-saved registers and RFLAGS pushed.
    pub(crate) rsp: u64,
    pub(crate) cr0: u64,
    /// With the PCID.
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) gdtr: Descriptor,
    pub(crate) idtr: Descriptor,
    /// The GDT that holds copies of the TSS's and LDT's descriptors at their own selectors, not busy, and the kernel's code
    /// segment at its own: a busy TSS cannot be loaded, and the kernel's GDT may be read-only.
    pub(crate) return_gdtr: Descriptor,
    pub(crate) return_gdt: [u64; RETURN_GDT_SLOTS],
    pub(crate) tr: u16,
    pub(crate) ldtr: u16,
    pub(crate) cs: u16,
    pub(crate) ss: u16,
    pub(crate) ds: u16,
    pub(crate) es: u16,
    pub(crate) fs: u16,
    pub(crate) gs: u16,
    /// How many of `msrs` count.
    pub(crate) msr_count: u64,
    /// In the order in which they are written: EFER, segment bases, then CET's.
    pub(crate) msrs: [Msr; MSRS],
}

/// The general registers with which the new kernel is entered; the others are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Registers {
    pub(crate) rip: u64,
    pub(crate) rsp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
}

/// The engine's control block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Control {
    pub(crate) progress: Progress,
    /// This block's identity address, and its address in the running kernel's map.
    pub(crate) identity: u64,
    pub(crate) live: u64,
    /// The debug frames: in force under the running kernel's map (at its address there), and afterwards.
    pub(crate) outgoing: u64,
    pub(crate) debug: u64,
    /// Identity address of the stack in the transition: the top of a frame less 8, with a zero quadword there.
    pub(crate) stack: u64,
    /// Identity address of the label `identity`, in the code frame.
    pub(crate) identity_entry: u64,
    /// Address of the label `restore` in the running kernel's text.
    pub(crate) restore_entry: u64,
    /// Identity address of the label `reenter`: the callee's return address.
    pub(crate) reenter_entry: u64,
    /// The list's first entry.
    pub(crate) head: u64,
    /// 1: pages are exchanged and the image is called; 0: they are copied and it is jumped to.
    pub(crate) preserve: u64,
    /// Bit n: `int3` on reaching phase n.
    pub(crate) breakpoints: u64,
    /// RFLAGS during the transition: 2, with TF to single-step it.
    pub(crate) rflags: u64,
    /// CR0, CR3 and CR4 during the transition.
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    /// Identity address of the detour's entry, by which the new kernel's paging depth is reached; 0 if it is this one's.
    pub(crate) detour: u64,
    /// CR3 and CR4 with which the new kernel is entered by the detour, and CR3 on the way back by it: all below 4 GiB.
    pub(crate) peer_cr3: u64,
    pub(crate) peer_cr4: u64,
    pub(crate) low_cr3: u64,
    /// For the detour's handlers: its label `dump32`, and the handler's `fatal`.
    pub(crate) dump32: u64,
    pub(crate) fatal: u64,
    /// The IDT while paging is off.
    pub(crate) idt32r: Descriptor,
    pub(crate) entry: Registers,
    pub(crate) saved: Saved,
}

/// Constants that the code frame carries, since a callee's tables may map nothing else: the words at the engine's label
/// `constants`, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Constants {
    /// Identity address of the control block.
    pub(crate) control: u64,
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    /// What has to be on; what the running kernel had is restored at last.
    pub(crate) efer: u64,
}

static_assertions::const_assert!(size_of::<Control>() <= 2048);
static_assertions::const_assert_eq!(offset_of!(Control, progress), 0);
static_assertions::const_assert_eq!(offset_of!(Descriptor, limit), 6);
static_assertions::assert_eq_size!(Msr, [u8; 16]);
static_assertions::assert_eq_size!(Constants, [u64; 5]);
// The engine takes it from the label itself.
static_assertions::const_assert_eq!(offset_of!(Constants, control), 0);

/// What the control frame holds: the block, and the console's blocks for both maps.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ControlFrame {
    control: Control,
    console: ConsoleConfig,
    live_console: ConsoleConfig,
    /// The 32-bit IDT of the detour.
    gates: [u64; 32],
}

impl ControlFrame {
    /// Offset of the 32-bit IDT.
    pub(crate) const GATES: usize = offset_of!(Self, gates);
    /// Offset of the console's block for the transition map.
    pub(crate) const CONSOLE: usize = offset_of!(Self, console);
    /// Offset of the console's block for the running kernel's map.
    pub(crate) const LIVE_CONSOLE: usize = offset_of!(Self, live_console);

    pub(crate) fn new(
        control: &Control,
        console: Option<ConsoleConfig>,
        live: Option<ConsoleConfig>,
        gates: Option<[u64; 32]>,
    ) -> Self {
        const NONE: ConsoleConfig = ConsoleConfig([0; 64]);
        Self {
            control: *control,
            console: console.unwrap_or(NONE),
            live_console: live.unwrap_or(NONE),
            gates: gates.unwrap_or_default(),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: the value has that size and no padding (asserted below); bytes have no alignment.
        unsafe { &*(&raw const *self).cast() }
    }
}

impl Constants {
    pub(crate) fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: five u64, so no padding; bytes have no alignment.
        unsafe { &*(&raw const *self).cast() }
    }
}

static_assertions::const_assert!(size_of::<ControlFrame>() <= 4096);
// No padding: the sizes of the fields sum up to the structures' own.
static_assertions::assert_eq_size!(Registers, [u64; 6]);
static_assertions::assert_eq_size!(Saved, [u64; 4 + 6 + RETURN_GDT_SLOTS + 2 + 1 + 2 * MSRS]);
static_assertions::const_assert_eq!(
    size_of::<Control>(),
    size_of::<Progress>() + 21 * 8 + size_of::<Descriptor>() + size_of::<Registers>() + size_of::<Saved>()
);
static_assertions::const_assert_eq!(
    size_of::<ControlFrame>(),
    size_of::<Control>() + 2 * size_of::<ConsoleConfig>() + 32 * 8
);
