//! Three kernels, one power-on: the first, the second, Linux.

use super::linux::Linux;
use super::{Scenario, expect};
use crate::bundle::Content;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![chain(Linux::default()), in_the_way()]
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
