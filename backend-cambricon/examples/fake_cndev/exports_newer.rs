//! Functions that 3.9 does not have; a scenario of that release answers "not supported".

use crate::abi::{HealthV2, Incident, LinkV2, MemoryV2, Pcie, Repair, SmluSet, VERSION};
use crate::events::{self, Set};
use crate::exports::{address, link};
use crate::ffi::{answer, array, get, put, readers, versioned};
use crate::scenario::Era;
use crate::world;
use crate::{abi, smlu};

readers! {
    bare cndevGetMemoryUsageV2 -> MemoryV2 = |here| {
        world::era(here.era, Era::V4_0)?;
        Ok(MemoryV2 {
            total: here.card.memory_mib.cast_signed(),
            used: here.state.used_mib.cast_signed(),
            reserved: here.card.reserved_mib.cast_signed(),
            virtual_total: 1 << 30,
            virtual_used: 0,
            global: 0,
            spare: [0; 16],
        })
    };
    bare cndevGetPCIeInfoV2 -> Pcie = |here| {
        world::era(here.era, Era::V4_0)?;
        let [domain, bus, device, function] = address(&here)?;
        Ok(Pcie {
            subsystem: 0,
            device_id: here.card.pci_device_id,
            vendor: 0xcabc,
            subsystem_vendor: 0xcabc,
            domain,
            bus,
            device,
            function,
            module: 0,
            slot: 0,
            spare: [0; 8],
        })
    };
    bare cndevGetCardHealthStateV2 -> HealthV2 = |here| {
        world::era(here.era, Era::V4_0)?;
        let told = &here.state.incidents;
        Ok(HealthV2 {
            health: i32::from(here.state.good),
            device: i32::from(here.state.good),
            driver: here.state.driver_state,
            overall: here.state.overall,
            count: u32::try_from(told.len()).unwrap_or(u32::MAX),
            incidents: std::array::from_fn(|at| match told.get(at) {
                Some(i) => incident(i.system, i.result, i.code, &i.text),
                None => incident(0, 0, 0, ""),
            }),
            spare: [0; 8],
        })
    };
    versioned cndevGetRepairStatus -> Repair = |here| {
        world::era(here.era, Era::V4_0)?;
        Ok(Repair {
            version: VERSION,
            retire_pending: 0,
            pending: u8::from(here.state.repair_pending),
            failure: u8::from(here.state.repair_failed),
        })
    };
}

fn incident(system: i32, health: i32, code: i32, text: &str) -> Incident {
    Incident {
        system,
        health,
        text: array(text, text.len() < 512),
        device_id: 0,
        bdf: 0,
        code,
        category: 0,
        severity: 0,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetDriverVersion(
    major: *mut u32,
    minor: *mut u32,
    build: *mut u32,
) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        let driver = world::with("cndevGetDriverVersion", |_, state| Ok(state.driver))?;
        for (to, value) in [major, minor, build].into_iter().zip(driver) {
            // SAFETY: `to` is null or writable.
            unsafe { put(to, value) }?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevDeviceGetMinorNumber(to: *mut u32, device: i32) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        let function = "cndevDeviceGetMinorNumber";
        let minor = world::on(function, device, false, |here| Ok(here.card.minor))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, minor) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetMLULinkStatusV2(to: *mut LinkV2, device: i32, port: i32) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        link("cndevGetMLULinkStatusV2", device, port)?;
        let up = LinkV2 { mac: 1, serdes: 1, presence: 1, progress: 100, spare: [0; 7] };
        // SAFETY: `to` is null or writable.
        unsafe { put(to, up) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevUpdateSMluInstanceQuotaByHandle(
    instance: i32,
    size: *mut SmluSet,
) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        // SAFETY: `size` is null or readable.
        unsafe { versioned(size) }?;
        // SAFETY: `size` is not null, since it was read.
        let size = unsafe { get(size) }?;
        let function = "cndevUpdateSMluInstanceQuotaByHandle";
        world::on_instance(function, instance, true, |here, id| {
            smlu::update(here, id, size.percent, size.memory)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevGetSupportedEventTypes(to: *mut u64, device: i32) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        world::on("cndevGetSupportedEventTypes", device, false, |_| Ok(()))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, 1) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevEventHandleCreate(to: *mut Set) -> i32 {
    answer(|| {
        world::since(Era::V4_0)?;
        let set =
            world::with("cndevEventHandleCreate", |_, state| Ok(events::create(state.starts)))?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, set) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cndevEventHandleDestroy(set: Set) -> i32 {
    answer(|| events::destroy(set))
}

#[unsafe(no_mangle)]
extern "C" fn cndevRegisterEvents(set: Set, types: u64, device: i32) -> i32 {
    answer(|| {
        let function = "cndevRegisterEvents";
        let index = world::on(function, device, false, |here| Ok(here.index))?;
        events::register(set, index, types)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cndevEventWait(set: Set, to: *mut abi::EventData, milliseconds: i32) -> i32 {
    answer(|| {
        // SAFETY: `to` is null or readable.
        unsafe { versioned(to) }?;
        let event = events::wait(set, milliseconds)?;
        // SAFETY: `to` is null or writable.
        unsafe { put(to, event) }
    })
}
