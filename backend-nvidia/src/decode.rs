//! C values of NVML as plain data, and what cannot be refused.

use crate::api::{ComputeProcess, LinkEnd, NvmlFailure};
use crate::bindings::*;
use crate::symbols::malformed;

pub(crate) const EMPTY_PCI: nvmlPciInfo_t = nvmlPciInfo_t {
    busIdLegacy: [0; 16],
    domain: 0,
    bus: 0,
    device: 0,
    pciDeviceId: 0,
    pciSubSystemId: 0,
    busId: [0; 32],
};

pub(crate) const EMPTY_PROCESS: nvmlProcessInfo_t = nvmlProcessInfo_t {
    pid: 0,
    usedGpuMemory: u64::MAX,
    gpuInstanceId: VGPU_NVML_NO_INSTANCE,
    computeInstanceId: VGPU_NVML_NO_INSTANCE,
};

/// The kernel's form of an address; the function is always 0 on these cards and has no field of its own.
pub(crate) fn pci_address(call: &'static str, pci: &nvmlPciInfo_t) -> Result<String, NvmlFailure> {
    let (domain, bus, device) = (pci.domain, pci.bus, pci.device);
    if bus > 0xff || device > 0x1f {
        return Err(malformed(call, format!("PCI bus {bus:#x}, device {device:#x}")));
    }
    Ok(format!("{domain:04x}:{bus:02x}:{device:02x}.0"))
}

pub(crate) fn process(raw: &nvmlProcessInfo_t) -> ComputeProcess {
    ComputeProcess {
        pid: raw.pid,
        used: (raw.usedGpuMemory != u64::MAX).then_some(raw.usedGpuMemory),
        gpu_instance: instance(raw.gpuInstanceId),
        compute_instance: instance(raw.computeInstanceId),
    }
}

pub(crate) fn link_end(kind: u32) -> LinkEnd {
    match kind {
        0 => LinkEnd::Gpu,
        1 => LinkEnd::Npu,
        2 => LinkEnd::Switch,
        _ => LinkEnd::Unknown,
    }
}

pub(crate) fn instance(id: u32) -> Option<u32> {
    (id != VGPU_NVML_NO_INSTANCE).then_some(id)
}

pub(crate) fn flag(call: &'static str, what: &str, value: u32) -> Result<bool, NvmlFailure> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(malformed(call, format!("{what} is {other}, neither 0 nor 1"))),
    }
}

/// A field's value, given the union's `bits`; below 0 and fractions are refused.
pub(crate) fn whole_number(
    call: &'static str,
    field: &nvmlFieldValue_t,
    bits: u64,
) -> Result<u64, NvmlFailure> {
    let wide = bits.to_ne_bytes();
    let signed = match field.valueType {
        VGPU_NVML_VALUE_UNSIGNED_SHORT => i64::from(u16::from_ne_bytes([wide[0], wide[1]])),
        VGPU_NVML_VALUE_UNSIGNED_INT => {
            i64::from(u32::from_ne_bytes([wide[0], wide[1], wide[2], wide[3]]))
        }
        VGPU_NVML_VALUE_SIGNED_INT => {
            i64::from(i32::from_ne_bytes([wide[0], wide[1], wide[2], wide[3]]))
        }
        VGPU_NVML_VALUE_UNSIGNED_LONG | VGPU_NVML_VALUE_UNSIGNED_LONG_LONG => return Ok(bits),
        VGPU_NVML_VALUE_SIGNED_LONG_LONG => i64::from_ne_bytes(wide),
        other => return Err(malformed(call, format!("field {} has type {other}", field.fieldId))),
    };
    u64::try_from(signed)
        .map_err(|_below| malformed(call, format!("field {} is {signed}", field.fieldId)))
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, size_of};

    use nvml_wrapper_sys::bindings as theirs;

    use super::*;

    #[test]
    fn layouts_agree_with_the_vendors_header() {
        fn same<A, B>() {
            let (ours, theirs) = (std::any::type_name::<A>(), std::any::type_name::<B>());
            assert_eq!(size_of::<A>(), size_of::<B>(), "{ours} and {theirs}");
            assert_eq!(align_of::<A>(), align_of::<B>(), "{ours} and {theirs}");
        }
        same::<nvmlEventData_t, theirs::nvmlEventData_t>();
        same::<nvmlFieldValue_t, theirs::nvmlFieldValue_t>();
        same::<nvmlMemory_t, theirs::nvmlMemory_t>();
        same::<nvmlPciInfo_t, theirs::nvmlPciInfo_t>();
        same::<nvmlProcessInfo_t, theirs::nvmlProcessInfo_t>();
    }

    #[test]
    fn fields_are_read_by_their_type() {
        let read = |kind, bits: u64| {
            let field = nvmlFieldValue_t {
                fieldId: 230,
                scopeId: 0,
                timestamp: 0,
                latencyUsec: 0,
                valueType: kind,
                nvmlReturn: 0,
                value: nvmlValue_t { ullVal: bits },
            };
            whole_number("call", &field, bits).ok()
        };
        let junk_above = 0xdead_beef_0000_0003_u64;
        assert_eq!(read(VGPU_NVML_VALUE_UNSIGNED_INT, junk_above), Some(3));
        assert_eq!(read(VGPU_NVML_VALUE_UNSIGNED_SHORT, junk_above), Some(3));
        assert_eq!(read(VGPU_NVML_VALUE_UNSIGNED_LONG_LONG, junk_above), Some(junk_above));
        assert_eq!(read(VGPU_NVML_VALUE_SIGNED_INT, u64::MAX), None, "below 0");
        assert_eq!(read(VGPU_NVML_VALUE_DOUBLE, 1), None, "not whole");
        assert_eq!(read(77, 1), None, "a type of tomorrow");
    }

    #[test]
    fn addresses_are_the_kernels() {
        let at = |domain, bus, device| {
            pci_address("call", &nvmlPciInfo_t { domain, bus, device, ..EMPTY_PCI }).ok()
        };
        assert_eq!(at(0, 0x1b, 0).as_deref(), Some("0000:1b:00.0"));
        assert_eq!(at(0x1_0000, 0xff, 0x1f).as_deref(), Some("10000:ff:1f.0"));
        assert_eq!(at(0, 0x100, 0), None);
        assert_eq!(at(0, 0, 0x20), None);
    }
}
