//! Three kernels, one power-on: the first, the second, Linux.

use super::linux::Linux;
use super::{Scenario, expect};
use crate::bundle::Content;
use crate::qemu::Machine;

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = vec![chain(Linux::default()), in_the_way()];
    all.extend([(5, 4), (4, 5), (5, 5)].map(|(own, next)| levels(own, next)));
    all
}

/// The second kernel with `own` levels of paging, brought up by a kernel with 4: it calls a few instructions with `next`, comes back
/// to its own, and goes on to Linux with `next`.
fn levels(own: u8, next: u8) -> Scenario {
    let linux = Linux::default();
    let bundle = linux.bundle().with("second", Content::Kernel("second".to_owned()));
    let name = format!("chain/linux-with-{next}-levels-from-a-kernel-with-{own}");
    let mut scenario = Scenario::lab(name, &format!("second-levels {own} {next}"))
        .with_bundle(bundle)
        .on(Machine::default().cpu("max,la57=on"))
        .expect("^second: a kernel started by a kernel, ");
    if own != next {
        // Bit 12 of CR4 is LA57.
        let cr4 = |levels| if levels == 5 { "0x1[0-9a-f]{3}" } else { "0x[0-9a-f]{1,3}" };
        let line =
            format!("^second: called with {next} levels: CR4 was {}, and is {} again$", cr4(next), cr4(own));
        scenario = scenario.expect(&line);
    }
    linux.judge(scenario.expect(&format!("^second: plan: mode copy  levels {next} ")))
}

/// The second kernel stands where Linux is to stand: it is overwritten by the list that it walks.
fn in_the_way() -> Scenario {
    let linux = Linux::default();
    let bundle = linux.bundle().with("second", Content::Kernel("second".to_owned()));
    let scenario = Scenario::lab("chain/a-kernel-in-its-successors-place", "second 0x2000000")
        .with_bundle(bundle)
        .expect(r"^second: a kernel started by a kernel, at 0x2000000\.\.")
        .expect(r"^second: plan: segment 0x1000000\.\.0x[3-9][0-9a-f]{6} ");
    linux.judge(scenario)
}

/// The first kernel goes to the second, the second to Linux.
pub(crate) fn chain(linux: Linux) -> Scenario {
    let bundle = linux.bundle().with("second", Content::Kernel("second".to_owned()));
    let scenario = Scenario::boot("chain/three-kernels-one-power-on", "first", bundle)
        .then(expect("^first: "))
        .then(expect("^second: "))
        .limit(90);
    linux.judge(scenario)
}
