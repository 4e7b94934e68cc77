//! Descriptor tables, judged by those of the crate x86_64.
#![cfg(target_arch = "x86_64")]

use kexec_exception::entry::stub;
use kexec_exception::{Gate, Gdt, Handler, Idt, Tables, TrapFrame, Tss, Vector};
use proptest::prelude::*;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, VirtAddr};

struct Kernel;

impl Handler for Kernel {
    const IST: &'static [(Vector, u8)] =
        &[(Vector::NMI, 1), (Vector::DOUBLE_FAULT, 2), (Vector::MACHINE_CHECK, 2), (Vector(0xff), 7)];
    fn handle(_frame: &mut TrapFrame) {}
}

/// The bytes of a value without padding.
fn bytes<T>(value: &T) -> &[u8] {
    // SAFETY: used for types whose bytes are all initialised.
    unsafe { std::slice::from_raw_parts((value as *const T).cast(), size_of::<T>()) }
}

fn leak<T>(value: T) -> &'static mut T {
    Box::leak(Box::new(value))
}

fn canonical() -> impl Strategy<Value = u64> {
    any::<u64>().prop_map(|address| VirtAddr::new_truncate(address).as_u64())
}

proptest! {
    #[test]
    fn a_gate_is_laid_out_as_x86_64_does_it(offset in canonical(), ist in 1..=7_u8, dpl in 0..=3_u8) {
        let mut theirs = InterruptDescriptorTable::new();
        // SAFETY: the table is never loaded.
        unsafe {
            theirs.breakpoint
                .set_handler_addr(VirtAddr::new(offset))
                .set_privilege_level(PrivilegeLevel::from_u16(dpl.into()))
                .set_stack_index(u16::from(ist) - 1);
        }
        let cs = CS::get_reg().0;
        let ours = Gate::new(offset, cs, ist).with_dpl(dpl);
        prop_assert_eq!(bytes(&ours), bytes(&theirs.breakpoint));
        prop_assert_eq!((ours.offset(), ours.selector(), ours.ist(), ours.dpl(), ours.present()), (offset, cs, ist, dpl, true));
    }
}

#[test]
fn each_gate_leads_to_its_own_stub() {
    let idt = Idt::new::<Kernel>(0x38);
    let mut offsets = Vec::new();
    for vector in (0..=255).map(Vector) {
        let gate = idt[vector];
        let ist = match vector.0 {
            2 => 1,
            8 | 18 => 2,
            255 => 7,
            _ => 0,
        };
        assert_eq!(gate.offset(), stub::<Kernel>(vector) as usize as u64);
        assert_eq!(
            (gate.selector(), gate.ist(), gate.dpl(), gate.present()),
            (0x38, ist, 0, true),
            "{vector}"
        );
        offsets.push(gate.offset());
    }
    offsets.sort_unstable();
    offsets.dedup();
    assert_eq!(offsets.len(), 256);
    assert!((0..=255).all(|vector| !Idt::EMPTY[Vector(vector)].present()));
}

#[test]
fn the_gdt_has_the_segments_and_the_tss_that_x86_64_would_make() {
    let tss = leak(Tss::new());
    let mut theirs = GlobalDescriptorTable::<7>::empty();
    let selectors = [
        theirs.append(Descriptor::kernel_code_segment()),
        theirs.append(Descriptor::kernel_data_segment()),
        theirs.append(Descriptor::user_data_segment()),
        theirs.append(Descriptor::user_code_segment()),
        // SAFETY: the descriptor is never loaded.
        theirs.append(unsafe { Descriptor::tss_segment_unchecked((&raw const *tss).cast()) }),
    ];
    let mut ours = Gdt::new();
    ours.set_tss(tss);
    assert_eq!(
        ours.descriptors().as_slice(),
        theirs.entries().iter().map(|entry| entry.raw()).collect::<Vec<_>>()
    );
    assert_eq!(
        selectors.map(|selector| selector.0),
        [Gdt::KERNEL_CODE, Gdt::KERNEL_DATA, Gdt::USER_DATA, Gdt::USER_CODE, Gdt::TSS]
    );
}

#[test]
fn the_tss_is_laid_out_as_x86_64_does_it() {
    let mut ours = Tss::new();
    let mut theirs = TaskStateSegment::new();
    ours.set_privilege_stack(0xffff_8123_4567_89a0);
    theirs.privilege_stack_table[0] = VirtAddr::new(0xffff_8123_4567_89a0);
    for index in 1..=7 {
        let stack = leak(kexec_exception::Stack::<64>::new());
        let end = (&raw const *stack) as u64 + 64;
        ours.set_ist(index, stack);
        theirs.interrupt_stack_table[usize::from(index) - 1] = VirtAddr::new(end);
        assert_eq!(ours.ist_top(index), end);
        assert!(end.is_multiple_of(16));
    }
    assert_eq!(bytes(&ours), bytes(&theirs));
}

#[test]
fn a_stack_that_a_tss_does_not_have_is_not_set() {
    for index in [0, 8, 255] {
        let mut tss = Tss::new();
        tss.set_ist(index, leak(kexec_exception::Stack::<64>::new()));
        assert_eq!(bytes(&tss), bytes(&Tss::new()));
        assert_eq!(tss.ist_top(index), 0);
    }
}

#[test]
fn tables_tie_their_parts_together() {
    let tables = leak(Tables::<7, 4096>::new()).set_handler::<Kernel>();
    let (start, end) =
        ((&raw const *tables) as u64, (&raw const *tables) as u64 + size_of::<Tables<7, 4096>>() as u64);
    let [.., low, high] = *tables.gdt().descriptors();
    let base = low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32;
    assert_eq!(base, (&raw const *tables.tss()) as u64);
    assert_eq!(tables.idt()[Vector(255)], Idt::new::<Kernel>(Gdt::KERNEL_CODE)[Vector(255)]);
    let mut tops = (1..=7).map(|index| tables.tss().ist_top(index)).collect::<Vec<_>>();
    tops.sort_unstable();
    assert!(tops.iter().all(|top| (start + 4096..=end).contains(top)), "in the tables");
    assert!(tops.windows(2).all(|pair| pair[1] - pair[0] >= 4096), "apart");
}
