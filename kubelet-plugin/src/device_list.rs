use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;

use crate::pb::device_plugin as pb;

/// The kubelet's gRPC client takes no larger message; one that is larger ends the stream and the resource is at 0.
pub const KUBELET_MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// One device of a resource as the kubelet sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Stable over restarts and reboots; the kubelet keeps it in its checkpoint for as long as a pod holds the device.
    pub id: String,
    /// Whether the kubelet may give it away.
    pub health: DeviceHealth,
    /// NUMA nodes near the device; none if unknown (never −1).
    pub numa: Vec<u32>,
}

impl DeviceEntry {
    /// A healthy device with no NUMA node.
    #[must_use]
    pub fn healthy(id: impl Into<String>) -> Self {
        Self { id: id.into(), health: DeviceHealth::Healthy, numa: Vec::new() }
    }

    /// An unhealthy device with no NUMA node.
    #[must_use]
    pub fn unhealthy(id: impl Into<String>) -> Self {
        Self { id: id.into(), health: DeviceHealth::Unhealthy, numa: Vec::new() }
    }
}

/// What the kubelet knows about a device's health; it has no third word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceHealth {
    /// May be given to a pod.
    Healthy,
    /// Counts in the node's capacity and not in what is allocatable; a pod that holds it keeps it.
    Unhealthy,
}

impl DeviceHealth {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// All devices of one resource: unique ids, and small enough for the kubelet to read.
///
/// Cloning is cheap. The default is the empty list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceList(Arc<[DeviceEntry]>);

impl DeviceList {
    /// Checks a list.
    ///
    /// # Errors
    ///
    /// [`DeviceListError`] for an empty or repeated id, and for a list over [`KUBELET_MESSAGE_LIMIT`] once encoded
    /// (about 60 000 devices).
    pub fn new(entries: Vec<DeviceEntry>) -> Result<Self, DeviceListError> {
        let mut seen = HashSet::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if entry.id.is_empty() {
                return Err(DeviceListError::EmptyId { index });
            }
            if !seen.insert(entry.id.as_str()) {
                return Err(DeviceListError::RepeatedId { id: entry.id.clone() });
            }
        }
        let list = Self(entries.into());
        let bytes = list.to_message().encoded_len();
        if bytes > KUBELET_MESSAGE_LIMIT {
            return Err(DeviceListError::TooLarge { devices: list.0.len(), bytes });
        }
        Ok(list)
    }

    /// The devices, in the order given.
    #[must_use]
    pub fn entries(&self) -> &[DeviceEntry] {
        &self.0
    }

    /// How many devices are healthy: what the node reports as allocatable.
    #[must_use]
    pub fn healthy(&self) -> usize {
        self.0.iter().filter(|entry| entry.health == DeviceHealth::Healthy).count()
    }

    /// Whether it is the very list, not merely an equal one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a device that an earlier list had to give is not to be given any more.
    pub(crate) fn gives_less_than(&self, before: &Self) -> bool {
        if self.is(before) {
            return false;
        }
        let healthy = |e: &&DeviceEntry| e.health == DeviceHealth::Healthy;
        // Nearly always the same ids in the same order.
        if self.0.len() == before.0.len()
            && self.0.iter().zip(&*before.0).all(|(a, b)| a.id == b.id)
        {
            let mut pairs = self.0.iter().zip(&*before.0);
            return pairs.any(|(now, then)| healthy(&then) && !healthy(&now));
        }
        let now: HashSet<&str> = self.0.iter().filter(healthy).map(|e| e.id.as_str()).collect();
        before.0.iter().filter(healthy).any(|e| !now.contains(e.id.as_str()))
    }

    pub(crate) fn to_message(&self) -> pb::ListAndWatchResponse {
        pb::ListAndWatchResponse { devices: self.0.iter().map(device).collect() }
    }
}

