//! The card's PCI configuration space: a type 0 header (PCI Local Bus Specification 3.0, 6.1), one memory BAR, no interrupt.

/// Bytes in the BAR, and the size that it shows.
pub const BAR_SIZE: u32 = 4096;

const SIZE: usize = 256;

/// Vendor 0x1234 is no member of the PCI SIG's, and what QEMU's own unregistered devices use.
const ID: u32 = 0x8250_1234;
/// Class 07, subclass 00, interface 02: a serial port, a 16550. Revision 1.
const CLASS: u32 = 0x07_00_02_01;

/// Bits that can be written: memory space and bus master of the command register, the BAR's address, the interrupt line
/// (which firmware notes down also where there is no interrupt pin).
const WRITABLE: [(usize, u32); 3] = [(0x04, 0x0000_0006), (0x10, !(BAR_SIZE - 1)), (0x3c, 0x0000_00ff)];

/// The 256 bytes.
pub struct ConfigSpace([u8; SIZE]);

impl ConfigSpace {
    /// As after a reset.
    pub fn new() -> Self {
        let mut bytes = [0; SIZE];
        bytes[0x00..0x04].copy_from_slice(&ID.to_le_bytes());
        bytes[0x08..0x0c].copy_from_slice(&CLASS.to_le_bytes());
        bytes[0x2c..0x30].copy_from_slice(&ID.to_le_bytes());
        Self(bytes)
    }

    /// Reads; bytes beyond the end are zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        data.iter_mut().zip(self.0.iter().skip(offset as usize)).for_each(|(to, from)| *to = *from);
    }

    /// Writes what can be written.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for ((at, to), from) in self.0.iter_mut().enumerate().skip(offset as usize).zip(data) {
            let register = WRITABLE.iter().find(|(register, _)| *register == at & !3);
            let mask = register.map_or(0, |(_, mask)| mask.to_le_bytes()[at & 3]);
            *to = *to & !mask | from & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(space: &ConfigSpace, offset: u64) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn it_is_a_16550_with_one_memory_bar_of_4_kib() {
        let mut space = ConfigSpace::new();
        assert_eq!(word(&space, 0x08) >> 8, 0x07_00_02);
        space.write(0x10, &u32::MAX.to_le_bytes());
        assert_eq!(word(&space, 0x10), 0xffff_f000);
        space.write(0x10, &0xfebf_1000_u32.to_le_bytes());
        assert_eq!(word(&space, 0x10), 0xfebf_1000);
        for other in [0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] {
            space.write(other, &u32::MAX.to_le_bytes());
            assert_eq!(word(&space, other), 0);
        }
    }

    #[test]
    fn identity_stays_and_memory_decoding_can_be_switched_by_single_bytes() {
        let mut space = ConfigSpace::new();
        space.write(0x00, &[0xa5; 4]);
        space.write(0x08, &[0xa5; 4]);
        assert_eq!((word(&space, 0x00), word(&space, 0x08)), (ID, CLASS));
        space.write(0x04, &[0xff]);
        assert_eq!(word(&space, 0x04), 0x0006);
    }

    #[test]
    fn accesses_beyond_the_end_are_harmless() {
        let mut space = ConfigSpace::new();
        space.write(0xfe, &[0xff; 8]);
        space.write(u64::MAX, &[0xff]);
        let mut data = [0xa5; 8];
        space.read(0xfc, &mut data);
        assert_eq!(data, [0; 8]);
    }
}
