//! Vectors, error codes and registers in words, beside the manuals' tables.

use kexec_exception::error_code::{ControlProtectionErrorCode, DescriptorTable};
use kexec_exception::{Cr0, Cr4, Efer, ErrorCode, PageFaultErrorCode, RFlags, SelectorErrorCode, Vector};
use proptest::prelude::*;

/// Intel SDM volume 3, table 7-1; AMD APM volume 2, table 8-1 for 28 to 30. With `e`: an error code.
const MANUAL: &str = "0 #DE|1 #DB|2 NMI|3 #BP|4 #OF|5 #BR|6 #UD|7 #NM|8 #DF e|10 #TS e|11 #NP e|12 #SS e|13 #GP e|14 #PF e|16 #MF|\
    17 #AC e|18 #MC|19 #XM|20 #VE|21 #CP e|28 #HV|29 #VC e|30 #SX e";

#[test]
fn vectors_have_the_manuals_mnemonics_and_error_codes() {
    let rows: Vec<Vec<&str>> = MANUAL.split('|').map(|row| row.split(' ').collect()).collect();
    for number in 0..=255_u8 {
        let row = rows.iter().find(|row| row[0] == number.to_string());
        let vector = Vector(number);
        assert_eq!(vector.mnemonic(), row.map(|row| row[1]), "{number}");
        assert_eq!(vector.has_error_code(), row.is_some_and(|row| row.len() == 3), "{number}");
        assert_eq!(ErrorCode::new(vector, 0).is_some(), vector.has_error_code());
        match row {
            Some(row) => assert_eq!(vector.to_string(), format!("{} {}", row[1], vector.name())),
            None => assert_eq!(vector.to_string(), if number < 32 { "reserved" } else { "interrupt" }),
        }
    }
}

#[test]
fn page_fault_error_codes_in_words() {
    for (code, words) in [
        (0x0, "read by the supervisor, page not present"),
        (0x2, "write by the supervisor, page not present"),
        (0x3, "write by the supervisor, not permitted"),
        (0x7, "write by user code, not permitted"),
        (0x11, "fetch by the supervisor, not permitted"),
        (0x14, "fetch by user code, page not present"),
        (0x9, "read by the supervisor, not permitted, reserved bit set"),
        (0x25, "read by user code, not permitted, protection key"),
        (0x43, "write of the shadow stack by the supervisor, not permitted"),
        (0x81, "read by the supervisor, not permitted, HLAT"),
        (0x8005, "read by user code, not permitted, SGX"),
        (0x8000_0003, "write by the supervisor, not permitted, RMP"),
    ] {
        assert_eq!(ErrorCode::new(Vector::PAGE_FAULT, code).unwrap().to_string(), words, "{code:#x}");
    }
}

#[test]
fn selector_error_codes_in_words() {
    for (code, words) in [
        (0x0, "no selector"),
        (0x1, "no selector, external event"),
        (0x28, "GDT selector 0x0028"),
        (0x2c, "LDT selector 0x002c"),
        (0x72, "IDT gate 14, #PF page fault"),
        (0x103, "IDT gate 32, interrupt, external event"),
        (0xfffa, "IDT gate 8191"),
        (0x76, "IDT gate 14, #PF page fault"), // with IDT set, TI is ignored
    ] {
        for vector in [
            Vector::INVALID_TSS,
            Vector::SEGMENT_NOT_PRESENT,
            Vector::STACK_SEGMENT,
            Vector::GENERAL_PROTECTION,
        ] {
            assert_eq!(ErrorCode::new(vector, code).unwrap().to_string(), words, "{code:#x}");
        }
    }
}

#[test]
fn the_other_error_codes_in_words() {
    for (vector, code, words) in [
        (8, 0, "always zero"),
        (17, 0, "always zero"),
        (21, 3, "indirect branch to no ENDBRANCH"),
        (21, 0x8001, "near return against the shadow stack, in an enclave"),
        (21, 9, "unknown cause"),
        (29, 0x72, "VMEXIT code 0x72"),
        (30, 1, "security event 0x1"),
    ] {
        assert_eq!(ErrorCode::new(Vector(vector), code).unwrap().to_string(), words);
    }
    assert_eq!(ControlProtectionErrorCode(2).to_string(), "far return or IRET against the shadow stack");
}

