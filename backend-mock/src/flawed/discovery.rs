//! What a flawed scan says.

use vgpu_core::{Bytes, Device, Discovery, Link, Scan, Scheme, Sizing};

use super::Flawed;
use crate::Result;
use crate::defect::Defect;

impl Discovery for Flawed {
    fn scan(&self) -> Result<Scan> {
        let mut scan = self.through(None, |sound| sound.scan())?;
        match self.defect {
            Defect::Disc1 => {
                if let Some(first) = scan.devices.first().map(|d| d.id.clone())
                    && let Some(last) = scan.devices.last_mut()
                {
                    last.id = first;
                }
            }
            Defect::Disc2 => {
                for device in &mut scan.devices {
                    device.model = format!("{} {}", device.model, self.nth);
                }
            }
            Defect::Disc3 => scan.devices.iter_mut().for_each(beyond),
            Defect::Disc4 => scan.lost.clear(),
            Defect::Disc5 => {
                for device in &mut scan.devices {
                    let whole = device.schemes.iter().find(|s| s.scheme == Scheme::WHOLE).cloned();
                    device.schemes.extend(whole);
                }
            }
            _ => {}
        }
        Ok(scan)
    }

    fn topology(&self) -> Result<Vec<Link>> {
        let mut links = self.through(None, |sound| sound.topology())?;
        if self.is(Defect::Disc6)
            && let Some(first) = links.first().cloned()
        {
            links.push(Link { a: first.b, b: first.a, ..first });
        }
        Ok(links)
    }
}

/// Makes the last size that a card declares larger than the card.
fn beyond(device: &mut Device) {
    let beyond = Bytes(device.memory.0 + 1);
    match device.schemes.last_mut().map(|s| &mut s.sizing) {
        Some(Sizing::Profiles(table)) => {
            if let Some(last) = table.last_mut() {
                last.size.memory = Some(beyond);
            }
        }
        Some(Sizing::Range(range)) => {
            if let Some(grid) = &mut range.memory {
                grid.min = beyond;
            }
        }
        _ => {}
    }
}
