//! Every check by name, with its severity; `docs/doctor.md` has the reasons.

use crate::doctor::finding::Severity::{self, Error, Note, Ok, Warning};
use crate::doctor::finding::Topic::{self, Agent, Cards, Cdi, Hami, Host, Plugins, Runtime};

/// A check. In the order of the documentation; a name once given is never used for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumIter))]
pub(crate) enum Check {
    Fine(Topic),
    Unreadable,
    Damaged,

    PluginSocket,
    PluginResource,
    PluginHolds,
    DraDriver,
    OtherPlugin,
    AmdPlugin,
    DeadSocket,

    NvidiaByDefault,
    NvidiaByName,
    CdiOff,
    CdiDirUnread,
    RuntimeTooOld,
    CdiUnknown,
    DockerDefault,
    OciHook,
    NvidiaPrivileged,

    OtherSpec,
    StraySpec,
    SpecMissing,
    TwoSpecs,
    SharedNode,
    NotCompared,

    VendorBroken,
    CardLost,
    CardUnread,
    ForeignPart,
    OrphanPart,
    CardUnfit,
    CardDoubtful,
    ForeignMps,
    UnknownMps,

    HamiPreload,
    HamiFiles,
    HamiContainers,
    HamiLock,

    CgroupV1,
    CgroupNoLimits,
    NoCgroup,
    NoDmem,
    NoLibrary,
    LibraryDiffers,
    NoNode,
    OtherDriver,
    NodeClosed,
    HidePid,
    NoBootId,
    NotRoot,
    HookMissing,
    HookNotRunnable,
    HookDynamic,
    HookUnknown,
    StateLost,
    ReadOnly,
    LittleRoom,
    NoKubeletFolder,
    NoKubelet,
    NoPodResources,
    HookVersion,

    NoAgent,
    AgentSilent,
    AgentVersion,
    OffersKept,
    NotRegistered,
    ClaimBroken,
    ClaimTrouble,
    TwoAgents,
    TwoInstances,
}

/// What is known of a check beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) topic: Topic,
}

