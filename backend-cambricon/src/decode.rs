//! From the library's structures to plain data: every string is scanned to its array's end at most, every number
//! checked for what it can be. No call is made here.

use std::ffi::c_char;
use std::mem::size_of;

use crate::api::{
    CardHealth, CndevFailure, EccCounters, Incident, MemoryInfo, MimInstance, MimProfile, PciInfo,
    Process, Quota, Relation, Repair, SmluInstance, SmluProfile,
};
use crate::bindings::*;
use crate::symbols::malformed;

// The sizes of the tables, which the compiler that read our header has not seen.
const _: () = {
    assert!(size_of::<cndevCardInfo_t>() == 8);
    assert!(size_of::<cndevUUID_t>() == 56);
    assert!(size_of::<cndevMemoryInfo_t>() == 216);
    assert!(size_of::<cndevMemoryInfoV2_t>() == 176);
    assert!(size_of::<cndevVersionInfo_t>() == 28);
    assert!(size_of::<cndevPCIeInfoV2_t>() == 64);
    assert!(size_of::<cndevUtilizationInfo_t>() == 328);
    assert!(size_of::<cndevProcessInfo_t>() == 24);
    assert!(size_of::<cndevMemEccCounter_t>() == 160);
    assert!(size_of::<cndevRepairStatus_t>() == 8);
    assert!(size_of::<cndevCardHealthState_t>() == 16);
    assert!(size_of::<cndevIncidentInfo_t>() == 540);
    assert!(size_of::<cndevCardHealthStateV2_t>() == 34612);
    assert!(size_of::<cndevMLULinkStatus_t>() == 16);
    assert!(size_of::<cndevMLULinkStatusV2_t>() == 44);
    assert!(size_of::<cndevMLULinkRemoteInfo_t>() == 376);
    assert!(size_of::<cndevMluInstancePlacement_t>() == 12);
    assert!(size_of::<cndevMluInstanceProfileInfo_t>() == 128);
    assert!(size_of::<cndevMluInstanceInfo_t>() == 1016);
    assert!(size_of::<cndevSMluSet_t>() == 16);
    assert!(size_of::<cndevSMluInfo_t>() == 904);
    assert!(size_of::<cndevSMluProfileIdInfo_t>() == 520);
    assert!(size_of::<cndevSMluProfileInfo_t>() == 144);
    assert!(size_of::<cndevEventData_t>() == 104);
};

type Answer<T> = Result<T, CndevFailure>;

const MIB: u64 = 1 << 20;
/// What the vendor calls itself on the PCI bus.
const VENDOR: u16 = 0xcabc;

/// A UUID: 36 characters, which an old library does not end.
pub(crate) fn uuid(call: &'static str, bytes: &[u8]) -> Answer<String> {
    let text = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let fine = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    // The last byte of the array is the end's, so that a text that fills all of it is 36 characters too.
    let text = &text[..text.len().min(36)];
    if text.is_empty() || !text.iter().all(fine) {
        let shown = String::from_utf8_lossy(text).into_owned();
        return Err(malformed(call, format!("{shown:?} as a UUID")));
    }
    Ok(text.iter().map(|b| char::from(*b)).collect())
}

/// A string of a fixed array; one without an end is malformed.
pub(crate) fn text(call: &'static str, array: &[c_char]) -> Answer<String> {
    vgpu_backend_kit::text(array).map_err(|endless| malformed(call, endless.to_string()))
}

pub(crate) fn flag(call: &'static str, what: &str, value: i32) -> Answer<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(malformed(call, format!("{other} as {what}, which is 0 or 1"))),
    }
}

/// A number that is not below 0.
pub(crate) fn count(call: &'static str, what: &str, value: i64) -> Answer<u32> {
    u32::try_from(value).map_err(|_out| malformed(call, format!("{value} {what}")))
}

