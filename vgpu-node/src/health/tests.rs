use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn card(n: u8) -> DeviceId {
    DeviceId::new(format!("GPU-{n}")).expect("an id")
}

fn part(card: u8, n: u8) -> PartitionId {
    PartitionId::new(format!("GPU-{card}/mig/{n}")).expect("an id")
}

fn of(subject: Subject, meaning: Meaning) -> Event {
    Event::now(subject, meaning, format!("{meaning}"))
}

fn on_card(meaning: Meaning) -> Event {
    of(Subject::Device(card(1)), meaning)
}

/// A policy under which card 1 and card 2 are healthy.
fn policy() -> HealthPolicy {
    let mut policy = HealthPolicy::new(HealthOptions::default());
    for n in [1, 2] {
        let changes = policy.observe(Duration::ZERO, &of(Subject::Device(card(n)), Meaning::Good));
        assert_eq!(changes[0].to, State::Healthy);
    }
    policy
}

fn state(policy: &HealthPolicy) -> State {
    policy.state(&Subject::Device(card(1)))
}

#[test]
fn a_card_is_handed_out_from_its_first_good_reading_on_and_not_before() {
    let mut policy = HealthPolicy::new(HealthOptions::default());
    assert!(!policy.usable(&card(1), None));
    policy.observe(S, &on_card(Meaning::Unknown));
    assert!(!policy.usable(&card(1), None), "no reading is no good reading");
    policy.observe(2 * S, &on_card(Meaning::Good));
    assert!(!policy.usable(&card(1), None), "whoever begins badly has to win trust");
    policy.observe(11 * S, &on_card(Meaning::Good));
    assert_eq!(state(&policy), State::Healthy);

    let mut policy = HealthPolicy::new(HealthOptions::default());
    policy.observe(S, &on_card(Meaning::Good));
    assert!(policy.usable(&card(1), None));
}

#[test]
fn doubt_needs_a_second_hit_and_goes_away_by_itself() {
    for doubt in [Meaning::Suspect, Meaning::Unknown] {
        let mut policy = policy();
        policy.observe(S, &on_card(doubt));
        assert!(matches!(state(&policy), State::Suspect { since, .. } if since == S));
        assert!(policy.usable(&card(1), None), "one doubtful reading takes nothing away");
        policy.observe(2 * S, &on_card(Meaning::Good));
        assert!(policy.observe(3 * S, &on_card(Meaning::Good)).is_empty(), "too soon");
        assert_eq!(policy.tick(11 * S).len(), 1);
        assert_eq!(state(&policy), State::Healthy);

        policy.observe(20 * S, &on_card(doubt));
        policy.observe(21 * S, &on_card(Meaning::Good));
        policy.observe(22 * S, &on_card(doubt));
        assert!(
            matches!(state(&policy), State::Unhealthy { needs: Needs::Time, .. }),
            "one good reading between them does not make two doubtful ones one"
        );
        assert!(!policy.usable(&card(1), None));
    }
}

#[test]
fn recovery_takes_good_readings_in_a_row_and_time() {
    let kinds = [
        (Meaning::Resetting, Needs::Time),
        (Meaning::NeedsReset, Needs::Reset),
        (Meaning::NeedsReboot, Needs::Reboot),
        (Meaning::Lost, Needs::Return),
        (Meaning::DriverReplaced, Needs::Restart),
    ];
    for (meaning, needs) in kinds {
        let mut policy = policy();
        let changes = policy.observe(S, &on_card(meaning));
        let cause = meaning.to_string();
        assert_eq!(changes[0].to, State::Unhealthy { cause: cause.clone(), since: S, needs });
        assert!(policy.tick(1000 * S).is_empty(), "time alone heals nothing");
        policy.observe(1001 * S, &on_card(Meaning::Unknown));
        policy.observe(1002 * S, &on_card(Meaning::Good));
        let recovering = State::Recovering { cause, since: 1002 * S, good: 1 };
        assert_eq!(state(&policy), recovering);
        policy.observe(1003 * S, &on_card(Meaning::Unknown));
        assert!(matches!(state(&policy), State::Unhealthy { needs: n, .. } if n == needs));
        policy.observe(1004 * S, &on_card(Meaning::Good));
        policy.observe(1005 * S, &on_card(Meaning::Good));
        policy.observe(1012 * S, &on_card(Meaning::Good));
        assert!(!policy.usable(&card(1), None), "10 s since the last bad reading");
        policy.tick(1013 * S);
        assert_eq!(state(&policy), State::Healthy);
    }
}

