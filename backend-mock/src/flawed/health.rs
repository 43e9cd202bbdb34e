//! Flawed readings and events.

use std::sync::atomic::Ordering;
use std::time::Duration;

use vgpu_core::{Bytes, DeviceId, ErrorKind, Event, Health, Meaning, Subject, Usage};

use super::{Flawed, held};
use crate::Result;
use crate::defect::Defect;

impl Health for Flawed {
    fn check(&self, device: &DeviceId) -> Result<Vec<Event>> {
        let subject = || Subject::Device(device.clone());
        if self.is(Defect::Hlth3) && self.any_lost()? {
            return Err(vgpu_core::Error::new(ErrorKind::Vendor, "some card does not answer"));
        }
        let result = self.through(Some(device), |sound| sound.check(device));
        match (self.defect, result) {
            (Defect::Hlth1, Ok(_)) => Ok(vec![Event::now(subject(), Meaning::Unknown, "")]),
            (Defect::Hlth2, Err(e)) if e.kind == ErrorKind::NotFound => {
                Ok(vec![Event::now(subject(), Meaning::Good, "answers")])
            }
            (Defect::Hlth4, Ok(events)) => {
                if events.iter().any(|e| e.meaning == Meaning::Lost) {
                    self.was_lost.store(true, Ordering::Relaxed);
                }
                if self.was_lost.load(Ordering::Relaxed) {
                    return Ok(vec![Event::now(subject(), Meaning::Lost, "it was lost")]);
                }
                Ok(events)
            }
            (_, result) => result,
        }
    }

    fn wait(&self, timeout: Duration) -> Result<Vec<Event>> {
        let echo = std::mem::take(&mut *held(&self.echo));
        if !echo.is_empty() {
            return Ok(echo);
        }
        let mut events = self.through(None, |sound| sound.wait(timeout))?;
        if self.is(Defect::Hlth5) && events.is_empty() {
            events.push(Event::now(Subject::Vendor, Meaning::Good, "nothing happened"));
        }
        if self.is(Defect::Hlth6) {
            held(&self.echo).clone_from(&events);
        }
        Ok(events)
    }

    fn usage(&self, subject: &Subject) -> Result<Usage> {
        let device = subject.device();
        let mut usage = self.through(device.as_ref(), |sound| sound.usage(subject))?;
        if self.is(Defect::Hlth7) {
            usage.memory = Some(Bytes(u64::MAX));
        }
        Ok(usage)
    }
}
