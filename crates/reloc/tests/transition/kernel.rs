//! The running kernel: its state before the jump, and what it does to jump.

use std::collections::BTreeMap;

use identmap::{Attributes, Mapping};
use kexec_abi::list::{Entries, Item};
use kexec_abi::{EntryState, FrameAllocator as _, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use reloc::{Cpu, ENGINE, Image, Machine as Plan, Mode, Options, Prepared, Refused, Segment};

use crate::memory::{LiveMap, Memory};
use crate::model::{Control, cr0, cr4, efer, msr};
use crate::processor::{Machine, Processor, Stopped, TableRegister};

/// The state in which the kernel runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    pub(crate) map: LiveMap,
    /// On top of PAE, MCE and what the map needs.
    pub(crate) cr4: u64,
    /// On top of PE, PG and WP.
    pub(crate) cr0: u64,
    pub(crate) pcid: u64,
    pub(crate) tdx: bool,
    /// IA32_PKRS and PKRU.
    pub(crate) keys: u32,
    /// IA32_S_CET.
    pub(crate) s_cet: u64,
    /// RFLAGS: NT, AC and ID may be set.
    pub(crate) flags: u64,
    /// Neither a TSS nor an LDT, and no gate on an IST stack.
    pub(crate) no_tss: bool,
    /// The firmware's tables.
    pub(crate) firmware: Vec<PhysRange>,
}

pub(crate) const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x28;
const LDT_SELECTOR: u16 = 0x38;

/// Builds the machine: a GDT that is read-only in the kernel's own map, an IDT with gates on IST stacks, a busy TSS, an LDT.
pub(crate) fn machine(start: &Start) -> Machine {
    let mut memory = Memory::new(start.map);
    let [gdt, tables, stack] = [(); 3].map(|()| memory.allocate().unwrap().start().as_u64());
    let (gdt_at, idt_at) = (memory.direct(gdt), memory.direct(tables));
    let tss = tables + 0x800;
    let tss_at = memory.direct(tss);
    for word in 0..512 {
        memory.write(gdt + word * 8, 0);
        memory.write(tables + word * 8, 0);
    }
    let system = |base: u64, kind: u64, limit: u64| {
        [limit | (base & 0xff_ffff) << 16 | kind << 40 | (base >> 24 & 0xff) << 56, base >> 32]
    };
    memory.write(gdt + u64::from(CODE_SELECTOR), 0x00af_9b00_0000_ffff);
    memory.write(gdt + u64::from(DATA_SELECTOR), 0x00cf_9300_0000_ffff);
    for (selector, words) in
        [(TSS_SELECTOR, system(tss_at, 0x8b, 0x67)), (LDT_SELECTOR, system(tss_at + 0x100, 0x82, 7))]
    {
        memory.write(gdt + u64::from(selector), words[0]);
        memory.write(gdt + u64::from(selector) + 8, words[1]);
    }
    // The handlers do not matter, as long as they can be reached, which is under the kernel's map alone: nothing is raised.
    let handler = memory.direct(stack);
    for vector in 0..32 {
        let ist = u64::from(!start.no_tss && [2, 8, 18].contains(&vector));
        let low = handler & 0xffff
            | u64::from(CODE_SELECTOR) << 16
            | ist << 32
            | 0x8e00 << 32
            | (handler >> 16 & 0xffff) << 48;
        memory.write(tables + vector * 16, low);
        memory.write(tables + vector * 16 + 8, handler >> 32);
    }
    memory.write(tss + 0x24, memory.direct(stack) + PAGE_SIZE);
    memory.protect(gdt);

    let mut msrs = BTreeMap::from([
        (msr::IA32_FS_BASE, 0x1111_0000),
        (msr::IA32_GS_BASE, 0xffff_8888_0000_0000),
        (msr::IA32_KERNEL_GS_BASE, 0x2222_0000),
        (msr::IA32_FRED_CONFIG, handler & !0xfff),
    ]);
    let five_levels = if start.map.five_levels { cr4::LA57 } else { 0 };
    if start.cr4 & cr4::CET != 0 {
        msrs.extend([
            (msr::IA32_S_CET, start.s_cet),
            (msr::IA32_PL0_SSP, 0x3000),
            (msr::IA32_INTERRUPT_SSP_TABLE, 0x4000),
        ]);
    }
    let control = Control {
        cr0: cr0::PE | cr0::PG | cr0::WP | start.cr0,
        cr3: memory.root | start.pcid,
        cr4: cr4::PAE | cr4::MCE | five_levels | start.cr4,
        efer: efer::SCE | efer::LME | efer::LMA | efer::NXE,
        pkru: start.keys,
        pkrs: start.keys,
        alignment_check: start.flags & 1 << 18 != 0,
        msrs,
        tdx: start.tdx,
        phys_bits: 52,
    };
    let processor = Processor {
        control,
        gdtr: TableRegister { base: gdt_at, limit: 0x47 },
        idtr: TableRegister { base: idt_at, limit: 0x1ff },
        tr: if start.no_tss { (0, 0) } else { (TSS_SELECTOR, tss_at) },
        ldtr: if start.no_tss { 0 } else { LDT_SELECTOR },
        selectors: [DATA_SELECTOR, CODE_SELECTOR, DATA_SELECTOR, 0, DATA_SELECTOR, 0],
        flags: start.flags,
        dr7: 0x401,
    };
    Machine::new(memory, processor)
}

