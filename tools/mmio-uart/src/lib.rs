//! A PCI card with a memory-mapped 16550, which no QEMU has, for its `vfio-user-pci` (10.1 and later).
//!
//! Class 07/00/02, one memory BAR of 4 KiB, registers 4 bytes apart. It answers to accesses of one width alone, records each
//! access with its width and alignment, and tells in the end whether any was wrong.

mod config_space;
mod port;

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use config_space::{BAR_SIZE, ConfigSpace};
use port::Port;
pub use port::{Counts, Width};

/// Serves the card at the socket `path` to one client, until that goes. What the port hears goes to `heard`, a line for each
/// access to `log`.
pub fn serve(path: &Path, width: Width, heard: impl Write, log: impl Write) -> anyhow::Result<Counts> {
    let server = Server::new(path, true, no_interrupts(), regions())
        .with_context(|| format!("cannot listen at {}", path.display()))?;
    let mut card = Card { config_space: ConfigSpace::new(), port: Port::new(width, heard, log) };
    // A client that is killed in the middle of a message ends the connection too.
    if let Err(error) = server.run(&mut card) {
        eprintln!("mmio-uart: {error}");
    }
    card.port.flush()?;
    Ok(card.port.counts())
}

struct Card<H: Write, L> {
    config_space: ConfigSpace,
    port: Port<H, L>,
}

impl<H: Write, L: Write> ServerBackend for Card<H, L> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.config_space.read(offset, data),
            VFIO_PCI_BAR0_REGION_INDEX => self.port.read(offset, data)?,
            _ => data.fill(0xff),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        match region {
            VFIO_PCI_CONFIG_REGION_INDEX => self.config_space.write(offset, data),
            VFIO_PCI_BAR0_REGION_INDEX => self.port.write(offset, data)?,
            _ => {}
        }
        Ok(())
    }

    fn dma_map(&mut self, _: DmaMapFlags, _: u64, _: u64, _: u64, _: Option<File>) -> std::io::Result<()> {
        Ok(()) // the card never reads the guest's memory
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> std::io::Result<()> {
        self.config_space = ConfigSpace::new();
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> std::io::Result<()> {
        Ok(())
    }
}

fn regions() -> Vec<ServerRegion> {
    let size = |index| match index {
        VFIO_PCI_BAR0_REGION_INDEX => BAR_SIZE,
        VFIO_PCI_CONFIG_REGION_INDEX => 256,
        _ => 0,
    };
    let region = |index| ServerRegion {
        region_info: vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            index,
            size: u64::from(size(index)),
            flags: if size(index) == 0 {
                0
            } else {
                VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
            },
            ..Default::default()
        },
        sparse_areas: Vec::new(),
        mmap_fd: None, // so that each access comes as a message
    };
    (0..VFIO_PCI_NUM_REGIONS).map(region).collect()
}

fn no_interrupts() -> Vec<IrqInfo> {
    (0..VFIO_PCI_NUM_IRQS).map(|index| IrqInfo { index, count: 0, flags: 0 }).collect()
}
