//! A GDT that cannot be written, with a busy TSS and an LDT: Linux's per-processor GDT is mapped so.

use hobby::Memory;
use identmap::Tables;
use kexec_abi::{Frame, PhysAddr, PhysMemory as _, VirtAddr};
use kexec_exception::gdt::Gdt;
use reloc::Cpu;
use x86_64::instructions::tables::{lgdt, load_tss, sgdt};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

/// The slots of [`Gdt`], then the LDT's two.
const SLOTS: usize = 9;
const LDT: u16 = 0x38;

/// In read-only memory.
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "read by the processor")] [u64; 512]);

static GDT: Page = Page([0; 512]);
static LDT_SLOTS: [u64; 2] = [0; 2];

/// Loads a copy of the GDT in force, read-only, with LDTR and TR from it.
pub fn load_read_only(memory: &mut Memory) {
    let virt = VirtAddr::new(&raw const GDT as u64);
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };
    let live = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
    let translation = live.translate(memory, virt);
    let leaf = translation.leaf().expect("this kernel's data is mapped");
    assert!(!leaf.attributes.writable, "a static without interior mutability lies in read-only memory");
    let frame = translation.frame().expect("this kernel's data is mapped");
    if sgdt().base.as_u64() == virt.as_u64() {
        return;
    }
    let writable = memory.pin(frame).expect("RAM is mapped");
    let now = sgdt();
    // SAFETY: the GDT in force is one of `Gdt`'s, which is mapped.
    let mut slots = unsafe { (now.base.as_u64() as *const [u64; 7]).read() };
    slots[usize::from(Gdt::TSS / 8)] &= !(1 << 41); // not busy
    let base = &raw const LDT_SLOTS as u64;
    // Present, an LDT (SDM Vol. 3A, 3.5).
    let low = (size_of_val(&LDT_SLOTS) as u64 - 1)
        | (base & 0x00ff_ffff) << 16
        | 0x82 << 40
        | (base >> 24 & 0xff) << 56;
    let all = slots.into_iter().chain([low, base >> 32]);
    for (index, slot) in all.enumerate() {
        memory.write_word(frame, index, slot).expect("RAM is mapped");
    }
    let table = |base: VirtAddr| DescriptorTablePointer {
        limit: (SLOTS * 8 - 1) as u16,
        base: x86_64::VirtAddr::new(base.as_u64()),
    };
    // SAFETY: the segments in use are the same in this GDT as in the last one; LTR, which writes, sees it writable.
    unsafe {
        lgdt(&table(writable));
        load_tss(SegmentSelector(Gdt::TSS));
        core::arch::asm!("lldt {0:x}", in(reg) LDT, options(nostack, preserves_flags));
        lgdt(&table(virt));
    }
}
