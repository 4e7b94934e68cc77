//! The processor: what each instruction needs and does, applied to the model where the process may not do it.

use std::collections::BTreeMap;

use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register,
};
use kexec_abi::page_code::PageCode;
use kexec_abi::{PhysAddr, PhysRange};
use reloc::ENGINE;

use crate::events::Covered;
use crate::memory::Memory;
use crate::model::{Control, Forbidden, cr4, msr};
use crate::operands::{Gregs, full, holds, operand, reg, set, set_operand};
use crate::paging::{Access, permits, separated, walk};

/// Flags that this process has as the code under test left them; all others are the model's.
const STATUS: u64 = 0xcd5;
pub(crate) const INTERRUPT_FLAG: u64 = 1 << 9;
const DIRECTION_FLAG: u64 = 1 << 10;
const ZERO_FLAG: u64 = 1 << 6;
const NESTED_TASK: u64 = 1 << 14;
const ALIGNMENT_CHECK: u64 = 1 << 18;
/// IF, IOPL, NT, AC, ID.
const SYSTEM: u64 = INTERRUPT_FLAG | 3 << 12 | NESTED_TASK | ALIGNMENT_CHECK | 1 << 21;

/// Callee-saved registers (System V ABI), and the stack.
const SAVED: [libc::c_int; 7] =
    [libc::REG_RBX, libc::REG_RBP, libc::REG_R12, libc::REG_R13, libc::REG_R14, libc::REG_R15, libc::REG_RSP];

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TableRegister {
    pub(crate) base: u64,
    pub(crate) limit: u16,
}

/// What a kernel sees of a processor, beside the general registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Processor {
    pub(crate) control: Control,
    pub(crate) gdtr: TableRegister,
    pub(crate) idtr: TableRegister,
    /// TR, and the base that it hides.
    pub(crate) tr: (u16, u64),
    pub(crate) ldtr: u16,
    /// ES, CS, SS, DS, FS, GS.
    pub(crate) selectors: [u16; 6],
    /// RFLAGS, without what the process has itself.
    pub(crate) flags: u64,
    pub(crate) dr7: u64,
}

pub(crate) const CS: usize = 1;
pub(crate) const SS: usize = 2;

/// How a run ended before its time.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A step that must not be made.
    Forbidden(String),
    /// The new kernel runs, and stopped at its `ud2`.
    Kernel(Box<Gregs>),
}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forbidden(step) => write!(f, "a forbidden step: {step}"),
            Self::Kernel(gregs) => write!(f, "the new kernel runs at {:#x}", reg(gregs, libc::REG_RIP)),
        }
    }
}

pub(crate) enum Next {
    /// The instruction is the process's to execute, where it stands.
    InPlace,
    /// The process may execute it anywhere: so many bytes, a copy of which does the same.
    Copy(usize),
    /// It was applied to the model; RIP goes on behind it, or where it leads.
    Done,
    Branched,
    Stop(Stopped),
}

/// The machine: memory, a processor, and what is known of the run.
pub(crate) struct Machine {
    pub(crate) memory: Memory,
    pub(crate) processor: Processor,
    /// The code frame, once there is one, and where in it the engine lies.
    pub(crate) code: PhysRange,
    pub(crate) engine_offset: u64,
    /// Put into each register that a label's contract does not name, when the label is reached.
    pub(crate) garbage: Option<u64>,
    /// Instruction boundaries of the engine, and those of them at which an event would be lost, by the label.
    pub(crate) boundaries: u64,
    pub(crate) uncovered: BTreeMap<&'static str, Vec<String>>,
    /// CR3s whose global entries may still be used.
    stale: Vec<u64>,
    /// The shadow stack, while there is one.
    shadow: Vec<u64>,
    expects_endbr64: bool,
    /// The registers at `enter` and the return address, from there to the way back.
    transition: Option<(Gregs, u64)>,
    pub(crate) covered: Option<Covered>,
    /// Always there between two instructions.
    information: Option<InstructionInfoFactory>,
}

impl Machine {
    pub(crate) fn new(memory: Memory, processor: Processor) -> Self {
        Self {
            memory,
            processor,
            code: PhysRange::default(),
            engine_offset: 0,
            garbage: None,
            boundaries: 0,
            uncovered: BTreeMap::new(),
            stale: Vec::new(),
            shadow: Vec::new(),
            expects_endbr64: false,
            transition: None,
            covered: None,
            information: Some(InstructionInfoFactory::new()),
        }
    }

