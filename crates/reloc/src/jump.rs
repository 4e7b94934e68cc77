//! The jump: takes the running kernel's state, and hands over to the engine.

use core::arch::asm;
use core::fmt;
use core::mem::offset_of;

use kexec_abi::VirtAddr;
use kexec_exception::page_code::{Counters, DebugFrame};
use x86_64::instructions::segmentation::{DS, ES, FS, GS, SS, Segment as _};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::model_specific as msr;
use x86_64::registers::rflags::{self, RFlags};

use crate::control::{Control, Descriptor, MSRS, Msr, RETURN_GDT_SLOTS, Saved};
use crate::cpu::{self, Cpu};
use crate::engine::{IA32_EFER, label};
use crate::image::Mode;
use crate::pieces::Piece;
use crate::prepared::Prepared;

/// Why a jump was refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// Interrupts are on.
    InterruptsOn,
    /// VMX operation may be on (CR4.VMXE): an NMI could leave for a hypervisor that is gone, and INIT is blocked.
    VmxOn,
    /// The code segment selector, the paging depth, CR4.MCE, EFER or MAXPHYADDR differ from those that the image was prepared with.
    OtherProcessor(Cpu),
    /// A selector of the task register or LDTR reaches beyond slot 15 of the GDT, or its descriptor beyond the GDT's limit; or its
    /// low three bits are not 0.
    Selector(u16),
    /// The image was prepared to be jumped to, not to be called, or the other way round.
    Mode(Mode),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterruptsOn => f.write_str("interrupts are on"),
            Self::VmxOn => f.write_str("VMX operation is on: leave it first (VMXOFF, and clear CR4.VMXE)"),
            Self::OtherProcessor(cpu) => {
                write!(
                    f,
                    "the image was prepared for another state of the processor; now it has CS {:#x}, {cpu}",
                    cpu.cs
                )
            }
            Self::Selector(selector) => write!(
                f,
                "the selector {selector:#x} cannot be restored: only the first 16 slots of a GDT can"
            ),
            Self::Mode(Mode::Replace) => {
                f.write_str("the image was prepared to replace the kernel, not to be called")
            }
            Self::Mode(Mode::Preserve) => {
                f.write_str("the image was prepared to be called, not to replace the kernel")
            }
        }
    }
}

impl core::error::Error for Refused {}

impl Prepared {
    /// Replaces the running kernel. Returns only if it is refused.
    ///
    /// # Safety
    ///
    /// The caller has seen to it that
    ///
    /// - it runs at CPL 0 on the processor, or one in the same state, on which the image was prepared, and that its text and the
    ///   frames of the image are mapped as they were then;
    /// - no device writes to memory (DMA is quiet), nor does the processor behind the program's back (Intel PT, BTS, PEBS), and no
    ///   other processor runs: they are parked where nothing is moved;
    /// - no memory of the image was given to somebody else since;
    /// - nothing needs to be run in this kernel any more: no destructor, no flush.
    pub unsafe fn execute(&mut self) -> Refused {
        if self.mode != Mode::Replace {
            return Refused::Mode(self.mode);
        }
        // SAFETY: the caller's promises are those of `enter`; a replaced kernel has nothing to come back to.
        match unsafe { self.enter() } {
            Err(refused) => refused,
            // The engine does not return from an image that is not called.
            Ok(_) => Refused::Mode(self.mode),
        }
    }

    /// Calls the image, which is exchanged with what is in its place, and returns when it returns, with memory and
    /// processor as they were, as docs/state.md says. The result is the entry point that the callee named for the next call;
    /// [`set_entry`](Self::set_entry) takes it.
    ///
    /// # Errors
    ///
    /// [`Refused`], before anything has changed.
    ///
    /// # Safety
    ///
    /// The caller has seen to it that
    ///
    /// - it runs at CPL 0 on the processor, or one in the same state, on which the image was prepared, and that its text and the
    ///   frames of the image are mapped as they were then;
    /// - no device writes to memory (DMA is quiet), nor does the processor behind the program's back (Intel PT, BTS, PEBS), and no
    ///   other processor runs: they are parked where nothing is moved;
    /// - no memory of the image was given to somebody else since;
    /// - the image keeps the callee's duties (docs/state.md): it returns on the stack it was given, at CPL 0 in 64-bit mode, with the
    ///   code frame mapped at its own address, and restores the state that is named there as its to restore.
    pub unsafe fn jump(&mut self) -> Result<VirtAddr, Refused> {
        if self.mode != Mode::Preserve {
            return Err(Refused::Mode(self.mode));
        }
        // SAFETY: the caller's promises are those of `enter`.
        unsafe { self.enter() }.map(VirtAddr::new)
    }

    /// Sets the entry point of the next [`jump`](Self::jump).
    pub fn set_entry(&mut self, entry: VirtAddr) {
        self.entry.rip = entry;
    }

