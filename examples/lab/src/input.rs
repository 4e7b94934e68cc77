//! Lines from COM1.

use x86_64::instructions::port::Port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;

/// What comes before the next newline; bytes that don't fit, or aren't ASCII, are dropped.
pub fn read_line(line: &mut [u8]) -> &str {
    let mut len = 0;
    loop {
        // SAFETY: COM1's line status and receive registers; no memory is touched.
        let byte = unsafe {
            while Port::<u8>::new(LINE_STATUS).read() & 1 == 0 {}
            Port::<u8>::new(DATA).read()
        };
        match byte {
            b'\n' | b'\r' => return core::str::from_utf8(&line[..len]).unwrap_or(""),
            byte if byte.is_ascii() && len < line.len() => {
                line[len] = byte;
                len += 1;
            }
            _ => {}
        }
    }
}