    /// The label of the engine that an address belongs to, and the offset from it.
    fn place(&self, rip: u64) -> Option<(&'static str, u64)> {
        let copy = self.code.start.as_u64() + self.engine_offset;
        let linked = ENGINE.bytes().as_ptr() as u64;
        let offset = [copy, linked]
            .into_iter()
            .find_map(|start| rip.checked_sub(start).filter(|o| *o < used(&ENGINE)))?;
        let region = ENGINE.regions().find(|r| (r.start as u64..r.end as u64).contains(&offset))?;
        Some((region.name, offset - region.start as u64))
    }

    fn in_callee(&self, rip: u64) -> bool {
        self.memory.is_low(rip) && !self.code.contains(PhysAddr::new(rip))
    }

    /// Where in RAM, or beside it, an access goes; or the rule that it breaks.
    pub(crate) fn translate(&self, linear: u64, access: Access, ours: bool) -> Result<u64, Forbidden> {
        let control = &self.processor.control;
        if separated(control, self.memory.is_low(linear), access) {
            return Err(format!("LASS: {access:?} of {linear:#x}, in the lower half"));
        }
        let found = walk(&self.memory, control.cr3, control, linear)?;
        permits(control, &found, access).map_err(|why| format!("#PF: {access:?} of {linear:#x}: {why}"))?;
        for root in &self.stale {
            if let Ok(stale) = walk(&self.memory, *root, control, linear)
                && stale.global
                && (stale.phys != found.phys || permits(control, &stale, access).is_err())
            {
                return Err(format!("{access:?} of {linear:#x}: a stale global TLB entry may be used"));
            }
        }
        if ours && access == Access::Write && !self.stale.is_empty() {
            return Err(format!("{linear:#x} is written through the new map before CR4.PGE is clear"));
        }
        if ours && access == Access::Write && self.code.contains(PhysAddr::new(found.phys)) {
            return Err(format!("{linear:#x} is written, in the code frame"));
        }
        if found.phys != self.memory.phys_of(linear) {
            return Err(format!("{linear:#x} is mapped to {:#x}, which is other memory", found.phys));
        }
        Ok(found.phys)
    }

    pub(crate) fn read<const N: usize>(&self, linear: u64, ours: bool) -> Result<[u8; N], Forbidden> {
        self.translate(linear, Access::Read, ours)?;
        self.translate(linear + N as u64 - 1, Access::Read, ours)?;
        // SAFETY: translation found that this is memory of the process, or RAM, at this very address.
        Ok(unsafe { (linear as *const [u8; N]).read_unaligned() })
    }

    pub(crate) fn word(&self, linear: u64, ours: bool) -> Result<u64, Forbidden> {
        self.read(linear, ours).map(u64::from_le_bytes)
    }

    /// A descriptor of the GDT, and its address.
    pub(crate) fn descriptor(&self, selector: u16) -> Result<(u64, u64), Forbidden> {
        let TableRegister { base, limit } = self.processor.gdtr;
        if selector & 4 != 0 || u32::from(selector | 7) > limit.into() || selector < 8 {
            return Err(format!("#GP: the selector {selector:#x} is none of the GDT"));
        }
        let address = base + u64::from(selector & !7);
        Ok((self.word(address, true)?, address))
    }

    /// Sets bits of a descriptor in memory, as the processor does.
    fn mark(&self, address: u64, bits: u64) -> Result<(), Forbidden> {
        self.translate(address, Access::Write, true)?;
        // SAFETY: as in `read`.
        unsafe { (address as *mut u64).write_unaligned((address as *const u64).read_unaligned() | bits) };
        Ok(())
    }

    pub(crate) fn is_code64(low: u64) -> bool {
        low >> 40 & 0x9a == 0x9a && low >> 53 & 3 == 1 && low >> 45 & 3 == 0
    }

    pub(crate) fn is_stack(low: u64) -> bool {
        low >> 40 & 0x9a == 0x92 && low >> 45 & 3 == 0
    }