    /// The exceptions that were taken and survived so far, under the transition map and under the running kernel's: NMIs,
    /// breakpoints, debug exceptions.
    ///
    /// # Safety
    ///
    /// The frames of the image are mapped as they were when it was prepared.
    #[must_use]
    pub unsafe fn counters(&self) -> [Counters; 2] {
        [self.live.debug, self.live.outgoing].map(|frame| {
            // SAFETY: a debug frame, which the trait promised to keep mapped at this address; the processor writes it only
            // during a transition.
            unsafe {
                core::ptr::read_volatile((frame.as_u64() as usize + DebugFrame::COUNTERS) as *const Counters)
            }
        })
    }

    /// # Safety
    ///
    /// As [`jump`](Self::jump), and a callee's duties only if the image is called.
    unsafe fn enter(&mut self) -> Result<u64, Refused> {
        // SAFETY: the caller runs at CPL 0.
        let now = unsafe { Cpu::read() };
        if rflags::read().contains(RFlags::INTERRUPT_FLAG) {
            return Err(Refused::InterruptsOn);
        }
        if now.cr4 & cpu::cr4::VMXE != 0 {
            return Err(Refused::VmxOn);
        }
        let same = |a: &Cpu, b: &Cpu| {
            (a.cs, a.levels(), a.efer, a.phys_bits, a.transition_cr4())
                == (b.cs, b.levels(), b.efer, b.phys_bits, b.transition_cr4())
        };
        if !same(&now, &self.cpu) {
            return Err(Refused::OtherProcessor(now));
        }
        let saved = match self.mode {
            // Nothing to come back to, and no reason to be refused.
            Mode::Replace => Saved::default(),
            // SAFETY: CPL 0, and the descriptor tables in force are mapped.
            Mode::Preserve => unsafe { save(&now, self.live.control) }?,
        };
        // SAFETY: the control block lies at this address, which the trait promised to keep mapped, and only the engine
        // and this function use it.
        let control = unsafe { &mut *(self.live.control.as_u64() as *mut Control) };
        control.saved = saved;
        control.entry.rip = self.entry.rip.as_u64();

        let enter: extern "sysv64" fn(*mut Control) -> u64 =
            // SAFETY: the address of the engine's entry in its executable template, which has this signature.
            unsafe { core::mem::transmute(Piece::linked(self.pieces.engine.code, label::ENTER) as usize) };
        let debug = take_debug_registers();
        let next = enter(control);
        give_debug_registers(debug);
        Ok(next)
    }
}

/// DR7 as it was; no breakpoint of the running kernel's fires in the transition.
fn take_debug_registers() -> u64 {
    let dr7: u64;
    // SAFETY: CPL 0; without breakpoints nothing but debugging changes.
    unsafe {
        asm!("mov {0}, dr7", "mov dr7, {1}", out(reg) dr7, in(reg) DR7_CLEAR, options(nomem, nostack, preserves_flags))
    };
    dr7
}

fn give_debug_registers(dr7: u64) {
    // SAFETY: CPL 0; the value was there before.
    unsafe { asm!("mov dr7, {0}", in(reg) dr7, options(nomem, nostack, preserves_flags)) };
}

