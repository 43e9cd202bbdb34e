//! What backends tell of cards and parts.

use vgpu_backend_mock::{Machine, MockFactory, Preset};
use vgpu_core::{
    Error, ErrorKind, Event, Holders, Host, Lost, Meaning, Partition, PartitionId, PartitionState,
    Placement, Scheme, Size, Subject,
};

use crate::backends::Name;
use crate::devices::Found;
use crate::doctor::cards::{self, Vendor, judge};
use crate::doctor::record::Known;

fn vendor(preset: Preset) -> Vendor {
    let machine = Machine::new(preset.spec()).expect("a preset is a machine");
    let factory = MockFactory::combined(&machine);
    cards::ask(Name::Mock, &factory, &Host { root: "/".into(), library: None })
}

fn ids(vendor: &Vendor, known: &Known) -> Vec<&'static str> {
    judge(std::slice::from_ref(vendor), known).iter().map(|finding| finding.id).collect()
}

#[test]
fn sound_cards_without_parts_are_fine() {
    for preset in [Preset::Mixed, Preset::H100x8, Preset::Empty] {
        let vendor = vendor(preset);
        assert_eq!(ids(&vendor, &Known::default()), ["DOC-CARD-0"], "{preset:?}");
        assert_eq!(vendor.health.len(), vendor.found.devices.len(), "each card was checked");
    }
}

#[test]
fn parts_are_of_a_claim_made_ahead_or_foreign() {
    let mut vendor = vendor(Preset::Mixed);
    let device = vendor.found.devices[0].id.clone();
    let part = |local: &str, tag: Option<&str>| Partition {
        id: PartitionId::of(&device, &Scheme::SMLU, local).expect("an id"),
        device: device.clone(),
        scheme: Scheme::SMLU,
        shape: None,
        size: Size::default(),
        placement: Placement::Driver,
        handle: local.into(),
        tag: tag.map(|tag| tag.parse().expect("a claim's id")),
        state: PartitionState::Complete,
        holders: Holders::Processes(0),
    };
    let mut with = |part: Partition, known: &Known| {
        vendor.found.partitions = vec![part];
        ids(&vendor, known)
    };
    let none = Known::default();
    assert_eq!(with(part("1", None), &none), ["DOC-CARD-4"]);
    assert_eq!(with(part("1", Some("other-tool")), &none), ["DOC-CARD-4"]);
    assert_eq!(with(part("1", Some("vgpu-1")), &none), ["DOC-CARD-5"]);
    let id = part("1", None).id.to_string();
    let held = Known { parts: [id].into(), ..Known::default() };
    assert_eq!(with(part("1", None), &held), ["DOC-CARD-0"], "a claim's, without a tag");
    assert_eq!(with(part("2", None), &held), ["DOC-CARD-4"]);
    let claims = [("vgpu-1".to_owned(), "preparing".to_owned())].into();
    let claimed = Known { claims: Some(claims), ..Known::default() };
    assert_eq!(with(part("1", Some("vgpu-1")), &claimed), ["DOC-CARD-0"], "being made");
    assert_eq!(with(part("1", Some("vgpu-2")), &claimed), ["DOC-CARD-5"]);
    let ahead = Known { tags: ["vgpu-3".to_owned()].into(), ..Known::default() };
    assert_eq!(with(part("1", Some("vgpu-3")), &ahead), ["DOC-CARD-0"], "made ahead");
}

#[test]
fn cards_that_are_lost_unfit_or_broken() {
    let gone = || Error::new(ErrorKind::Lost, "it does not answer");
    let broken = Vendor::of(Found::broken("nvidia", gone()));
    assert_eq!(ids(&broken, &Known::default()), ["DOC-CARD-1"]);
    let mut vendor = vendor(Preset::H100x8);
    vendor.found.lost.push(Lost { name: "nvidia-card-2".into(), reason: gone() });
    assert_eq!(ids(&vendor, &Known::default()), ["DOC-CARD-2"]);
    vendor.found.lost.clear();
    let device = vendor.found.devices[0].id.clone();
    for (meaning, expected) in [
        (Meaning::Good, "DOC-CARD-0"),
        (Meaning::TenantFault, "DOC-CARD-0"),
        (Meaning::NeedsReset, "DOC-CARD-6"),
        (Meaning::NeedsReboot, "DOC-CARD-6"),
        (Meaning::Lost, "DOC-CARD-6"),
        (Meaning::Suspect, "DOC-CARD-7"),
        (Meaning::Unknown, "DOC-CARD-7"),
    ] {
        vendor.health = vec![Event::now(Subject::Device(device.clone()), meaning, "xid 48")];
        assert_eq!(ids(&vendor, &Known::default()), [expected], "{meaning:?}");
    }
    vendor.health.clear();
    vendor.found.unread.push(crate::devices::Unread { what: "topology".into(), error: gone() });
    assert_eq!(ids(&vendor, &Known::default()), ["DOC-CARD-3"]);
}
