//! One broken promise per clause, to see that the suite notices.

use vgpu_core::clause::{Clause, clause};

/// A planted defect: the clause that it breaks names it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
    strum::IntoStaticStr,
)]
pub enum Defect {
    /// The last card carries the first card's id.
    #[strum(serialize = "DISC-1")]
    Disc1,
    /// Models carry how often the backend was opened.
    #[strum(serialize = "DISC-2")]
    Disc2,
    /// A profile or a grid goes beyond the card.
    #[strum(serialize = "DISC-3")]
    Disc3,
    /// A silent card is left out without a word.
    #[strum(serialize = "DISC-4")]
    Disc4,
    /// `whole` is declared twice.
    #[strum(serialize = "DISC-5")]
    Disc5,
    /// The first pair of the topology is listed once more, turned round.
    #[strum(serialize = "DISC-6")]
    Disc6,
    /// `create` tells another handle than `partitions`.
    #[strum(serialize = "PART-1")]
    Part1,
    /// An unknown card has no parts instead of being unknown.
    #[strum(serialize = "PART-2")]
    Part2,
    /// Entering the present mode clears the card.
    #[strum(serialize = "PART-3")]
    Part3,
    /// Whatever cards a mode order names, it is carried out.
    #[strum(serialize = "PART-4")]
    Part4,
    /// A mode changes under parts, which are lost.
    #[strum(serialize = "PART-5")]
    Part5,
    /// A part is made smaller than ordered.
    #[strum(serialize = "PART-6")]
    Part6,
    /// A failed create leaves a complete part behind.
    #[strum(serialize = "PART-7")]
    Part7,
    /// Want of room is told as a vendor's error.
    #[strum(serialize = "PART-8")]
    Part8,
    /// A second part is laid over the first.
    #[strum(serialize = "PART-9")]
    Part9,
    /// The largest part that is declared is refused as unsupported.
    #[strum(serialize = "PART-10")]
    Part10,
    /// A resized part has another handle; where none is declared, resizing seems to work.
    #[strum(serialize = "PART-11")]
    Part11,
    /// A destroyed part can be destroyed again.
    #[strum(serialize = "PART-12")]
    Part12,
    /// A held part is destroyed.
    #[strum(serialize = "PART-13")]
    Part13,
    /// `sweep` takes complete parts too.
    #[strum(serialize = "PART-14")]
    Part14,
    /// Asking for edits twice gives two answers.
    #[strum(serialize = "ISO-1")]
    Iso1,
    /// A device node has a relative path.
    #[strum(serialize = "ISO-2")]
    Iso2,
    /// All claims share one writable folder.
    #[strum(serialize = "ISO-3")]
    Iso3,
    /// What tells two parts apart is only in env.
    #[strum(serialize = "ISO-4")]
    Iso4,
    /// An unknown part gets the edits of its card.
    #[strum(serialize = "ISO-5")]
    Iso5,
    /// A whole card shows its neighbour's nodes too.
    #[strum(serialize = "ISO-6")]
    Iso6,
    /// `Set` is said and the limit is twice the grant.
    #[strum(serialize = "ISO-7")]
    Iso7,
    /// The limit stays when it should be taken back.
    #[strum(serialize = "ISO-8")]
    Iso8,
    /// A sound card is told as unknown, without a cause.
    #[strum(serialize = "HLTH-1")]
    Hlth1,
    /// An unknown card is good.
    #[strum(serialize = "HLTH-2")]
    Hlth2,
    /// Checking a silent card's neighbour fails.
    #[strum(serialize = "HLTH-3")]
    Hlth3,
    /// A card that was lost once stays lost until reopening.
    #[strum(serialize = "HLTH-4")]
    Hlth4,
    /// `wait` without events comes back with one of its own making.
    #[strum(serialize = "HLTH-5")]
    Hlth5,
    /// Each event comes twice.
    #[strum(serialize = "HLTH-6")]
    Hlth6,
    /// More memory is in use than is there.
    #[strum(serialize = "HLTH-7")]
    Hlth7,
    /// Parts lose what they are recognised by.
    #[strum(serialize = "BACK-1")]
    Back1,
    /// Every other backend that is opened lists one part less.
    #[strum(serialize = "BACK-2")]
    Back2,
    /// `sweep` says that it removed a half and leaves it.
    #[strum(serialize = "BACK-3")]
    Back3,
    /// Parts that a reboot took are listed still.
    #[strum(serialize = "BACK-4")]
    Back4,
    /// The vendor's code is dropped from errors.
    #[strum(serialize = "BACK-5")]
    Back5,
    /// A replaced driver is told as a vendor's error.
    #[strum(serialize = "BACK-6")]
    Back6,
    /// A lost card makes its neighbours fail.
    #[strum(serialize = "BACK-7")]
    Back7,
    /// One call at a time, for all cards.
    #[strum(serialize = "BACK-8")]
    Back8,
    /// A missing symbol is listed twice.
    #[strum(serialize = "BACK-9")]
    Back9,
    /// An empty host has a backend.
    #[strum(serialize = "BACK-10")]
    Back10,
}

impl Defect {
    /// The defect that breaks the clause of that id.
    ///
    /// # Errors
    /// `Invalid` for an id that no clause has.
    pub fn parse(id: &str) -> vgpu_core::Result<Self> {
        id.parse().map_err(|_unknown: strum::ParseError| {
            vgpu_core::Error::new(
                vgpu_core::ErrorKind::Invalid,
                format!("there is no clause {id:?}; list the clauses for their ids"),
            )
        })
    }

    /// The clause that it breaks.
    pub fn clause(self) -> &'static Clause {
        clause(self.into()).expect("a test compares the defects with the clauses")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::IntoEnumIterator;
    use vgpu_core::clause::CLAUSES;

    use super::*;

    #[test]
    fn there_is_one_defect_for_each_clause() {
        let defects: BTreeSet<&str> = Defect::iter().map(<&str>::from).collect();
        let clauses: BTreeSet<&str> = CLAUSES.iter().map(|c| c.id).collect();
        assert_eq!(defects, clauses);
        assert_eq!(Defect::parse("PART-7").expect("a clause"), Defect::Part7);
        assert!(Defect::parse("PART-99").is_err());
    }
}
