//! What is built, on requests that were chosen by hand.

mod common;

use common::Machine;
use identmap::{Attributes, Mapping, Options, Plan};
use kexec_abi::{PhysAddr, PhysRange, VirtAddr};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

#[test]
fn a_small_map_maps_what_it_should() {
    let mut machine = Machine::with_frames(0x100_0000, 64);
    let mut mappings = [
        Mapping::identity(range(0, 0x9f000), Attributes::RWX),
        Mapping::identity(range(0x10_0000, 0x8000_0000), Attributes::RWX),
        Mapping::identity(range(0x20_0000, 0x20_1000), Attributes::RX).with_priority(1),
        Mapping::alias(VirtAddr::new(0xffff_8000_0000_0000), range(0x20_0000, 0x20_1000), Attributes::RX),
    ];
    let plan = Plan::new(&mut mappings, &Options { giant_pages: true, ..Options::default() }).unwrap();
    let map = plan.build(&mut machine).unwrap();
    println!("{}", map.tables().drawing(&machine));
    println!("{}", map.tables().translate(&machine, VirtAddr::new(0x20_0123)));
    assert_eq!(map.tables().census(&machine).unwrap(), *plan.census());
    assert_eq!(plan.frames(), machine.given.len() as u64);
    map.free(&mut machine).unwrap();
    assert_eq!(machine.given.len(), 0);
}