impl Check {
    /// Its name, severity and topic.
    #[rustfmt::skip]
    pub(crate) const fn row(self) -> Row {
        let (id, severity, topic) = match self {
            Self::Fine(topic) => (fine(topic), Ok, topic),
            // Of whichever topic reads.
            Self::Unreadable => ("DOC-READ-1", Warning, Host),
            Self::Damaged => ("DOC-READ-2", Warning, Host),

            Self::PluginSocket => ("DOC-PLUG-1", Error, Plugins),
            Self::PluginResource => ("DOC-PLUG-2", Error, Plugins),
            Self::PluginHolds => ("DOC-PLUG-3", Error, Plugins),
            Self::DraDriver => ("DOC-PLUG-4", Warning, Plugins),
            Self::OtherPlugin => ("DOC-PLUG-5", Note, Plugins),
            Self::AmdPlugin => ("DOC-PLUG-6", Warning, Plugins),
            Self::DeadSocket => ("DOC-PLUG-7", Note, Plugins),

            Self::NvidiaByDefault => ("DOC-RUN-1", Error, Runtime),
            Self::NvidiaByName => ("DOC-RUN-2", Warning, Runtime),
            Self::CdiOff => ("DOC-RUN-3", Error, Runtime),
            Self::CdiDirUnread => ("DOC-RUN-4", Error, Runtime),
            Self::RuntimeTooOld => ("DOC-RUN-5", Error, Runtime),
            Self::CdiUnknown => ("DOC-RUN-6", Note, Runtime),
            Self::DockerDefault => ("DOC-RUN-7", Warning, Runtime),
            Self::OciHook => ("DOC-RUN-8", Warning, Runtime),
            Self::NvidiaPrivileged => ("DOC-RUN-9", Note, Runtime),

            Self::OtherSpec => ("DOC-CDI-1", Note, Cdi),
            Self::StraySpec => ("DOC-CDI-2", Warning, Cdi),
            Self::SpecMissing => ("DOC-CDI-3", Warning, Cdi),
            Self::TwoSpecs => ("DOC-CDI-4", Error, Cdi),
            Self::SharedNode => ("DOC-CDI-5", Warning, Cdi),
            Self::NotCompared => ("DOC-CDI-6", Note, Cdi),

            Self::VendorBroken => ("DOC-CARD-1", Error, Cards),
            Self::CardLost => ("DOC-CARD-2", Error, Cards),
            Self::CardUnread => ("DOC-CARD-3", Warning, Cards),
            Self::ForeignPart => ("DOC-CARD-4", Warning, Cards),
            Self::OrphanPart => ("DOC-CARD-5", Warning, Cards),
            Self::CardUnfit => ("DOC-CARD-6", Error, Cards),
            Self::CardDoubtful => ("DOC-CARD-7", Warning, Cards),
            Self::ForeignMps => ("DOC-CARD-8", Warning, Cards),
            Self::UnknownMps => ("DOC-CARD-9", Note, Cards),

            Self::HamiPreload => ("DOC-HAMI-1", Error, Hami),
            Self::HamiFiles => ("DOC-HAMI-2", Warning, Hami),
            Self::HamiContainers => ("DOC-HAMI-3", Warning, Hami),
            Self::HamiLock => ("DOC-HAMI-4", Note, Hami),

            Self::CgroupV1 => ("DOC-HOST-1", Note, Host),
            Self::CgroupNoLimits => ("DOC-HOST-2", Warning, Host),
            Self::NoCgroup => ("DOC-HOST-3", Warning, Host),
            Self::NoDmem => ("DOC-HOST-4", Note, Host),
            Self::NoLibrary => ("DOC-HOST-5", Error, Host),
            Self::LibraryDiffers => ("DOC-HOST-6", Error, Host),
            Self::NoNode => ("DOC-HOST-7", Error, Host),
            Self::OtherDriver => ("DOC-HOST-8", Warning, Host),
            Self::NodeClosed => ("DOC-HOST-9", Warning, Host),
            Self::HidePid => ("DOC-HOST-10", Warning, Host),
            Self::NoBootId => ("DOC-HOST-11", Error, Host),
            Self::NotRoot => ("DOC-HOST-12", Note, Host),
            Self::HookMissing => ("DOC-HOST-13", Error, Host),
            Self::HookNotRunnable => ("DOC-HOST-14", Error, Host),
            Self::HookDynamic => ("DOC-HOST-15", Warning, Host),
            Self::HookUnknown => ("DOC-HOST-16", Note, Host),
            Self::StateLost => ("DOC-HOST-17", Error, Host),
            Self::ReadOnly => ("DOC-HOST-18", Error, Host),
            Self::LittleRoom => ("DOC-HOST-19", Warning, Host),
            Self::NoKubeletFolder => ("DOC-HOST-20", Error, Host),
            Self::NoKubelet => ("DOC-HOST-21", Warning, Host),
            Self::NoPodResources => ("DOC-HOST-22", Error, Host),
            Self::HookVersion => ("DOC-HOST-23", Warning, Host),

            Self::NoAgent => ("DOC-AGENT-1", Note, Agent),
            Self::AgentSilent => ("DOC-AGENT-2", Warning, Agent),
            Self::AgentVersion => ("DOC-AGENT-3", Warning, Agent),
            Self::OffersKept => ("DOC-AGENT-4", Warning, Agent),
            Self::NotRegistered => ("DOC-AGENT-5", Warning, Agent),
            Self::ClaimBroken => ("DOC-AGENT-6", Error, Agent),
            Self::ClaimTrouble => ("DOC-AGENT-7", Warning, Agent),
            Self::TwoAgents => ("DOC-AGENT-8", Error, Agent),
            Self::TwoInstances => ("DOC-AGENT-9", Warning, Agent),
        };
        Row { id, severity, topic }
    }
}

const fn fine(topic: Topic) -> &'static str {
    match topic {
        Plugins => "DOC-PLUG-0",
        Runtime => "DOC-RUN-0",
        Cdi => "DOC-CDI-0",
        Cards => "DOC-CARD-0",
        Hami => "DOC-HAMI-0",
        Host => "DOC-HOST-0",
        Agent => "DOC-AGENT-0",
    }
}
