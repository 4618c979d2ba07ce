//! No text makes a reader of property strings panic, and what was read is written so that it is read equal.

#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use pve_client::property::{
    Agent, Boot, ContainerNic, CreationMeta, Drive, Features, IpConfig, IpSetting, MacAddr, Memory,
    MountPoint, Nic, Property, PropertyString, Smbios, Startup, Volume,
};

/// `Display` of what was read gives a text that is read equal, also where single options are odd.
fn leniently<T: Property + PartialEq + Debug>(text: &str) {
    if let Ok(read) = T::read_leniently(text) {
        let written = read.0.to_string();
        assert_eq!(T::read_leniently(&written).as_ref(), Ok(&read));
        assert_eq!(written, read.0.options().to_string());
    }
}

fn strictly<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(read) = text.parse::<T>() {
        assert_eq!(read.to_string().parse::<T>().expect("what was written is read"), read);
    }
}

fuzz_target!(|text: &str| {
    strictly::<PropertyString>(text);
    leniently::<Agent>(text);
    leniently::<Boot>(text);
    leniently::<ContainerNic>(text);
    leniently::<CreationMeta>(text);
    leniently::<Drive>(text);
    leniently::<Features>(text);
    leniently::<IpConfig>(text);
    leniently::<Memory>(text);
    leniently::<MountPoint>(text);
    leniently::<Nic>(text);
    leniently::<Smbios>(text);
    leniently::<Startup>(text);
    strictly::<Drive>(text);
    strictly::<MountPoint>(text);
    strictly::<Nic>(text);
    strictly::<ContainerNic>(text);
    strictly::<IpConfig>(text);
    strictly::<IpSetting>(text);
    strictly::<MacAddr>(text);
    strictly::<Volume>(text);
    if let Ok(drive) = text.parse::<Drive>() {
        drive.is_cdrom();
        drive.is_cloud_init();
    }
});
