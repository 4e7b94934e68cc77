//! Three kernels, one power-on: the first, the second, Linux.

use super::linux::Linux;
use super::{Scenario, expect};
use crate::bundle::Content;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![chain(Linux::default())]
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