#[test]
fn the_worst_need_stays_until_it_is_healthy() {
    let mut policy = policy();
    policy.observe(S, &on_card(Meaning::NeedsReboot));
    for lesser in [Meaning::Resetting, Meaning::NeedsReset, Meaning::Suspect, Meaning::Unknown] {
        policy.observe(2 * S, &on_card(lesser));
    }
    policy.observe(3 * S, &on_card(Meaning::Good));
    policy.observe(4 * S, &on_card(Meaning::Resetting));
    assert!(matches!(state(&policy), State::Unhealthy { needs: Needs::Reboot, .. }));
}

#[test]
fn a_tenants_fault_and_news_of_no_card_change_nothing() {
    let mut policy = policy();
    let subjects = [
        Subject::Device(card(1)),
        Subject::Part(part(1, 0)),
        Subject::Vendor,
        Subject::Cgroup(card(1), PathBuf::from("/a")),
    ];
    for subject in &subjects {
        for meaning in [Meaning::TenantFault, Meaning::Changed] {
            assert_eq!(policy.observe(S, &of(subject.clone(), meaning)), []);
        }
    }
    for subject in &subjects[2..] {
        assert_eq!(policy.observe(S, &of(subject.clone(), Meaning::Lost)), []);
        assert_eq!(policy.state(subject), State::Healthy);
    }
    assert!(policy.usable(&card(1), None));
}

#[test]
fn a_card_fans_out_to_its_parts_and_a_part_to_nobody() {
    let mut policy = policy();
    let (first, second) = (part(1, 0), part(1, 1));
    policy.observe(S, &of(Subject::Part(first.clone()), Meaning::NeedsReset));
    assert!(!policy.usable(&card(1), Some(&first)));
    assert!(policy.usable(&card(1), Some(&second)) && policy.usable(&card(1), None));

    policy.observe(2 * S, &on_card(Meaning::NeedsReset));
    assert!(!policy.usable(&card(1), Some(&second)) && !policy.usable(&card(1), None));
    assert!(policy.usable(&card(2), Some(&part(2, 0))));

    // The card's good readings are the part's too, where the driver does not tell parts apart.
    for n in 3..=20 {
        policy.observe(n * S, &on_card(Meaning::Good));
    }
    assert!(policy.usable(&card(1), Some(&first)) && policy.usable(&card(1), Some(&second)));
}

#[test]
fn a_part_that_reads_bad_beside_a_good_card_does_not_heal() {
    let mut policy = policy();
    let bad = part(1, 0);
    for n in 1..60 {
        policy.observe(n * S, &on_card(Meaning::Good));
        policy.observe(n * S, &of(Subject::Part(bad.clone()), Meaning::NeedsReset));
        assert!(!policy.usable(&card(1), Some(&bad)));
    }
    policy.part_gone(&bad);
    assert!(policy.usable(&card(1), Some(&bad)), "a new part of that id is another part");
}

#[test]
fn a_shut_lane_keeps_a_card_back_however_good_it_reads() {
    let mut policy = policy();
    let changes = policy.suspect(S, &card(1), "create does not return");
    assert!(matches!(&changes[0].to, State::Suspect { cause, .. } if cause.contains("create")));
    assert!(policy.suspect(2 * S, &card(1), "again").is_empty(), "told once");
    for n in 3..40 {
        policy.observe(n * S, &on_card(Meaning::Good));
    }
    assert!(!policy.usable(&card(1), None));
    policy.unsuspect(40 * S, &card(1));
    assert!(policy.usable(&card(1), None) && matches!(state(&policy), State::Suspect { .. }));
    policy.observe(41 * S, &on_card(Meaning::Good));
    policy.observe(51 * S, &on_card(Meaning::Good));
    assert_eq!(state(&policy), State::Healthy);
    assert!(policy.unsuspect(52 * S, &card(1)).is_empty(), "it was open");
}