pub(crate) fn pci(call: &'static str, pci: &cndevPCIeInfoV2_t) -> Answer<PciInfo> {
    if pci.vendor != VENDOR || pci.bus > 0xff || pci.device > 0x1f || pci.function > 7 {
        let (vendor, bus) = (pci.vendor, pci.bus);
        return Err(malformed(call, format!("a PCI function {vendor:04x} on bus {bus:#x}")));
    }
    let (domain, bus, device, function) = (pci.domain, pci.bus, pci.device, pci.function);
    Ok(PciInfo {
        address: format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"),
        vendor: pci.vendor,
        device_id: pci.deviceId,
    })
}

/// Total, reserved and used in MiB.
pub(crate) fn memory(
    call: &'static str,
    total: i64,
    reserved: Option<i64>,
    used: i64,
) -> Answer<MemoryInfo> {
    let bytes = |what: &str, mib: i64| {
        // A petabyte is more than any card has.
        u64::try_from(mib)
            .ok()
            .filter(|mib| *mib <= 1 << 30)
            .map(|mib| mib * MIB)
            .ok_or_else(|| malformed(call, format!("{mib} MiB of {what} memory")))
    };
    Ok(MemoryInfo {
        total: bytes("all", total)?,
        reserved: reserved.map(|mib| bytes("reserved", mib)).transpose()?,
        used: bytes("used", used)?,
    })
}

pub(crate) fn process(process: &cndevProcessInfo_t) -> Process {
    Process { pid: process.pid, used: process.physicalMemoryUsed.saturating_mul(1024) }
}

/// `None` for the same card twice, or a number that no public word explains.
pub(crate) fn relation(relation: i32) -> Option<Relation> {
    match relation {
        1 => Some(Relation::Internal),
        2 => Some(Relation::Single),
        3 => Some(Relation::Multiple),
        4 => Some(Relation::HostBridge),
        5 => Some(Relation::Cpu),
        6 => Some(Relation::System),
        _ => None,
    }
}

pub(crate) fn health_v1(health: &cndevCardHealthState_t) -> CardHealth {
    CardHealth {
        good: health.health != 0,
        driver_state: health.driverState,
        overall: None,
        incidents: Vec::new(),
    }
}

pub(crate) fn health(call: &'static str, health: &cndevCardHealthStateV2_t) -> Answer<CardHealth> {
    let incidents = health
        .incidents
        .get(..health.incident_count as usize)
        .ok_or_else(|| malformed(call, format!("{} incidents", health.incident_count)))?;
    Ok(CardHealth {
        good: health.health != 0,
        driver_state: health.driverState,
        overall: Some(health.overallHealth),
        incidents: incidents.iter().map(incident).collect(),
    })
}

/// An incident's text is for people: one without an end is cut, not refused.
fn incident(incident: &cndevIncidentInfo_t) -> Incident {
    let bytes: Vec<u8> =
        incident.error.msg.iter().map(|c| c.to_ne_bytes()[0]).take_while(|b| *b != 0).collect();
    Incident {
        system: incident.system,
        result: incident.health,
        code: incident.error.code,
        text: String::from_utf8_lossy(&bytes).chars().take(200).collect(),
    }
}

pub(crate) fn ecc(ecc: &cndevMemEccCounter_t) -> EccCounters {
    let uncorrected = u64::from(ecc.volatileSramEccDbeCounter)
        + u64::from(ecc.volatileSramEccParityCounter)
        + u64::from(ecc.volatileDramEccDbeCounter);
    EccCounters { uncorrected, threshold_exceeded: ecc.aggregateSramEccThresholdExceeded != 0 }
}

pub(crate) fn repair(repair: &cndevRepairStatus_t) -> Repair {
    Repair {
        pending: repair.isRetirePending != 0 || repair.isPending != 0,
        failed: repair.isFailure != 0,
    }
}

pub(crate) fn mim_profile(
    call: &'static str,
    profile: &cndevMluInstanceProfileInfo_t,
) -> Answer<MimProfile> {
    Ok(MimProfile {
        id: profile.profileId,
        name: text(call, &profile.name)?,
        cores: count(call, "cores", profile.mluCoreCount.into())?,
        memory: count(call, "units of memory", profile.memorySize.into())?.into(),
    })
}

