//! No text makes the readers of sizes, UPIDs, vmids, tags and configuration keys panic, and what was read is written so
//! that it is read equal.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use pve_client::answers::{DiskSlot, IpConfigSlot, MountSlot, NetSlot, Retention};
use pve_client::{Size, Tags, Upid, Vmid};

fn holds<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string().parse::<T>().expect("what was written is read"), read);
    }
}

fuzz_target!(|text: &str| {
    holds::<Size>(text);
    holds::<Upid>(text);
    holds::<Vmid>(text);
    holds::<Tags>(text);
    holds::<Retention>(text);
    holds::<DiskSlot>(text);
    holds::<MountSlot>(text);
    holds::<NetSlot>(text);
    holds::<IpConfigSlot>(text);
});