/// What the engine restores.
///
/// # Safety
///
/// CPL 0; the GDT in force is mapped.
unsafe fn save(now: &Cpu, control: VirtAddr) -> Result<Saved, Refused> {
    let (gdt, idt) = (sgdt(), sidt());
    let (tr, ldtr): (u16, u16);
    // SAFETY: CPL 0; both only read.
    unsafe {
        asm!("str {0:x}", "sldt {1:x}", out(reg) tr, out(reg) ldtr, options(nomem, nostack, preserves_flags))
    };

    let descriptor = |selector: u16| {
        let within = selector & 7 == 0 && u64::from(selector) + 15 <= u64::from(gdt.limit);
        let at = (gdt.base.as_u64() + u64::from(selector)) as *const [u64; 2];
        // SAFETY: within the limit of the GDT in force, which the caller says is mapped; packed tables may lie anywhere.
        within.then(|| unsafe { at.read_unaligned() })
    };
    // In a kernel without a TSS, TR is null only until its first transition, which leaves ours behind.
    let is_tss = |selector| descriptor(selector).is_some_and(|[low, _]| low & SYSTEM_KIND & !TSS_BUSY == TSS);
    let tr = if tr == DebugFrame::TSS_SELECTOR && !is_tss(tr) { 0 } else { tr };

    let mut return_gdt = [0; RETURN_GDT_SLOTS];
    let slot = usize::from(now.cs >> 3);
    // The image was prepared with this selector, which the debug frame accepted: it lies in the first 16 slots.
    *return_gdt.get_mut(slot).ok_or(Refused::Selector(now.cs))? = FLAT_CODE64;
    for (selector, kind) in [(tr, TSS), (ldtr, LDT)] {
        let slot = usize::from(selector >> 3);
        if slot == 0 {
            continue;
        }
        let not_busy =
            descriptor(selector).map(|[low, high]| [if kind == TSS { low & !TSS_BUSY } else { low }, high]);
        match (return_gdt.get_mut(slot..slot + 2), not_busy) {
            (Some(slots), Some(words)) if words[0] & SYSTEM_KIND == kind => slots.copy_from_slice(&words),
            _ => return Err(Refused::Selector(selector)),
        }
    }

    let mut msrs = [Msr::default(); MSRS];
    let mut msr_count = 0;
    let cet: &[u32] = match now.cr4 & cpu::cr4::CET != 0 {
        false => &[],
        true if has_shadow_stacks() => &[IA32_S_CET, IA32_PL0_SSP, IA32_INTERRUPT_SSP_TABLE],
        true => &[IA32_S_CET],
    };
    // EFER and segment bases first, CET's last: from then on shadow stacks count.
    for (slot, index) in
        msrs.iter_mut().zip([IA32_EFER, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE].iter().chain(cet))
    {
        // SAFETY: CPL 0; the first four exist in long mode, S_CET where CR4.CET could be set, the others as asked above.
        let value = unsafe { msr::Msr::new(*index).read() };
        *slot = Msr { index: *index, _pad: 0, value };
        msr_count += 1;
    }

    let return_gdt_at =
        control.as_u64() + offset_of!(Control, saved) as u64 + offset_of!(Saved, return_gdt) as u64;
    Ok(Saved {
        rsp: 0,
        cr0: now.cr0,
        cr3: now.cr3,
        cr4: now.cr4,
        gdtr: Descriptor::new(gdt.limit, gdt.base.as_u64()),
        idtr: Descriptor::new(idt.limit, idt.base.as_u64()),
        return_gdtr: Descriptor::new(size_of_val(&return_gdt) as u16 - 1, return_gdt_at),
        return_gdt,
        tr,
        ldtr,
        cs: now.cs,
        ss: loadable_stack(SS::get_reg().0),
        ds: loadable(DS::get_reg().0),
        es: loadable(ES::get_reg().0),
        fs: loadable(FS::get_reg().0),
        gs: loadable(GS::get_reg().0),
        msr_count,
        msrs,
    })
}

/// Whether the processor has shadow stacks: CPUID.7.0:ECX\[7\].
fn has_shadow_stacks() -> bool {
    raw_cpuid::CpuId::new().get_extended_feature_info().is_some_and(|features| features.has_cet_ss())
}

/// The selector of a data segment as it can be loaded again: null where it was left over from a GDT that is gone, which a
/// kernel that does not use the segment never notices.
fn loadable(selector: u16) -> u16 {
    let readable: u8;
    // SAFETY: VERR asks whether the segment could be read (SDM Vol. 2), and changes ZF alone.
    unsafe { asm!("verr {0:x}", "setz {1}", in(reg) selector, out(reg_byte) readable, options(nostack)) };
    let present = access_rights(selector) & PRESENT != 0;
    if readable != 0 && present { selector } else { 0 }
}

/// The selector of a stack segment as it can be loaded again at CPL 0 (SDM Vol. 2, MOV): present, writable data of DPL 0.
fn loadable_stack(selector: u16) -> u16 {
    let stack = selector & 3 == 0 && access_rights(selector) & STACK_KIND == STACK;
    if stack { selector } else { 0 }
}

/// The second doubleword of a descriptor, as LAR gives it; 0 where it gives none.
fn access_rights(selector: u16) -> u32 {
    let (rights, given): (u32, u8);
    // SAFETY: LAR reads the descriptor if there is one (SDM Vol. 2), and changes ZF alone.
    unsafe {
        asm!("lar {0:e}, {1:e}", "setz {2}", out(reg) rights, in(reg) u32::from(selector), out(reg_byte) given, options(nostack))
    };
    if given != 0 { rights } else { 0 }
}

// What LAR gives (SDM Vol. 3A, 3.4.5): P, DPL, S, and the type's bits for data and writable.
const PRESENT: u32 = 1 << 15;
const STACK_KIND: u32 = 0xfa00;
const STACK: u32 = 0x9200;

// P, S and the type of a system descriptor (SDM Vol. 3A, 3.5): an available TSS, an LDT.
const SYSTEM_KIND: u64 = 0x9f << 40;
const TSS: u64 = 0x89 << 40;
const LDT: u64 = 0x82 << 40;

/// A 64-bit code segment of DPL 0, accessed.
const FLAT_CODE64: u64 = 0x00af_9b00_0000_ffff;

/// The bit of a TSS descriptor's type that says that the TSS is busy.
const TSS_BUSY: u64 = 1 << 41;

/// DR7 with no breakpoint enabled.
const DR7_CLEAR: u64 = 1 << 10;

// SDM Vol. 4, table 2-2.
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
const IA32_S_CET: u32 = 0x6a2;
const IA32_PL0_SSP: u32 = 0x6a4;
const IA32_INTERRUPT_SSP_TABLE: u32 = 0x6a8;
