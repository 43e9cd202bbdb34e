//! The kubelet's lists, made from the node's listing the moment it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use vgpu_kubelet_plugin::DeviceList;
use vgpu_node::listing::{Listing, Slot};
use vgpu_node::{Node, ResourceName};

use crate::resource::device_list;

/// One list a resource.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    last: Mutex<Last>,
    /// Counts changes of the set of resources.
    pub(crate) resources: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Last {
    slots: Arc<Listing>,
    senders: BTreeMap<ResourceName, watch::Sender<DeviceList>>,
}

impl Lists {
    /// Follows a node. The list of an allocated id is changed before Allocate is answered.
    pub(crate) fn follow(node: &Arc<Node>) -> Arc<Self> {
        let lists = Arc::new(Self::default());
        let (follower, followed) = (lists.clone(), Arc::downgrade(node));
        node.on_change(move || {
            if let Some(node) = followed.upgrade() {
                follower.update(&node);
            }
        });
        lists.update(node);
        lists
    }

    /// The list of a resource; empty and closed if there is none.
    pub(crate) fn of(&self, resource: &ResourceName) -> watch::Receiver<DeviceList> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.senders.entry(resource.clone()).or_default().subscribe()
    }

    /// Sends every list once more. The kubelet then writes its checkpoint anew, which else names
    /// deleted pods until the next allocation on the node.
    pub(crate) fn send_again(&self) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.senders.values().for_each(|sender| sender.send_modify(|_| {}));
    }

    /// The resources that are served now.
    pub(crate) fn names(&self) -> Vec<ResourceName> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.slots.keys().cloned().collect()
    }

    fn update(&self, node: &Node) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: of two changes at once, the older list must not be sent last.
        let listing = node.listing();
        let before = std::mem::replace(&mut last.slots, listing.clone());
        for (resource, slots) in listing.iter() {
            let same = |old: &Arc<[Slot]>| Arc::ptr_eq(old, slots) || old == slots;
            if !before.get(resource).is_some_and(same) {
                send(last.senders.entry(resource.clone()).or_default(), resource, slots);
            }
        }
        let same = before.keys().eq(listing.keys());
        drop(last);
        if !same {
            self.resources.send_modify(|changes| *changes += 1);
        }
    }
}

fn send(sender: &watch::Sender<DeviceList>, resource: &ResourceName, slots: &[Slot]) {
    match device_list(slots) {
        Ok(list) => drop(sender.send_replace(list)),
        Err(error) => {
            tracing::error!(%resource, %error, "the kubelet keeps the list it has");
        }
    }
}