    fn load_selector(&mut self, segment: Register, selector: u16) -> Result<(), Forbidden> {
        let index = segment as usize - Register::ES as usize;
        let mut base = 0;
        if selector & !3 == 0 && index != CS {
            if index == SS && selector & 3 != 0 {
                return Err("#GP: a null SS with an RPL".into());
            }
        } else {
            let (low, address) = self.descriptor(selector)?;
            let good = match index {
                CS => Self::is_code64(low),
                SS => Self::is_stack(low),
                _ => low >> 40 & 0x90 == 0x90,
            };
            if !good {
                return Err(format!("#GP: {segment:?} is loaded with the descriptor {low:#x}"));
            }
            const ACCESSED: u64 = 1 << 40;
            if low & ACCESSED == 0 {
                self.mark(address, ACCESSED)?;
            }
            base = low >> 16 & 0xff_ffff | low >> 56 << 24;
        }
        match segment {
            Register::FS => _ = self.processor.control.msrs.insert(msr::IA32_FS_BASE, base),
            Register::GS => _ = self.processor.control.msrs.insert(msr::IA32_GS_BASE, base),
            _ => {}
        }
        self.processor.selectors[index] = selector;
        Ok(())
    }

    fn load_task_register(&mut self, selector: u16) -> Result<(), Forbidden> {
        let (low, address) = self.descriptor(selector)?;
        let high = self.word(address + 8, true)?;
        match low >> 40 & 0x9f {
            0x89 => {}
            0x8b => return Err(format!("#GP: LTR of the busy TSS {selector:#x}")),
            _ => return Err(format!("#GP: LTR of {selector:#x}, which is no TSS")),
        }
        self.mark(address, 1 << 41)?;
        self.processor.tr = (selector, low >> 16 & 0xff_ffff | low >> 56 << 24 | high << 32);
        Ok(())
    }

    /// One instruction: checked, and applied to the model unless it is for the process to execute.
    pub(crate) fn step(&mut self, gregs: &mut Gregs) -> Next {
        let rip = reg(gregs, libc::REG_RIP);
        let mut decoded = Instruction::default();
        match self.execute(gregs, &mut decoded) {
            Ok(next) => next,
            Err(rule) => {
                let place = match self.place(rip) {
                    Some((label, offset)) => format!("{label}+{offset:#x}"),
                    None => format!("{rip:#x}"),
                };
                Next::Stop(Stopped::Forbidden(format!("{place}: {decoded}: {rule}")))
            }
        }
    }

    fn execute(&mut self, gregs: &mut Gregs, decoded: &mut Instruction) -> Result<Next, Forbidden> {
        let rip = reg(gregs, libc::REG_RIP);
        let place = self.place(rip);
        let callee = self.in_callee(rip);
        self.translate(rip, Access::Fetch, !callee)?;
        // SAFETY: the address is fetched from next anyway; what follows it is read only where it is memory of the process too.
        let bytes = unsafe { fetch(rip) };
        *decoded = Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode();
        let instruction = *decoded;
        self.translate(instruction.next_ip() - 1, Access::Fetch, !callee)?;

        if std::mem::take(&mut self.expects_endbr64)
            && place.is_some()
            && instruction.mnemonic() != Mnemonic::Endbr64
        {
            return Err("#CP: an indirect branch leads here, and there is no ENDBR64".into());
        }
        if let Some((label, offset)) = place {
            if offset == 0 {
                self.at_label(label, gregs)?;
            }
            self.boundary(label, offset, reg(gregs, libc::REG_RSP))?;
            if instruction.has_segment_prefix() {
                return Err("a segment prefix: FS and GS may be anything".into());
            }
        } else if self.transition.is_some() && !callee {
            return Err("code outside of the engine runs in the transition".into());
        }

        self.check_memory(gregs, &instruction, callee)?;
        self.track_control_flow(gregs, &instruction, place)?;
        // What a callee has left is not the engine's doing.
        let after_callee = place.is_some_and(|(label, _)| label == "reenter");
        let done = self.emulate(gregs, &instruction, !callee, after_callee)?;
        if matches!(done, Next::Done) && instruction.mnemonic() != Mnemonic::Retf {
            set(gregs, libc::REG_RIP, instruction.next_ip());
        }
        Ok(done)
    }

