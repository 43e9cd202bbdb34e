//! The list of cases: one for each clause.

use vgpu_core::clause::{Clause, clause};
use vgpu_core::{Form, SchemeInfo};

use crate::cases::{discovery, faults, health, isolation, mode, partition, restart, room};
use crate::context::{Context, Outcome};

/// A clause as a function.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The clause that it proves.
    pub clause: &'static Clause,
    /// What it is run on.
    pub scope: Scope,
    /// Runs it on one subject.
    pub run: fn(&Context<'_>) -> Outcome,
}

/// What a case is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The backend, once.
    Backend,
    /// Each scheme of each card that keeps driver objects.
    Carved,
    /// Each card.
    Device,
    /// Each scheme of each card.
    Scheme,
}

impl Scope {
    /// Whether a case of this scope is run on that scheme.
    pub fn takes(self, info: &SchemeInfo) -> bool {
        match self {
            Self::Backend | Self::Device => false,
            Self::Carved => info.form == Form::Carved,
            Self::Scheme => true,
        }
    }
}

/// Every case, in the order of the clauses.
pub fn cases() -> Vec<Case> {
    let case = |id: &str, scope, run: fn(&Context<'_>) -> Outcome| Case {
        clause: clause(id).expect("a test compares the cases with the clauses"),
        scope,
        run,
    };
    vec![
        case("DISC-1", Scope::Backend, discovery::unique_ids),
        case("DISC-2", Scope::Backend, discovery::stable_ids),
        case("DISC-3", Scope::Device, discovery::no_contradiction),
        case("DISC-4", Scope::Device, discovery::lost_alone),
        case("DISC-5", Scope::Device, discovery::schemes_once),
        case("DISC-6", Scope::Backend, discovery::pairs_once),
        case("PART-1", Scope::Carved, partition::listed_as_returned),
        case("PART-2", Scope::Backend, partition::unknown_card),
        case("PART-3", Scope::Scheme, mode::present_mode),
        case("PART-4", Scope::Scheme, mode::wrong_cards),
        case("PART-5", Scope::Scheme, mode::not_under_use),
        case("PART-6", Scope::Carved, partition::covers_order),
        case("PART-7", Scope::Carved, partition::all_or_nothing),
        case("PART-8", Scope::Carved, room::exhausted),
        case("PART-9", Scope::Carved, room::never_too_much),
        case("PART-10", Scope::Scheme, room::declared_works),
        case("PART-11", Scope::Carved, partition::resized),
        case("PART-12", Scope::Carved, partition::destroyed),
        case("PART-13", Scope::Carved, partition::held),
        case("PART-14", Scope::Carved, partition::swept),
        case("ISO-1", Scope::Scheme, isolation::reads_only),
        case("ISO-2", Scope::Scheme, isolation::valid_cdi),
        case("ISO-3", Scope::Scheme, isolation::nothing_shared),
        case("ISO-4", Scope::Carved, isolation::differ_without_env),
        case("ISO-5", Scope::Device, isolation::unknown_target),
        case("ISO-6", Scope::Device, isolation::own_nodes),
        case("ISO-7", Scope::Scheme, isolation::limit_equals_grant),
        case("ISO-8", Scope::Scheme, isolation::limit_taken_back),
        case("HLTH-1", Scope::Device, health::says_how_it_is),
        case("HLTH-2", Scope::Backend, health::unknown_card),
        case("HLTH-3", Scope::Device, health::silent_is_lost),
        case("HLTH-4", Scope::Device, health::good_again),
        case("HLTH-5", Scope::Backend, health::empty_wait),
        case("HLTH-6", Scope::Device, health::events_once),
        case("HLTH-7", Scope::Scheme, health::bounded_use),
        case("BACK-1", Scope::Carved, restart::recognised),
        case("BACK-2", Scope::Carved, restart::same_after_reopening),
        case("BACK-3", Scope::Carved, restart::again_after_interruption),
        case("BACK-4", Scope::Carved, restart::after_reboot),
        case("BACK-5", Scope::Scheme, faults::code_is_kept),
        case("BACK-6", Scope::Backend, faults::driver_replaced),
        case("BACK-7", Scope::Device, faults::lost_fails_alone),
        case("BACK-8", Scope::Device, faults::hangs_alone),
        case("BACK-9", Scope::Backend, faults::info_is_complete),
        case("BACK-10", Scope::Backend, faults::empty_host),
    ]
}

#[cfg(test)]
mod tests {
    use vgpu_core::clause::CLAUSES;

    use super::*;

    #[test]
    fn there_is_exactly_one_case_for_each_clause() {
        let cases: Vec<&str> = cases().iter().map(|c| c.clause.id).collect();
        let clauses: Vec<&str> = CLAUSES.iter().map(|c| c.id).collect();
        assert_eq!(cases, clauses);
    }
}
