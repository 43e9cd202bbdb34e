//! The contract as a list. Each clause stands in the docs of the trait method that it binds, and has
//! one conformance case of the same id and one planted defect in the mock; tests compare the lists.

/// One promise of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clause {
    /// `PART-7`; never given to another promise.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
}

/// The clause of that id.
pub fn clause(id: &str) -> Option<&'static Clause> {
    CLAUSES.iter().find(|c| c.id == id)
}

macro_rules! clauses {
    ($($id:literal $title:literal,)*) => { &[$(Clause { id: $id, title: $title },)*] };
}

/// Every promise, in the order of the traits.
pub const CLAUSES: &[Clause] = clauses! {
    "DISC-1" "device ids are unique in a scan",
    "DISC-2" "ids and models are stable over scans and reopening",
    "DISC-3" "a device contradicts itself nowhere",
    "DISC-4" "a silent card is lost with its reason, the others stay",
    "DISC-5" "each scheme once, whole always, modes affect their device",
    "DISC-6" "topology joins scanned devices, each pair once",
    "PART-1" "a created part is listed as it was returned",
    "PART-2" "an unknown device is not found",
    "PART-3" "entering the present mode changes nothing",
    "PART-4" "a mode order with the wrong devices is refused",
    "PART-5" "a mode is not changed under parts or processes",
    "PART-6" "a part covers its order",
    "PART-7" "a failed create leaves nothing",
    "PART-8" "exhaustion is told and harms nothing",
    "PART-9" "parts never overlap nor exceed the card",
    "PART-10" "what is declared is never unsupported",
    "PART-11" "resize keeps identity, or is refused",
    "PART-12" "destroyed is gone, twice is not found",
    "PART-13" "a held part is busy and stays",
    "PART-14" "sweep takes halves and nothing else",
    "ISO-1" "edits read and never write",
    "ISO-2" "edits render to valid CDI",
    "ISO-3" "claims share no writable path",
    "ISO-4" "no limit rests on env",
    "ISO-5" "unknown targets are not found",
    "ISO-6" "a whole card shows its own nodes only",
    "ISO-7" "a confinement in force equals the grant",
    "ISO-8" "an unconfined container has no limit",
    "HLTH-1" "a sound card is good, any other says why",
    "HLTH-2" "health of an unknown device is not found",
    "HLTH-3" "a silent card is lost, its neighbours answer",
    "HLTH-4" "a card that came back is good again",
    "HLTH-5" "waiting without events comes back empty",
    "HLTH-6" "each event comes once with card and cause",
    "HLTH-7" "readings are bounded, or absent",
    "BACK-1" "ours is recognised by the declared ownership",
    "BACK-2" "a reopened backend lists the same parts",
    "BACK-3" "after an interrupted create the same order succeeds",
    "BACK-4" "after a reboot only what is there is listed",
    "BACK-5" "a failed vendor call keeps kind and code",
    "BACK-6" "a replaced driver is told",
    "BACK-7" "a lost card fails alone",
    "BACK-8" "a call that hangs holds up no other card",
    "BACK-9" "library, driver and missing symbols are named",
    "BACK-10" "an empty host is absent with the reason",
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_what_the_trait_docs_say() {
        let sources = [
            include_str!("device.rs"),
            include_str!("partition.rs"),
            include_str!("isolation.rs"),
            include_str!("health.rs"),
            include_str!("backend.rs"),
        ];
        let in_docs: Vec<&str> = sources
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| line.trim().strip_prefix("/// - `")?.split_once("`: "))
            .map(|(id, _)| id)
            .collect();
        let unique: BTreeSet<&str> = in_docs.iter().copied().collect();
        assert_eq!(unique.len(), in_docs.len(), "a clause is documented twice");
        assert_eq!(unique, CLAUSES.iter().map(|c| c.id).collect());
    }
}