    /// A label is reached: only what its contract names counts from here.
    fn at_label(&mut self, label: &str, gregs: &mut Gregs) -> Result<(), Forbidden> {
        use libc::{REG_RBX, REG_RDI, REG_RDX, REG_RSI, REG_RSP};
        let named: &[libc::c_int] = match label {
            "enter" => {
                let back = self.word(reg(gregs, REG_RSP), true)?;
                self.transition = Some((*gregs, back));
                &[REG_RDI, REG_RSP]
            }
            "identity" | "restore" => &[REG_RBX, REG_RSP],
            "walk" => &[REG_RDI, REG_RSI, REG_RDX, REG_RBX, REG_RSP],
            "reenter" => &[REG_RSP],
            _ => return Ok(()),
        };
        let unwanted = match label {
            "identity" => NESTED_TASK | ALIGNMENT_CHECK | DIRECTION_FLAG | INTERRUPT_FLAG,
            "walk" => DIRECTION_FLAG | INTERRUPT_FLAG,
            _ => 0,
        };
        let set_flags = (reg(gregs, libc::REG_EFL) & STATUS | self.processor.flags) & unwanted;
        if set_flags != 0 {
            return Err(format!("the flags {set_flags:#x} are set, which are to be clear here"));
        }
        let Some(garbage) = self.garbage else { return Ok(()) };
        for index in 0..16 {
            let kept = named.contains(&index) || label == "enter" && SAVED.contains(&index);
            if !kept {
                set(gregs, index, garbage);
            }
        }
        Ok(())
    }

    fn check_memory(
        &mut self,
        gregs: &Gregs,
        instruction: &Instruction,
        callee: bool,
    ) -> Result<(), Forbidden> {
        let mut factory = self.information.take().ok_or("one instruction at a time")?;
        let info = factory.info_options(instruction, InstructionInfoOptions::NO_REGISTER_USAGE);
        let mut checked = Ok(());
        for used in info.used_memory() {
            let access = match used.access() {
                OpAccess::NoMemAccess | OpAccess::None => continue,
                OpAccess::Read | OpAccess::CondRead => &[Access::Read][..],
                OpAccess::Write | OpAccess::CondWrite => &[Access::Write],
                OpAccess::ReadWrite | OpAccess::ReadCondWrite => &[Access::Read, Access::Write],
            };
            // A repeated string instruction that is at its end touches nothing.
            if (instruction.has_rep_prefix() || instruction.has_repne_prefix())
                && reg(gregs, libc::REG_RCX) == 0
            {
                continue;
            }
            let address = used.virtual_address(0, |register, _, _| match register {
                Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
                register => full(register).map(|index| reg(gregs, index)),
            });
            // Thread-local data of this process.
            let Some(address) = address else { continue };
            let size = used.memory_size().size().max(1) as u64;
            // A repeated one runs to its end at once; its direction is up, or it is forbidden.
            let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
            let count = if repeated { reg(gregs, libc::REG_RCX) } else { 1 };
            if repeated && reg(gregs, libc::REG_EFL) & DIRECTION_FLAG != 0 {
                checked = Err("a string instruction with DF set".into());
            }
            let last = address + size * count - 1;
            for access in access {
                for at in (address..last).step_by(4096).chain([last]) {
                    match self.translate(at, *access, !callee) {
                        Ok(phys) if *access == Access::Write => self.written(phys),
                        Ok(_) => {}
                        Err(why) => checked = checked.and(Err(why)),
                    }
                }
            }
        }
        self.information = Some(factory);
        checked
    }

