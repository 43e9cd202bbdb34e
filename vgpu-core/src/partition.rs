//! Making and unmaking driver objects.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::{ClaimId, DeviceId, PartitionId};
use crate::order::{CreateOrder, ModeChange, ModeOrder, Placement, Shape};
use crate::scheme::Scheme;
use crate::size::Size;

/// Makes and unmakes driver objects. One change per card at a time: the caller's lane sees to it.
pub trait Partitioner {
    /// What the driver holds on a card, ours or not, half or whole.
    ///
    /// # Contract
    /// - `PART-1`: a created part is listed, equal to what `create` returned.
    /// - `PART-2`: an unknown device is `NotFound`, never an empty list.
    ///
    /// # Errors
    /// `NotFound`, `Lost`, `DriverReplaced`.
    fn partitions(&self, device: &DeviceId) -> Result<Vec<Partition>>;

    /// Puts a card, or all that the mode affects, into a mode.
    ///
    /// # Contract
    /// - `PART-3`: it is a no-op where the card is in the mode already, and the parts stay.
    /// - `PART-4`: an order whose `affected` is not the mode's is `Invalid` and changes nothing.
    /// - `PART-5`: while parts or processes that the change forbids are there, it is `Busy`.
    ///
    /// # Errors
    /// `Busy`, `Invalid`, `NotFound`, `Permission`, `Unsupported` (undeclared scheme).
    fn set_mode(&self, order: &ModeOrder) -> Result<ModeChange>;

    /// Makes one part.
    ///
    /// # Contract
    /// - `PART-6`: the part holds at least what was ordered, where it was ordered.
    /// - `PART-7`: on an error nothing new is left, except what `sweep` finds.
    /// - `PART-8`: where no room is left it is `Exhausted`, and the parts that were there stay.
    /// - `PART-9`: parts of one card never overlap, nor do they exceed it together.
    /// - `PART-10`: it never fails as `Unsupported` for what the device declares.
    ///
    /// # Errors
    /// `AlreadyExists`, `Busy`, `Exhausted`, `Lost`, `Permission`.
    fn create(&self, order: &CreateOrder) -> Result<Partition>;

    /// Changes the size of one part.
    ///
    /// # Contract
    /// - `PART-11`: id and handle stay, the new size is listed; refused as `Unsupported` where the
    ///   scheme declares no resize.
    ///
    /// # Errors
    /// `Exhausted`, `Invalid` (off the grid), `NotFound`, `Unsupported`.
    fn resize(&self, partition: &PartitionId, size: &Size) -> Result<Partition>;

    /// Unmakes one part.
    ///
    /// # Contract
    /// - `PART-12`: it is no longer listed afterwards, and a second destroy is `NotFound`.
    /// - `PART-13`: while processes hold it, it is `Busy` and the part stays.
    ///
    /// # Errors
    /// `Busy`, `Lost`, `NotFound`.
    fn destroy(&self, partition: &PartitionId) -> Result<()>;

    /// Removes leftovers of interrupted creates that belong to no part in `keep`.
    ///
    /// # Contract
    /// - `PART-14`: halves of interrupted creates are gone afterwards; complete parts, those in
    ///   `keep` and those of other tools stay.
    ///
    /// # Errors
    /// `Lost`, `NotFound`, `Permission`.
    fn sweep(&self, device: &DeviceId, keep: &[PartitionId]) -> Result<Vec<Swept>>;
}

/// A part, as the driver lists it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Identity for life.
    pub id: PartitionId,
    /// The card.
    pub device: DeviceId,
    /// The scheme.
    pub scheme: Scheme,
    /// Which shape, if the driver can tell.
    pub shape: Option<Shape>,
    /// What it holds.
    pub size: Size,
    /// Where it lies.
    pub placement: Placement,
    /// The vendor's own handle or UUID; may change when it is made anew.
    pub handle: String,
    /// Our tag, where the driver kept it.
    pub tag: Option<ClaimId>,
    /// Whether it is usable.
    pub state: PartitionState,
    /// Whether processes hold it.
    pub holders: Holders,
}

/// Whether a listed part is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionState {
    /// The driver lists it and refuses to use it.
    Broken,
    /// All of it is there.
    Complete,
    /// A crash left half of it (GPU instance without compute instance); only good to destroy.
    Half,
}

/// Whether processes hold a card or part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holders {
    /// So many processes.
    Processes(u32),
    /// The driver cannot say; treated as held.
    Unknown,
}

impl Holders {
    /// Whether nobody holds it, for certain.
    pub fn is_free(self) -> bool {
        self == Self::Processes(0)
    }
}

/// Something that `sweep` removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// What: `smlu profile 7`, `gpu instance 3 without compute instance`, `dead MPS pipe`.
    pub what: String,
}
