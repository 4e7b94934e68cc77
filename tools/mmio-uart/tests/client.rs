//! The card as a client of vfio-user sees it: `vfio_user`'s own, over a real socket.

use std::path::Path;
use std::time::{Duration, Instant};

use mmio_uart::{Counts, Width, serve};
use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_user::Client;

fn connect(path: &Path) -> Client {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no socket at {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
    Client::new(path).unwrap()
}

#[test]
fn a_driver_that_finds_the_card_and_writes_words_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (mut heard, mut log) = (Vec::new(), Vec::new());
    let counts = std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&path, Width::Word, &mut heard, &mut log));
        let mut client = connect(&path);
        let mut class = [0; 3];
        client.region_read(VFIO_PCI_CONFIG_REGION_INDEX, 9, &mut class).unwrap();
        assert_eq!(class, [0x02, 0x00, 0x07]);
        assert_eq!(client.region(VFIO_PCI_BAR0_REGION_INDEX).unwrap().size, 4096);
        client.region_write(VFIO_PCI_BAR0_REGION_INDEX, 7, &[0x55]).unwrap();
        for byte in *b"hello" {
            let mut status = [0; 4];
            client.region_read(VFIO_PCI_BAR0_REGION_INDEX, 0x14, &mut status).unwrap();
            assert_eq!(status, [0x60, 0, 0, 0]);
            client.region_write(VFIO_PCI_BAR0_REGION_INDEX, 0, &[byte, 0, 0, 0]).unwrap();
        }
        client.region_write(VFIO_PCI_BAR0_REGION_INDEX, 0, b"x").unwrap();
        client.shutdown().unwrap();
        drop(client);
        server.join().unwrap().unwrap()
    });
    assert_eq!(heard, b"hello");
    assert_eq!(counts, Counts { right: 10, firmware: 1, wrong: 1, heard: 5 });
    assert_eq!(String::from_utf8(log).unwrap().lines().count(), 12);
    assert!(!path.exists());
}
