//! The functions that are looked up, by name: what every libcndev has, what some have, and what newer ones took
//! the place of.

use std::fmt::{self, Debug};

use vgpu_backend_kit::{Finder, Lacks, Optional, Required};

use crate::bindings::*;
use crate::sys::{Reader, Unmaker};

macro_rules! functions {
    (
        required { $($r:ident: $rt:ty = $rn:literal;)* }
        optional { $($o:ident: $ot:ty = $on:literal;)* }
        older { $($f:ident: $ft:ty = $fn:literal;)* }
    ) => {
        /// The functions of a loaded libcndev.
        pub(crate) struct Table {
            $(pub(crate) $r: Required<$rt>,)*
            $(pub(crate) $o: Optional<$ot>,)*
            $(pub(crate) $f: Optional<$ft>,)*
            missing: Vec<&'static str>,
        }

        impl Table {
            /// Finds them all, or names the first that every libcndev has and this library has not.
            pub(crate) fn find(finder: &mut Finder<'_>) -> Result<Self, Lacks> {
                Ok(Self {
                    $($r: finder.required($rn)?,)*
                    $($o: finder.optional($on),)*
                    // What a newer function took the place of is not missed.
                    $($f: finder.superseded($fn),)*
                    missing: finder.missing(),
                })
            }
        }
    };
}

functions! {
    required {
        init: cndevInit_fn = "cndevInit";
        device_count: cndevGetDeviceCount_fn = "cndevGetDeviceCount";
        handle_by_index: cndevGetDeviceHandleByIndex_fn = "cndevGetDeviceHandleByIndex";
        uuid: Reader<cndevUUID_t> = "cndevGetUUID";
    }
    optional {
        release: cndevRelease_fn = "cndevRelease";
        driver_version: cndevGetDriverVersion_fn = "cndevGetDriverVersion";
        versions: Reader<cndevVersionInfo_t> = "cndevGetVersionInfo";
        handle_by_pci: cndevGetDeviceHandleByPciBusId_fn = "cndevGetDeviceHandleByPciBusId";
        minor: cndevDeviceGetMinorNumber_fn = "cndevDeviceGetMinorNumber";
        name: cndevGetCardNameStringByDevId_fn = "cndevGetCardNameStringByDevId";
        pci: Reader<cndevPCIeInfoV2_t> = "cndevGetPCIeInfoV2";
        numa: Reader<cndevNUMANodeId_t> = "cndevGetNUMANodeIdByDevId";
        core_count: Reader<cndevCardCoreCount_t> = "cndevGetCoreCount";
        cluster_count: Reader<cndevCardCoreCount_t> = "cndevGetClusterCount";
        memory: Reader<cndevMemoryInfoV2_t> = "cndevGetMemoryUsageV2";
        utilization: Reader<cndevUtilizationInfo_t> = "cndevGetDeviceUtilizationInfo";
        processes: cndevGetProcessInfo_fn = "cndevGetProcessInfo";
        health_v1: Reader<cndevCardHealthState_t> = "cndevGetCardHealthState";
        health: Reader<cndevCardHealthStateV2_t> = "cndevGetCardHealthStateV2";
        heartbeat: Reader<cndevCardHeartbeatCount_t> = "cndevGetCardHeartbeatCount";
        compute_mode: Reader<cndevComputeMode_t> = "cndevGetComputeMode";
        ecc: Reader<cndevMemEccCounter_t> = "cndevGetMemEccCounter";
        repair: Reader<cndevRepairStatus_t> = "cndevGetRepairStatus";
        event_create: cndevEventHandleCreate_fn = "cndevEventHandleCreate";
        event_destroy: cndevEventHandleDestroy_fn = "cndevEventHandleDestroy";
        event_register: cndevRegisterEvents_fn = "cndevRegisterEvents";
        event_wait: cndevEventWait_fn = "cndevEventWait";
        event_types: cndevGetSupportedEventTypes_fn = "cndevGetSupportedEventTypes";
        relation: cndevTopologyGetRelationship_fn = "cndevTopologyGetRelationship";
        link_ports: cndevGetMLULinkPortNumber_fn = "cndevGetMLULinkPortNumber";
        link_status: cndevGetMLULinkStatusV2_fn = "cndevGetMLULinkStatusV2";
        link_remote: cndevGetMLULinkRemoteInfo_fn = "cndevGetMLULinkRemoteInfo";
        mim_mode: Reader<cndevMimMode_t> = "cndevGetMimMode";
        set_mim_mode: Reader<cndevMimMode_t> = "cndevSetMimMode";
        mim_profile: cndevGetMluInstanceProfileInfo_fn = "cndevGetMluInstanceProfileInfo";
        mim_placements: cndevGetMluInstancePossiblePlacements_fn = "cndevGetMluInstancePossiblePlacements";
        mim_most: cndevGetMaxMluInstanceCount_fn = "cndevGetMaxMluInstanceCount";
        create_mim: cndevCreateMluInstanceByProfileIdWithPlacement_fn =
            "cndevCreateMluInstanceByProfileIdWithPlacement";
        destroy_mim: Unmaker = "cndevDestroyMluInstanceByHandle";
        mim_info: Reader<cndevMluInstanceInfo_t> = "cndevGetMluInstanceInfo";
        mim_list: cndevGetAllMluInstanceInfo_fn = "cndevGetAllMluInstanceInfo";
        smlu_mode: Reader<cndevSMLUMode_t> = "cndevGetSMLUMode";
        set_smlu_mode: Reader<cndevSMLUMode_t> = "cndevSetSMLUMode";
        smlu_profile_ids: Reader<cndevSMluProfileIdInfo_t> = "cndevGetSMluProfileIdInfo";
        smlu_profile: cndevGetSMluProfileInfo_fn = "cndevGetSMluProfileInfo";
        create_smlu_profile: cndevCreateSMluProfileInfo_fn = "cndevCreateSMluProfileInfo";
        destroy_smlu_profile: cndevDestroySMluProfileInfo_fn = "cndevDestroySMluProfileInfo";
        create_smlu: cndevCreateSMluInstanceByProfileId_fn = "cndevCreateSMluInstanceByProfileId";
        destroy_smlu: Unmaker = "cndevDestroySMluInstanceByHandle";
        smlu_info: Reader<cndevSMluInfo_t> = "cndevGetSMluInstanceInfo";
        smlu_list: cndevGetAllSMluInstanceInfo_fn = "cndevGetAllSMluInstanceInfo";
        update_smlu: cndevUpdateSMluInstanceQuotaByHandle_fn = "cndevUpdateSMluInstanceQuotaByHandle";
    }
    older {
        memory_v1: Reader<cndevMemoryInfo_t> = "cndevGetMemoryUsage";
        link_status_v1: cndevGetMLULinkStatus_fn = "cndevGetMLULinkStatus";
    }
}

impl Table {
    /// The optional functions that are not there, sorted.
    pub(crate) fn missing(&self) -> &[&'static str] {
        &self.missing
    }
}

impl Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("missing", &self.missing).finish_non_exhaustive()
    }
}