proptest! {
    #[test]
    fn a_selector_error_code_gives_back_what_was_put_in(index in 0..8192_u16, table in 0..4_u64, external: bool) {
        let code = SelectorErrorCode(u64::from(index) << 3 | table << 1 | u64::from(external));
        prop_assert_eq!((code.index(), code.external()), (index, external));
        let expected = [DescriptorTable::Gdt, DescriptorTable::Idt, DescriptorTable::Ldt, DescriptorTable::Idt];
        prop_assert_eq!(code.table(), expected[table as usize]);
    }

    #[test]
    fn no_error_code_is_too_strange_to_print(vector: u8, code: u64) {
        if let Some(error) = ErrorCode::new(Vector(vector), code) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn flags_keep_bits_without_a_name_and_print_the_others(bits: u64) {
        for (kept, words) in [
            (RFlags::from_bits_retain(bits).bits(), RFlags::from_bits_retain(bits).to_string()),
            (Cr0::from_bits_retain(bits).bits(), Cr0::from_bits_retain(bits).to_string()),
            (Cr4::from_bits_retain(bits).bits(), Cr4::from_bits_retain(bits).to_string()),
            (Efer::from_bits_retain(bits).bits(), Efer::from_bits_retain(bits).to_string()),
        ] {
            prop_assert_eq!(kept, bits);
            prop_assert!(!words.is_empty() && !words.contains("  ") && words.trim() == words);
        }
    }
}

#[test]
fn each_bit_has_the_manuals_name() {
    let (rflags, cr0, cr4) = (
        "0 CF|2 PF|4 AF|6 ZF|7 SF|8 TF|9 IF|10 DF|11 OF|14 NT|16 RF|17 VM|18 AC|19 VIF|20 VIP|21 ID",
        "0 PE|1 MP|2 EM|3 TS|4 ET|5 NE|16 WP|18 AM|29 NW|30 CD|31 PG",
        "0 VME|1 PVI|2 TSD|3 DE|4 PSE|5 PAE|6 MCE|7 PGE|8 PCE|9 OSFXSR|10 OSXMMEXCPT|11 UMIP|12 LA57|13 VMXE|14 SMXE|\
         16 FSGSBASE|17 PCIDE|18 OSXSAVE|19 KL|20 SMEP|21 SMAP|22 PKE|23 CET|24 PKS|25 UINTR|27 LASS|28 LAM_SUP|32 FRED",
    );
    let efer = "0 SCE|8 LME|10 LMA|11 NXE|12 SVME|13 LMSLE|14 FFXSR|15 TCE";
    let check = |table: &str, print: &dyn Fn(u64) -> String| {
        for bit in 0..64_u64 {
            let name =
                table.split('|').find_map(|row| row.strip_prefix(&format!("{bit} "))).unwrap_or("none");
            assert_eq!(print(1 << bit), name, "bit {bit} of {table}");
        }
    };
    check(rflags, &|bits| RFlags::from_bits_retain(bits).to_string());
    check(cr0, &|bits| Cr0::from_bits_retain(bits).to_string());
    check(cr4, &|bits| Cr4::from_bits_retain(bits).to_string());
    check(efer, &|bits| Efer::from_bits_retain(bits).to_string());
    assert_eq!(RFlags::from_bits_retain(0x3202).to_string(), "IF IOPL");
}

#[cfg(all(feature = "x86_64_0_15", target_arch = "x86_64"))]
mod x86_64_0_15 {
    use kexec_exception::TrapFrame;
    use x86_64::registers::{control, rflags};
    use x86_64::structures::idt::{self, ExceptionVector, InterruptStackFrameValue};

    use super::*;

    #[test]
    fn named_bits_mean_the_same_in_x86_64() {
        assert_eq!(
            Cr4::from(control::Cr4Flags::L5_PAGING | control::Cr4Flags::PAGE_GLOBAL),
            Cr4::LA57 | Cr4::PGE
        );
        assert_eq!(Cr0::from(control::Cr0Flags::WRITE_PROTECT), Cr0::WP);
        assert_eq!(Efer::from(control::EferFlags::NO_EXECUTE_ENABLE), Efer::NXE);
        assert_eq!(RFlags::from(rflags::RFlags::DIRECTION_FLAG), RFlags::DF);
        assert_eq!(
            PageFaultErrorCode::from(idt::PageFaultErrorCode::RMP | idt::PageFaultErrorCode::SHADOW_STACK),
            PageFaultErrorCode::RMP | PageFaultErrorCode::SS
        );
        assert_eq!(Vector::from(ExceptionVector::Page), Vector::PAGE_FAULT);
        assert_eq!(ExceptionVector::try_from(Vector(14)).unwrap(), ExceptionVector::Page);
        assert!(ExceptionVector::try_from(Vector(32)).is_err());
    }

    proptest! {
        #[test]
        fn flags_go_there_and_back_with_all_bits(bits: u64) {
            prop_assert_eq!(Cr4::from(control::Cr4Flags::from(Cr4::from_bits_retain(bits))).bits(), bits);
            prop_assert_eq!(RFlags::from(rflags::RFlags::from(RFlags::from_bits_retain(bits))).bits(), bits);
        }

        #[test]
        fn a_frame_converts_unless_an_address_is_not_canonical(rip: u64, rsp in 0..1_u64 << 47, cs: u16) {
            let mut frame = TrapFrame::default();
            (frame.rip, frame.rsp, frame.cs, frame.ss, frame.rflags) = (rip, rsp, cs.into(), 0x10, RFlags::ZF);
            let canonical = (rip as i64) << 16 >> 16 == rip as i64;
            let theirs = InterruptStackFrameValue::try_from(&frame);
            prop_assert_eq!(theirs.is_ok(), canonical);
            if let Ok(theirs) = theirs {
                prop_assert_eq!(theirs.instruction_pointer.as_u64(), rip);
                prop_assert_eq!(theirs.stack_pointer.as_u64(), rsp);
                prop_assert_eq!((theirs.code_segment.0, theirs.stack_segment.0), (cs, 0x10));
                prop_assert_eq!(theirs.cpu_flags, rflags::RFlags::ZERO_FLAG);
            }
        }
    }
}