/// A kernel with an image that is ready.
pub(crate) struct Kernel {
    pub(crate) machine: Machine,
    pub(crate) prepared: Prepared,
}

impl Kernel {
    /// Loads `pages` at the start of the image's place, and prepares.
    pub(crate) fn new(start: &Start, mode: Mode, pages: &[Vec<u8>]) -> Self {
        let mut machine = machine(start);
        let cpu = machine.run(|| {
            // SAFETY: what is privileged in it is applied to the model.
            unsafe { Cpu::read() }
        });
        let cpu = cpu.unwrap_or_else(|stopped| panic!("{stopped}"));
        let memory_map = machine.memory.memory_map();
        let destination = machine.memory.image(0, pages.len() as u64);
        let mut slots = [Segment::EMPTY; 2];
        let mut image = Image::new(&mut slots, &memory_map, mode);
        image.add(destination).unwrap();
        for (page, bytes) in pages.iter().enumerate() {
            let at = PhysAddr::new(destination.start.as_u64() + page as u64 * PAGE_SIZE);
            image.write(&mut machine.memory, at, bytes).unwrap();
        }
        let plan = Plan { cpu, firmware: &start.firmware, console: None, physical_memory: None };
        let options = Options::new(EntryState::at(destination.start));
        let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::R); 64];
        let prepared = image.prepare(&mut machine.memory, &plan, &options, &mut mappings).unwrap();
        machine.code = prepared.code_frames();
        machine.garbage = Some(0xdead_0000_beef_0000);
        Self { machine, prepared }
    }

    /// Calls the image.
    pub(crate) fn jump(&mut self) -> Result<Result<VirtAddr, Refused>, Stopped> {
        let prepared = &mut self.prepared;
        self.machine.run(|| {
            // SAFETY: what is privileged is applied to the model; what is written is RAM of the model, to which nothing refers.
            unsafe { prepared.jump() }
        })
    }

    /// Calls the image, which returns; gives the next entry point.
    #[track_caller]
    pub(crate) fn round(&mut self) -> u64 {
        match self.jump() {
            Ok(Ok(next)) => next.as_u64(),
            Ok(Err(refused)) => panic!("{refused}"),
            Err(stopped) => panic!("{stopped}"),
        }
    }

    /// Replaces the kernel; the registers at the `ud2` of the new one.
    #[track_caller]
    pub(crate) fn replace(&mut self) -> crate::operands::Gregs {
        let prepared = &mut self.prepared;
        let stopped = self.machine.run(|| {
            // SAFETY: as in `jump`.
            unsafe { prepared.execute() }
        });
        match stopped {
            Err(Stopped::Kernel(gregs)) => *gregs,
            Err(stopped) => panic!("{stopped}"),
            Ok(refused) => panic!("{refused}"),
        }
    }

    /// Where a byte of the image goes.
    pub(crate) fn image_at(&self, offset: u64) -> u64 {
        self.machine.memory.image(0, 1).start.as_u64() + offset
    }

    /// Where the pages of the image are while the kernel runs, in order.
    pub(crate) fn sources(&self) -> Vec<PhysRange> {
        let entries = Entries::new(&self.machine.memory, self.prepared.head());
        let mut sources = Vec::new();
        for entry in entries {
            if let Item::Source { frame, pages } = entry.unwrap().entry.decode() {
                let first = frame.start();
                sources.extend(
                    PhysRange::from_len(first, pages * PAGE_SIZE).unwrap().frames().map(|f| f.range()),
                );
            }
        }
        sources
    }

    /// All of RAM, but for the frames that a transition may change: data frames, and sources.
    pub(crate) fn untouched(&self) -> Vec<(PhysAddr, Vec<u8>)> {
        let changing: Vec<PhysRange> =
            self.prepared.data_frames().iter().map(|frame| frame.range()).chain(self.sources()).collect();
        let frames = self.machine.memory.ram.frames().map(|frame| frame.range());
        frames
            .filter(|range| !changing.contains(range))
            .map(|range| (range.start, self.machine.memory.bytes(range)))
            .collect()
    }

    /// The bytes of the engine in the code frame.
    pub(crate) fn engine(&self) -> Vec<u8> {
        let start = self.machine.code.start.as_u64() + self.machine.engine_offset;
        let range = PhysRange::from_len(PhysAddr::new(start), ENGINE.used() as u64).unwrap();
        self.machine.memory.bytes(range)
    }

    /// Moves the copy of the engine, over part of the piece behind it, and what points to it: as prepared, it lies at the start
    /// of the code frame.
    pub(crate) fn move_engine(&mut self, by: u64) {
        let code = self.machine.code.start.as_u64();
        let engine = self.engine();
        for (n, byte) in engine.iter().enumerate() {
            // SAFETY: in the code frame, to which nothing refers.
            unsafe { ((code + by) as *mut u8).add(n).write(*byte) };
        }
        let control = self.prepared.data_frames()[0].start().as_u64();
        let mut moved = 0;
        for label in ["identity", "reenter"] {
            let old = code + ENGINE.find(label).unwrap() as u64;
            let slots = (0..256).map(|word| control + word * 8);
            for slot in slots.filter(|slot| self.machine.memory.read(*slot) == old).collect::<Vec<_>>() {
                self.machine.memory.write(slot, old + by);
                moved += 1;
            }
        }
        assert_eq!(moved, 2, "the control block names both labels once");
        self.machine.engine_offset = by;
    }
}