    fn track_control_flow(
        &mut self,
        gregs: &Gregs,
        instruction: &Instruction,
        place: Option<(&'static str, u64)>,
    ) -> Result<(), Forbidden> {
        let control = &self.processor.control;
        let cet = if control.cr4 & cr4::CET != 0 { control.read_msr(msr::IA32_S_CET)? } else { 0 };
        let (shadow_stack, tracking) = (cet & 1 != 0, cet & 4 != 0);
        let flow = instruction.flow_control();
        self.expects_endbr64 =
            tracking && matches!(flow, FlowControl::IndirectCall | FlowControl::IndirectBranch);
        match instruction.mnemonic() {
            Mnemonic::Call if shadow_stack => self.shadow.push(instruction.next_ip()),
            Mnemonic::Ret => {
                let rsp = reg(gregs, libc::REG_RSP);
                let target = self.word(rsp, true)?;
                if shadow_stack && self.shadow.pop() != Some(target) {
                    return Err("#CP: RET, and the shadow stack has another address".into());
                }
                if place.is_some_and(|(label, _)| label == "restore") {
                    let (before, back) = self.transition.take().ok_or("the way back without a way in")?;
                    let lost = SAVED.into_iter().find(|index| reg(&before, *index) != reg(gregs, *index));
                    if lost.is_some() || back != target {
                        return Err(format!("register {lost:?} is not what it was (REG_ numbers of libc)"));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn emulate(
        &mut self,
        gregs: &mut Gregs,
        instruction: &Instruction,
        ours: bool,
        after_callee: bool,
    ) -> Result<Next, Forbidden> {
        let [first, second] = [0, 1].map(|operand| {
            if instruction.op_count() > operand && instruction.op_kind(operand) == OpKind::Register {
                instruction.op_register(operand)
            } else {
                Register::None
            }
        });
        let rsp = reg(gregs, libc::REG_RSP);
        match instruction.mnemonic() {
            Mnemonic::Mov if first.is_cr() => {
                let new = operand(gregs, second)?;
                let control = &mut self.processor.control;
                match first {
                    Register::CR0 => control.set_cr0(new)?,
                    Register::CR3 => {
                        let old = control.cr3;
                        control.set_cr3(new)?;
                        if control.cr4 & cr4::PGE != 0 && (old ^ new) << 1 >> 13 != 0 {
                            self.stale.push(old);
                        }
                    }
                    Register::CR4 => {
                        let old = control.cr4;
                        control.set_cr4(new, ours && !after_callee)?;
                        if (old ^ new) & cr4::PGE != 0 || old & !new & cr4::PCIDE != 0 {
                            self.stale.clear();
                        }
                    }
                    _ => return Err("a control register that nobody should write".into()),
                }
            }
            Mnemonic::Mov if second.is_cr() => {
                let control = &self.processor.control;
                let value = match second {
                    Register::CR0 => control.cr0,
                    Register::CR3 => control.cr3,
                    Register::CR4 => control.cr4,
                    _ => return Err("a control register that nobody should read".into()),
                };
                set_operand(gregs, first, value)?;
            }
            Mnemonic::Mov if first.is_dr() => self.processor.dr7 = operand(gregs, second)?,
            Mnemonic::Mov if second.is_dr() => set_operand(gregs, first, self.processor.dr7)?,
            Mnemonic::Mov if first.is_segment_register() => {
                let selector = self.source16(gregs, instruction, 1, ours)?;
                self.load_selector(first, selector)?;
            }
            Mnemonic::Mov if second.is_segment_register() => {
                let selector = self.processor.selectors[second as usize - Register::ES as usize];
                self.destination16(gregs, instruction, selector)?;
            }
            Mnemonic::Lgdt => self.processor.gdtr = self.table_register(gregs, instruction, ours)?,
            Mnemonic::Lidt => self.processor.idtr = self.table_register(gregs, instruction, ours)?,
            Mnemonic::Sgdt => self.store_table_register(gregs, instruction, self.processor.gdtr)?,
            Mnemonic::Sidt => self.store_table_register(gregs, instruction, self.processor.idtr)?,
            Mnemonic::Ltr => {
                let selector = self.source16(gregs, instruction, 0, ours)?;
                self.load_task_register(selector)?;
            }
            Mnemonic::Lldt => {
                let selector = self.source16(gregs, instruction, 0, ours)?;
                if selector & !3 != 0 && self.descriptor(selector)?.0 >> 40 & 0x9f != 0x82 {
                    return Err(format!("#GP: LLDT of {selector:#x}, which is no LDT"));
                }
                self.processor.ldtr = selector;
            }
            Mnemonic::Str => self.destination16(gregs, instruction, self.processor.tr.0)?,
            Mnemonic::Sldt => self.destination16(gregs, instruction, self.processor.ldtr)?,
            Mnemonic::Rdmsr => {
                let value = self.processor.control.read_msr(reg(gregs, libc::REG_RCX) as u32)?;
                set(gregs, libc::REG_RAX, value & 0xffff_ffff);
                set(gregs, libc::REG_RDX, value >> 32);
            }
            Mnemonic::Wrmsr => {
                let half = |index| reg(gregs, index) & 0xffff_ffff;
                let value = half(libc::REG_RDX) << 32 | half(libc::REG_RAX);
                self.processor.control.write_msr(half(libc::REG_RCX) as u32, value, ours)?;
            }
            Mnemonic::Verr => {
                let selector = self.source16(gregs, instruction, 0, ours)?;
                // Data, or code that can be read.
                let found = self.descriptor(selector).map(|(low, _)| low >> 40);
                let readable = found.is_ok_and(|kind| kind & 0x98 == 0x90 || kind & 0x9a == 0x9a);
                let flags = reg(gregs, libc::REG_EFL) & !ZERO_FLAG;
                set(gregs, libc::REG_EFL, flags | if readable { ZERO_FLAG } else { 0 });
            }
            Mnemonic::Lar => {
                let selector = self.source16(gregs, instruction, 1, ours)?;
                let found = self.descriptor(selector).map(|(low, _)| low >> 32 & 0xf0_ff00);
                let flags = reg(gregs, libc::REG_EFL) & !ZERO_FLAG;
                set(gregs, libc::REG_EFL, flags | if found.is_ok() { ZERO_FLAG } else { 0 });
                if let Ok(rights) = found {
                    set_operand(gregs, instruction.op0_register(), rights)?;
                }
            }
            Mnemonic::Cpuid => self.cpuid(gregs),
            Mnemonic::Cli => self.processor.flags &= !INTERRUPT_FLAG,
            Mnemonic::Sti => self.processor.flags |= INTERRUPT_FLAG,
            Mnemonic::Pushfq => {
                let value = reg(gregs, libc::REG_EFL) & STATUS | self.processor.flags | 2;
                // SAFETY: translated above as memory of the process, which is to be written next anyway.
                unsafe { ((rsp - 8) as *mut u64).write_unaligned(value) };
                set(gregs, libc::REG_RSP, rsp - 8);
            }
            Mnemonic::Popfq => {
                let value = self.word(rsp, ours)?;
                let own = reg(gregs, libc::REG_EFL) & !STATUS;
                set(gregs, libc::REG_EFL, own | value & STATUS);
                set(gregs, libc::REG_RSP, rsp + 8);
                self.processor.flags = value & SYSTEM;
                self.processor.control.alignment_check = value & ALIGNMENT_CHECK != 0;
            }
            Mnemonic::Retf => {
                let (rip, selector) = (self.word(rsp, ours)?, self.word(rsp + 8, ours)?);
                self.load_selector(Register::CS, selector as u16)?;
                set(gregs, libc::REG_RIP, rip);
                set(gregs, libc::REG_RSP, rsp + 16);
            }
            Mnemonic::Ud2 if !ours => return Ok(Next::Stop(Stopped::Kernel(Box::new(*gregs)))),
            Mnemonic::Ud2 => return Ok(Next::InPlace),
            Mnemonic::Hlt
            | Mnemonic::Int3
            | Mnemonic::Int
            | Mnemonic::Iretq
            | Mnemonic::Syscall
            | Mnemonic::INVALID => {
                return Err("nobody should come here".into());
            }
            _ if instruction.flow_control() != FlowControl::Next => {
                return self.branch(gregs, instruction, ours);
            }
            _ if instruction.is_ip_rel_memory_operand() => return Ok(Next::InPlace),
            _ => return Ok(Next::Copy(instruction.len())),
        }
        Ok(Next::Done)
    }

    /// Near branches, calls and returns.
    fn branch(&self, gregs: &mut Gregs, instruction: &Instruction, ours: bool) -> Result<Next, Forbidden> {
        let rsp = reg(gregs, libc::REG_RSP);
        let indirect = |gregs: &Gregs| match instruction.op0_kind() {
            OpKind::Memory => self.word(Self::address(gregs, instruction)?, ours),
            _ => operand(gregs, instruction.op0_register()),
        };
        let target = match instruction.flow_control() {
            FlowControl::ConditionalBranch if instruction.condition_code() != ConditionCode::None => {
                if holds(instruction.condition_code(), reg(gregs, libc::REG_EFL)) {
                    instruction.near_branch_target()
                } else {
                    instruction.next_ip()
                }
            }
            FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
                instruction.near_branch_target()
            }
            FlowControl::Call if instruction.is_call_near() => instruction.near_branch_target(),
            FlowControl::IndirectBranch if instruction.is_jmp_near_indirect() => indirect(gregs)?,
            FlowControl::IndirectCall if instruction.is_call_near_indirect() => indirect(gregs)?,
            FlowControl::Return if instruction.op_count() == 0 => {
                let target = self.word(rsp, ours)?;
                set(gregs, libc::REG_RSP, rsp + 8);
                target
            }
            _ => return Ok(Next::InPlace),
        };
        if instruction.mnemonic() == Mnemonic::Call {
            // SAFETY: translated before, as every memory operand is; the processor would write it next.
            unsafe { ((rsp - 8) as *mut u64).write_unaligned(instruction.next_ip()) };
            set(gregs, libc::REG_RSP, rsp - 8);
        }
        set(gregs, libc::REG_RIP, target);
        Ok(Next::Branched)
    }

    fn cpuid(&self, gregs: &mut Gregs) {
        let half = |index| reg(gregs, index) as u32;
        let (leaf, subleaf) = (half(libc::REG_RAX), half(libc::REG_RCX));
        let mut found = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        match (leaf, subleaf) {
            (7, 0) => found.ecx |= 1 << 16,           // LA57
            (0x8000_0001, _) => found.edx |= 1 << 26, // 1 GiB pages
            (0x8000_0008, _) => found.eax = found.eax & !0xff | self.processor.control.phys_bits,
            _ => {}
        }
        for (index, value) in [
            (libc::REG_RAX, found.eax),
            (libc::REG_RBX, found.ebx),
            (libc::REG_RCX, found.ecx),
            (libc::REG_RDX, found.edx),
        ] {
            set(gregs, index, value.into());
        }
    }

    /// The address of an instruction's memory operand.
    fn address(gregs: &Gregs, instruction: &Instruction) -> Result<u64, Forbidden> {
        instruction
            .virtual_address(
                (0..instruction.op_count()).find(|n| instruction.op_kind(*n) == OpKind::Memory).unwrap_or(0),
                0,
                |register, _, _| match register {
                    Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
                    register => full(register).map(|index| reg(gregs, index)),
                },
            )
            .ok_or_else(|| "an address relative to FS or GS".into())
    }

    fn source16(
        &self,
        gregs: &Gregs,
        instruction: &Instruction,
        n: u32,
        ours: bool,
    ) -> Result<u16, Forbidden> {
        match instruction.op_kind(n) {
            OpKind::Register => Ok(operand(gregs, instruction.op_register(n))? as u16),
            _ => self.read(Self::address(gregs, instruction)?, ours).map(u16::from_le_bytes),
        }
    }

    fn destination16(
        &self,
        gregs: &mut Gregs,
        instruction: &Instruction,
        value: u16,
    ) -> Result<(), Forbidden> {
        match instruction.op_kind(0) {
            OpKind::Register => set_operand(gregs, instruction.op0_register(), value.into()),
            _ => {
                let address = Self::address(gregs, instruction)?;
                // SAFETY: translated before, as every memory operand is.
                unsafe { (address as *mut u16).write_unaligned(value) };
                Ok(())
            }
        }
    }

    fn table_register(
        &self,
        gregs: &Gregs,
        instruction: &Instruction,
        ours: bool,
    ) -> Result<TableRegister, Forbidden> {
        let bytes: [u8; 10] = self.read(Self::address(gregs, instruction)?, ours)?;
        let (limit, base) = bytes.split_at(2);
        Ok(TableRegister {
            base: u64::from_le_bytes(base.try_into().map_err(|_| "eight bytes")?),
            limit: u16::from_le_bytes(limit.try_into().map_err(|_| "two bytes")?),
        })
    }

    fn store_table_register(
        &self,
        gregs: &Gregs,
        instruction: &Instruction,
        table: TableRegister,
    ) -> Result<(), Forbidden> {
        let address = Self::address(gregs, instruction)?;
        // SAFETY: translated before, as every memory operand is.
        unsafe {
            (address as *mut u16).write_unaligned(table.limit);
            ((address + 2) as *mut u64).write_unaligned(table.base);
        }
        Ok(())
    }
}

fn used(piece: &PageCode) -> u64 {
    piece.used() as u64
}

/// The longest instruction's bytes, or less at the end of the page.
///
/// # Safety
///
/// Code of the process lies at `rip`.
unsafe fn fetch(rip: u64) -> &'static [u8] {
    // Text of the process is mapped in one piece; code frames and images are in RAM, which does not end there.
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(rip as *const u8, 15) }
}
