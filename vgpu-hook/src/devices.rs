//! What a container's device rules come to.

use serde::Deserialize;

/// One of `linux.resources.devices`; rules count in their order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Rule {
    #[serde(default)]
    allow: bool,
    /// `a`, `b`, `c`; absent means `a`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Absent or negative means every one.
    major: Option<i64>,
    minor: Option<i64>,
    /// Letters of `rwm`; absent means all of them.
    access: Option<String>,
}

/// Whether the rules let a container open character devices that none of them names: those of other pods' cards too.
///
/// As cgroup v1 applies them, which runtimes follow on v2: a rule for all types sets everything anew, whatever else
/// stands in it; one for every number of a type changes what is named by no other; one for single numbers changes
/// nothing for the rest. At first nothing is allowed.
pub(crate) fn every_device(rules: &[Rule]) -> bool {
    let mut open = Access::default();
    for rule in rules {
        match rule.reach() {
            Reach::All => open = Access { read: rule.allow, write: rule.allow },
            Reach::EveryCharacterDevice => {
                let access = rule.access();
                open.read = if access.read { rule.allow } else { open.read };
                open.write = if access.write { rule.allow } else { open.write };
            }
            Reach::Some => {}
        }
    }
    open.read || open.write
}

/// How a device may be opened; making its node (`m`) opens nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Access {
    read: bool,
    write: bool,
}

/// What a rule is about, as far as it matters here.
enum Reach {
    All,
    EveryCharacterDevice,
    Some,
}

impl Rule {
    fn reach(&self) -> Reach {
        let every = |number: Option<i64>| number.is_none_or(|n| n < 0);
        match self.kind.as_deref().unwrap_or_default() {
            "" | "a" => Reach::All,
            // What is unbuffered is a character device as well.
            "c" | "u" if every(self.major) && every(self.minor) => Reach::EveryCharacterDevice,
            _ => Reach::Some,
        }
    }

    fn access(&self) -> Access {
        let has =
            |letter| self.access.as_deref().is_none_or(|a| a.is_empty() || a.contains(letter));
        Access { read: has('r'), write: has('w') }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(text: &str) -> Vec<Rule> {
        serde_json::from_str(text).expect("rules")
    }

    #[test]
    fn as_runtimes_write_them() {
        let privileged = r#"[{"allow": true, "access": "rwm"}]"#;
        let by_crio = r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "a", "access": "rwm"},
            {"allow": true, "type": "c", "major": 195, "minor": 0, "access": "rw"}]"#;
        let every_card = r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": -1, "minor": -1, "access": "rw"}]"#;
        for open in [privileged, by_crio, every_card] {
            assert!(every_device(&rules(open)), "{open}");
        }
        let plain = r#"[{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"}, {"allow": true, "type": "b", "access": "rwm"},
            {"allow": true, "type": "c", "major": 195, "access": "rw"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]"#;
        let taken_back =
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "a", "access": "rwm"}]"#;
        let of_characters = r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "c"}]"#;
        for closed in ["[]", plain, taken_back, of_characters] {
            assert!(!every_device(&rules(closed)), "{closed}");
        }
    }

    /// cgroup v1 as the kernel's documentation has it: a default, and exceptions to it.
    #[derive(Default)]
    struct Cgroup {
        allows: bool,
        exceptions: Vec<Exception>,
    }

    struct Exception {
        kind: char,
        major: Option<i64>,
        minor: Option<i64>,
        access: Vec<char>,
    }

    impl Cgroup {
        fn apply(&mut self, rule: &Rule) {
            let kind = rule.kind.as_deref().and_then(|kind| kind.chars().next()).unwrap_or('a');
            if kind == 'a' {
                *self = Self { allows: rule.allow, exceptions: Vec::new() };
                return;
            }
            let number = |n: Option<i64>| n.filter(|n| *n >= 0);
            let (major, minor) = (number(rule.major), number(rule.minor));
            let access: Vec<char> =
                rule.access.as_deref().filter(|a| !a.is_empty()).unwrap_or("rwm").chars().collect();
            let same = |e: &&mut Exception| (e.kind, e.major, e.minor) == (kind, major, minor);
            let known = self.exceptions.iter_mut().find(same);
            match (rule.allow == self.allows, known) {
                // Back to the default: only the very same exception loses what is named.
                (true, Some(known)) => known.access.retain(|a| !access.contains(a)),
                (true, None) => {}
                (false, Some(known)) => known.access.extend(access),
                (false, None) => {
                    self.exceptions.push(Exception { kind, major, minor, access });
                }
            }
        }

        fn may(&self, kind: char, major: i64, minor: i64, access: char) -> bool {
            let hit = self.exceptions.iter().any(|e| {
                e.kind == kind
                    && e.major.is_none_or(|m| m == major)
                    && e.minor.is_none_or(|m| m == minor)
                    && e.access.contains(&access)
            });
            hit != self.allows
        }
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop::sample::select(vec![None, Some(""), Some("a"), Some("b"), Some("c")]);
        let number = || prop::sample::select(vec![None, Some(-1), Some(1), Some(195)]);
        let access = prop::sample::select(vec![
            None,
            Some("r"),
            Some("w"),
            Some("m"),
            Some("rw"),
            Some("rwm"),
        ]);
        (any::<bool>(), kind, number(), number(), access).prop_map(
            |(allow, kind, major, minor, access)| {
                let text = |text: Option<&str>| text.map(str::to_owned);
                Rule { allow, kind: text(kind), major, minor, access: text(access) }
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_what_a_cgroup_would_allow(rules in prop::collection::vec(rule(), 0..8)) {
            let mut cgroup = Cgroup::default();
            rules.iter().for_each(|rule| cgroup.apply(rule));
            // A device that no rule names.
            let opens = ['r', 'w'].into_iter().any(|access| cgroup.may('c', 508, 7, access));
            prop_assert_eq!(every_device(&rules), opens);
        }
    }
}
