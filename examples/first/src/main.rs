//! The first kernel.
//!
//! `bootloader` starts it with a bundle as its ramdisk: a tar archive whose files say what to run next.
#![no_std]
#![no_main]

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};
use tar_no_std::TarArchiveRef;
use x86_64::instructions::{hlt, port::Port};

entry_point!(main);

fn main(info: &'static mut BootInfo) -> ! {
    let mut console = Com1;
    let _ = writeln!(console, "first: hello");
    if let Some(address) = info.ramdisk_addr.into_option() {
        // SAFETY: the boot loader mapped the ramdisk there, for good, and nothing else refers to it.
        let bundle = unsafe { core::slice::from_raw_parts(address as *const u8, info.ramdisk_len as usize) };
        if let Ok(bundle) = TarArchiveRef::new(bundle) {
            for file in bundle.entries() {
                let name = file.filename();
                let _ = writeln!(console, "first: bundle {} {}", name.as_str().unwrap_or("?"), file.size());
            }
        }
    }
    exit(0x10)
}

/// COM1, as the firmware left it.
struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: COM1's line status and transmit registers; no memory is touched.
            unsafe {
                while Port::<u8>::new(0x3fd).read() & 0x20 == 0 {}
                Port::new(0x3f8).write(byte);
            }
        }
        Ok(())
    }
}

/// Leaves QEMU through isa-debug-exit; QEMU's exit status is `2 * code + 1`.
fn exit(code: u32) -> ! {
    // SAFETY: the port is isa-debug-exit's, or nobody's.
    unsafe { Port::new(0xf4).write(code) };
    loop {
        hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let _ = writeln!(Com1, "first: {info}");
    exit(0x11)
}
