//! The state machine of one card or part.

use std::time::Duration;

use vgpu_core::health::Meaning;

use super::{HealthOptions, Needs, State};

/// What is known of one card or part.
#[derive(Debug, Clone)]
pub(super) struct Record {
    phase: Phase,
    cause: String,
    since: Duration,
    needs: Needs,
    /// Doubtful readings since it was healthy last.
    hits: u32,
    /// Good readings since the last that was not.
    good: u32,
    last_bad: Duration,
    /// Why the inventory has lost it.
    lost: Option<(String, Duration)>,
    /// Why its lane is shut.
    shut: Option<(String, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy,
    Recovering,
    Suspect,
    Unhealthy,
    /// Never read: the first good reading is enough, else every start of the agent would take the
    /// cards from the kubelet for a while.
    Unread,
}

impl Record {
    /// A card of which nothing was ever read.
    pub(super) fn unread() -> Self {
        Self::unread_since(Duration::ZERO)
    }

    pub(super) fn unread_since(now: Duration) -> Self {
        Self { phase: Phase::Unread, cause: "not read yet".into(), since: now, ..Self::healthy() }
    }

    /// A part of which nothing bad was told.
    pub(super) fn healthy() -> Self {
        Self {
            phase: Phase::Healthy,
            cause: String::new(),
            since: Duration::ZERO,
            needs: Needs::Time,
            hits: 0,
            good: 0,
            last_bad: Duration::ZERO,
            lost: None,
            shut: None,
        }
    }

    pub(super) fn state(&self) -> State {
        if let Some((cause, since)) = &self.lost {
            let (cause, since) = (cause.clone(), *since);
            return State::Unhealthy { cause, since, needs: Needs::Return };
        }
        let (cause, since) = (self.cause.clone(), self.since);
        match (self.phase, &self.shut) {
            (Phase::Unhealthy, _) => State::Unhealthy { cause, since, needs: self.needs },
            (_, Some((cause, since))) => State::Suspect { cause: cause.clone(), since: *since },
            (Phase::Healthy, None) => State::Healthy,
            (Phase::Recovering | Phase::Unread, None) => {
                State::Recovering { cause, since, good: self.good }
            }
            (Phase::Suspect, None) => State::Suspect { cause, since },
        }
    }

    pub(super) fn usable(&self) -> bool {
        self.lost.is_none()
            && self.shut.is_none()
            && matches!(self.phase, Phase::Healthy | Phase::Suspect)
    }

    pub(super) fn read(
        &mut self,
        now: Duration,
        meaning: Meaning,
        cause: &str,
        options: &HealthOptions,
    ) {
        match meaning {
            Meaning::Changed | Meaning::TenantFault => {}
            Meaning::Good => self.good(now, options),
            Meaning::Suspect | Meaning::Unknown => self.doubtful(now, cause, options),
            Meaning::Resetting => self.bad(now, cause, Needs::Time),
            Meaning::NeedsReset => self.bad(now, cause, Needs::Reset),
            Meaning::NeedsReboot => self.bad(now, cause, Needs::Reboot),
            Meaning::Lost => self.bad(now, cause, Needs::Return),
            Meaning::DriverReplaced => self.bad(now, cause, Needs::Restart),
            // A meaning that this version does not know is at least a doubt.
            _ => self.doubtful(now, cause, options),
        }
    }

    pub(super) fn tick(&mut self, now: Duration, options: &HealthOptions) {
        let enough = self.good >= options.recover_hits
            && now.saturating_sub(self.last_bad) >= options.recover_after;
        if matches!(self.phase, Phase::Recovering | Phase::Suspect) && enough {
            *self = Self {
                lost: self.lost.take(),
                shut: self.shut.take(),
                good: self.good,
                last_bad: self.last_bad,
                ..Self::healthy()
            };
        }
    }

    pub(super) fn shut(&mut self, now: Duration, why: &str) {
        self.shut.get_or_insert_with(|| (why.to_owned(), now));
    }

    pub(super) fn open(&mut self, now: Duration) {
        let Some((why, _)) = self.shut.take() else { return };
        self.forget_good(now);
        if self.phase == Phase::Healthy {
            (self.phase, self.cause, self.since) = (Phase::Suspect, why, now);
        }
    }

    pub(super) fn lose(&mut self, now: Duration, why: &str) {
        self.lost.get_or_insert_with(|| (why.to_owned(), now));
    }

    pub(super) fn come_back(&mut self, now: Duration) {
        let Some((why, _)) = self.lost.take() else { return };
        self.forget_good(now);
        if self.phase != Phase::Unhealthy {
            (self.phase, self.cause, self.since) = (Phase::Recovering, why, now);
        }
    }

    fn good(&mut self, now: Duration, options: &HealthOptions) {
        // What cannot be relied on now says nothing of later.
        if self.lost.is_some() || self.shut.is_some() {
            return;
        }
        self.good = self.good.saturating_add(1);
        match self.phase {
            Phase::Unhealthy => (self.phase, self.since) = (Phase::Recovering, now),
            Phase::Unread => *self = Self { good: self.good, ..Self::healthy() },
            Phase::Healthy | Phase::Recovering | Phase::Suspect => {}
        }
        self.tick(now, options);
    }

    fn doubtful(&mut self, now: Duration, cause: &str, options: &HealthOptions) {
        self.forget_good(now);
        self.hits = self.hits.saturating_add(1);
        match self.phase {
            Phase::Healthy | Phase::Suspect if self.hits >= options.suspect_hits => {
                self.turn_unhealthy(now, cause, Needs::Time);
            }
            Phase::Healthy => {
                (self.phase, self.cause, self.since) = (Phase::Suspect, cause.to_owned(), now);
            }
            // It was never trusted, and now wins trust like any other that is not.
            Phase::Unread => {
                (self.phase, self.cause, self.since) = (Phase::Recovering, cause.to_owned(), now);
            }
            // It was unhealthy just now: no new hits are needed, and what it needs it still needs.
            Phase::Recovering => self.turn_unhealthy(now, cause, self.needs),
            Phase::Suspect | Phase::Unhealthy => {}
        }
    }

    fn bad(&mut self, now: Duration, cause: &str, needs: Needs) {
        self.forget_good(now);
        // The worst stays until it is healthy again; one that is needs nothing.
        if self.phase != Phase::Unhealthy || needs > self.needs {
            self.turn_unhealthy(now, cause, needs.max(self.needs));
        }
    }

    fn turn_unhealthy(&mut self, now: Duration, cause: &str, needs: Needs) {
        self.phase = Phase::Unhealthy;
        self.cause = cause.to_owned();
        self.since = now;
        self.needs = needs;
    }

    fn forget_good(&mut self, now: Duration) {
        self.good = 0;
        self.last_bad = now;
    }
}