pub(crate) fn place(call: &'static str, at: &cndevMluInstancePlacement_t) -> Answer<(u32, u32)> {
    let place =
        (count(call, "as a start", at.start.into())?, count(call, "slices", at.size.into())?);
    // Far more slices than any card has.
    if place.1 == 0 || place.0 > 4096 || place.1 > 4096 {
        return Err(malformed(call, format!("{} slices from {}", place.1, place.0)));
    }
    Ok(place)
}

pub(crate) fn mim_instance(
    call: &'static str,
    info: &cndevMluInstanceInfo_t,
) -> Answer<MimInstance> {
    Ok(MimInstance {
        id: info.instanceId,
        uuid: uuid(call, &info.uuid)?,
        name: text(call, &info.instanceName)?,
        profile: info.profileId,
        place: place(call, &info.placement)?,
        node: text(call, &info.devNodeName)?,
        ipcm_node: text(call, &info.ipcmDevNodeName)?,
    })
}

pub(crate) fn smlu_profile(
    call: &'static str,
    profile: &cndevSMluProfileInfo_t,
) -> Answer<SmluProfile> {
    const MAX: usize = VGPU_CNDEV_SMLU_MAX as usize;
    Ok(SmluProfile {
        id: profile.profileId,
        name: text(call, &profile.name)?,
        quota: quota(call, profile.mluQuota[MAX], profile.memorySize[MAX])?,
    })
}

pub(crate) fn smlu_instance(call: &'static str, info: &cndevSMluInfo_t) -> Answer<SmluInstance> {
    const MAX: usize = VGPU_CNDEV_SMLU_MAX as usize;
    const USAGE: usize = VGPU_CNDEV_SMLU_USAGE as usize;
    Ok(SmluInstance {
        id: info.instanceId,
        uuid: uuid(call, &info.uuid)?,
        name: text(call, &info.instanceName)?,
        profile: info.profileId,
        quota: quota(call, info.mluQuota[MAX], info.memorySize[MAX])?,
        used: Quota { percent: info.mluQuota[USAGE], memory: info.memorySize[USAGE] },
        node: text(call, &info.devNodeName)?,
    })
}

fn quota(call: &'static str, percent: u32, memory: u64) -> Answer<Quota> {
    // Less than a MiB, or more than a petabyte, is a unit misread.
    if percent > 100 || !(MIB..=MIB << 30).contains(&memory) {
        return Err(malformed(call, format!("a quota of {percent} % and {memory} bytes")));
    }
    Ok(Quota { percent, memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "cndevGetUUID";

    #[test]
    fn a_uuid_needs_no_end_and_is_never_more_than_36_characters() {
        let bytes = *b"6f3c1a52-0d7e-4b7a-9c11-0a1b2c3d4e5fZ";
        assert_eq!(uuid(CALL, &bytes).expect("read"), "6f3c1a52-0d7e-4b7a-9c11-0a1b2c3d4e5f");
        assert_eq!(uuid(CALL, b"ab-1\0junk").expect("read"), "ab-1");
        for bad in [&b""[..], b"\0", b"a/b", b"\xff\xfe", b"a b"] {
            assert!(uuid(CALL, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn units_that_are_mixed_up_are_refused() {
        // Bytes where MiB belong, MiB where bytes belong, a step of 256 MiB as a percent.
        assert!(memory("m", 48 << 30, Some(0), 0).is_err());
        assert!(memory("m", 48 << 10, Some(-1), 0).is_err());
        assert!(quota("q", 10, 4096).is_err());
        assert!(quota("q", 256, 4096 * MIB).is_err());
        assert!(quota("q", 10, 4096 * MIB).is_ok());
    }

    #[test]
    fn strings_without_an_end_are_malformed() {
        assert!(text("t", &[65_i8; 100]).is_err());
        let mut ended = [65_i8; 100];
        ended[99] = 0;
        assert_eq!(text("t", &ended).expect("read").len(), 99);
    }
}