/// A list that the kubelet would misread or refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceListError {
    /// A device without an id.
    #[error("device {index} of the list has an empty id; give each device a stable id")]
    EmptyId {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// Two devices with one id; the kubelet would count them once.
    #[error("the list names device {id:?} twice; ids must be unique within a resource")]
    RepeatedId {
        /// The id.
        id: String,
    },
    /// More than the kubelet reads.
    #[error(
        "a list of {devices} devices takes {bytes} bytes and the kubelet reads at most {KUBELET_MESSAGE_LIMIT}; \
         advertise fewer devices (larger units) or shorter ids"
    )]
    TooLarge {
        /// How many devices.
        devices: usize,
        /// Their size on the wire.
        bytes: usize,
    },
}

fn device(entry: &DeviceEntry) -> pb::Device {
    // A topology with no nodes makes the kubelet drop the device from what it tells others.
    let topology = (!entry.numa.is_empty()).then(|| pb::TopologyInfo {
        nodes: entry.numa.iter().map(|node| pb::NumaNode { id: i64::from(*node) }).collect(),
    });
    pb::Device { id: entry.id.clone(), health: entry.health.as_str().to_owned(), topology }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_numa_has_no_topology_at_all() {
        let mut near = DeviceEntry::healthy("b");
        near.numa = vec![1];
        let message =
            DeviceList::new(vec![DeviceEntry::unhealthy("a"), near]).unwrap().to_message();
        assert_eq!(message.devices[0].topology, None);
        assert_eq!(message.devices[0].health, "Unhealthy");
        assert_eq!(message.devices[1].topology.as_ref().unwrap().nodes[0].id, 1);
    }

    #[test]
    fn only_what_is_lost_makes_a_list_give_less() {
        let list = |entries: &[(&str, bool)]| {
            let entry = |(id, healthy): &(&str, bool)| match healthy {
                true => DeviceEntry::healthy(*id),
                false => DeviceEntry::unhealthy(*id),
            };
            DeviceList::new(entries.iter().map(entry).collect()).unwrap()
        };
        let before = list(&[("a", true), ("b", false)]);
        assert!(before.is(&before.clone()) && !before.gives_less_than(&before.clone()));
        for (entries, less) in [
            (&[("a", true), ("b", false)][..], false),
            (&[("a", true), ("b", true)], false),
            (&[("b", true), ("a", true)], false),
            (&[("a", true), ("b", false), ("c", true)], false),
            (&[("a", true)], false),
            (&[("a", false), ("b", false)], true),
            (&[("b", true), ("a", false)], true),
            (&[("b", false)], true),
        ] {
            assert_eq!(list(entries).gives_less_than(&before), less, "{entries:?}");
        }
    }

    #[test]
    fn bad_lists_are_refused() {
        let empty = DeviceList::new(vec![DeviceEntry::healthy("")]).unwrap_err();
        assert_eq!(empty, DeviceListError::EmptyId { index: 0 });
        let twice = vec![DeviceEntry::healthy("a"), DeviceEntry::unhealthy("a")];
        let twice = DeviceList::new(twice).unwrap_err();
        assert_eq!(twice, DeviceListError::RepeatedId { id: "a".to_owned() });
    }

    #[test]
    fn the_limit_is_the_kubelets_to_the_byte() {
        // Tag and length of the device and of its id are 1 + 4 bytes at this size; the health takes 1 + 1 + 7.
        let longest = KUBELET_MESSAGE_LIMIT - 5 - 5 - 9;
        let list = DeviceList::new(vec![DeviceEntry::healthy("x".repeat(longest))]).unwrap();
        assert_eq!(list.to_message().encoded_len(), KUBELET_MESSAGE_LIMIT);
        let over = DeviceEntry::healthy("x".repeat(longest + 1));
        let error = DeviceList::new(vec![over]).unwrap_err();
        let bytes = KUBELET_MESSAGE_LIMIT + 1;
        assert_eq!(error, DeviceListError::TooLarge { devices: 1, bytes });
    }

    #[test]
    fn sixty_thousand_units_fit() {
        let id = |n| format!("GPU-01234567-89ab-cdef-0123-456789abcdef::1Gi.{n}");
        assert!(
            DeviceList::new((0..60_000).map(|n| DeviceEntry::healthy(id(n))).collect()).is_ok()
        );
        let many = (0..80_000).map(|n| DeviceEntry::healthy(id(n))).collect();
        assert!(matches!(DeviceList::new(many), Err(DeviceListError::TooLarge { .. })));
    }
}