#[test]
fn a_card_that_the_inventory_lost_waits_for_its_return() {
    let mut policy = policy();
    policy.lost(S, &card(1), "fell off the bus");
    assert!(
        matches!(state(&policy), State::Unhealthy { needs: Needs::Return, since, .. } if since == S)
    );
    for n in 2..40 {
        policy.observe(n * S, &on_card(Meaning::Good));
    }
    assert!(!policy.usable(&card(1), None));
    policy.returned(40 * S, &card(1));
    assert!(matches!(state(&policy), State::Recovering { good: 0, .. }));
    policy.observe(41 * S, &on_card(Meaning::Good));
    policy.observe(42 * S, &on_card(Meaning::Good));
    assert!(!policy.usable(&card(1), None));
    policy.tick(50 * S);
    assert_eq!(state(&policy), State::Healthy);
}

#[derive(Debug, Clone)]
enum Input {
    Lost(u8),
    Open(u8),
    Read(u8, Option<u8>, Meaning),
    Returned(u8),
    Shut(u8),
    Tick,
}

fn meaning() -> impl Strategy<Value = Meaning> {
    prop_oneof![
        8 => Just(Meaning::Good),
        1 => Just(Meaning::TenantFault),
        1 => Just(Meaning::Changed),
        1 => Just(Meaning::Unknown),
        1 => Just(Meaning::Suspect),
        1 => Just(Meaning::Resetting),
        1 => Just(Meaning::NeedsReset),
        1 => Just(Meaning::NeedsReboot),
        1 => Just(Meaning::Lost),
        1 => Just(Meaning::DriverReplaced),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let card = || 0u8..3;
    prop_oneof![
        12 => (card(), prop::option::weighted(0.3, 0u8..2), meaning())
            .prop_map(|(c, p, m)| Input::Read(c, p, m)),
        2 => Just(Input::Tick),
        1 => card().prop_map(Input::Shut),
        1 => card().prop_map(Input::Open),
        1 => card().prop_map(Input::Lost),
        1 => card().prop_map(Input::Returned),
    ]
}

fn give(policy: &mut HealthPolicy, now: Duration, input: &Input) -> Vec<Transition> {
    match input {
        Input::Lost(n) => policy.lost(now, &card(*n), "lost"),
        Input::Open(n) => policy.unsuspect(now, &card(*n)),
        Input::Read(n, None, m) => policy.observe(now, &of(Subject::Device(card(*n)), *m)),
        Input::Read(n, Some(p), m) => policy.observe(now, &of(Subject::Part(part(*n, *p)), *m)),
        Input::Returned(n) => policy.returned(now, &card(*n)),
        Input::Shut(n) => policy.suspect(now, &card(*n), "shut"),
        Input::Tick => policy.tick(now),
    }
}

fn about(input: &Input) -> Option<u8> {
    match input {
        Input::Lost(n)
        | Input::Open(n)
        | Input::Read(n, _, _)
        | Input::Returned(n)
        | Input::Shut(n) => Some(*n),
        Input::Tick => None,
    }
}

fn inputs() -> impl Strategy<Value = Vec<(u32, Input)>> {
    prop::collection::vec((0u32..8, input()), 0..80)
}

proptest! {
    #[test]
    fn trust_is_only_won_by_good_readings(inputs in inputs()) {
        let mut policy = HealthPolicy::new(HealthOptions::default());
        let mut now = Duration::ZERO;
        // Of card 0: good readings in a row, whether any other was ever there, what holds it back.
        let (mut good, mut ever_bad, mut last_bad) = (0, false, Duration::ZERO);
        let (mut lost, mut shut) = (false, false);
        for (pause, input) in &inputs {
            now += *pause * S;
            let before = policy.usable(&card(0), None);
            give(&mut policy, now, input);
            match input {
                Input::Read(0, None, Meaning::Good) if !lost && !shut => good += 1,
                Input::Read(0, None, Meaning::Good | Meaning::TenantFault | Meaning::Changed) => {}
                Input::Read(0, None, _) => (good, ever_bad, last_bad) = (0, true, now),
                Input::Lost(0) => lost = true,
                Input::Shut(0) => shut = true,
                Input::Returned(0) if lost => {
                    (lost, good, ever_bad, last_bad) = (false, 0, true, now);
                }
                // Before anything was read of it, its first good reading is still to come.
                Input::Open(0) if shut => {
                    (shut, ever_bad, last_bad) = (false, ever_bad || good > 0, now);
                    good = 0;
                }
                _ => {}
            }
            let is = policy.state(&Subject::Device(card(0)));
            let usable = policy.usable(&card(0), None);
            if is == State::Healthy && ever_bad {
                prop_assert!(good >= 2, "healthy after {good} good readings: {inputs:?}");
                prop_assert!(now - last_bad >= 10 * S, "too soon: {inputs:?}");
            }
            prop_assert!(!usable || !(lost || shut));
            if !before && usable {
                let won = good >= 1 || matches!(input, Input::Open(0));
                prop_assert!(won, "usable without a good reading: {inputs:?}");
            }
        }
    }

    #[test]
    fn no_card_changes_anothers_state(inputs in inputs()) {
        let mut together = HealthPolicy::new(HealthOptions::default());
        let mut alone = together.clone();
        let mut now = Duration::ZERO;
        for (pause, input) in &inputs {
            now += *pause * S;
            let changes = give(&mut together, now, input);
            if about(input).is_none_or(|n| n == 0) {
                give(&mut alone, now, input);
            } else {
                let of_0 = |t: &Transition| t.subject.device() == Some(card(0));
                prop_assert!(!changes.iter().any(of_0));
            }
            let subjects =
                [Subject::Device(card(0)), Subject::Part(part(0, 0)), Subject::Part(part(0, 1))];
            for subject in &subjects {
                prop_assert_eq!(together.state(subject), alone.state(subject));
            }
        }
    }

    #[test]
    fn every_change_is_told(inputs in inputs()) {
        let mut policy = HealthPolicy::new(HealthOptions::default());
        let mut now = Duration::ZERO;
        for (pause, input) in &inputs {
            now += *pause * S;
            let before = policy.clone();
            let told = give(&mut policy, now, input);
            for n in 0..3 {
                let parts = (0..2).map(|p| Subject::Part(part(n, p)));
                for subject in parts.chain([Subject::Device(card(n))]) {
                    let of: Vec<_> = told.iter().filter(|t| t.subject == subject).collect();
                    prop_assert!(of.len() <= 1);
                    let known = before.cards.contains_key(&card(n));
                    if known && before.state(&subject) != policy.state(&subject) {
                        prop_assert_eq!(of.len(), 1, "{:?}", subject);
                        prop_assert_eq!(&of[0].to, &policy.state(&subject));
                    }
                }
            }
        }
    }

    #[test]
    fn whatever_happened_good_readings_heal(inputs in inputs()) {
        let mut policy = HealthPolicy::new(HealthOptions::default());
        let mut now = Duration::ZERO;
        for (pause, input) in &inputs {
            now += *pause * S;
            give(&mut policy, now, input);
        }
        for n in 0..3 {
            policy.unsuspect(now, &card(n));
            policy.returned(now, &card(n));
        }
        for _ in 0..3 {
            now += 5 * S;
            for n in 0..3 {
                policy.observe(now, &of(Subject::Device(card(n)), Meaning::Good));
            }
        }
        for n in 0..3 {
            prop_assert!(policy.usable(&card(n), Some(&part(n, 0))));
            prop_assert_eq!(policy.state(&Subject::Device(card(n))), State::Healthy);
        }
    }
}
