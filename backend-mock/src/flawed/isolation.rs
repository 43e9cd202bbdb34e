//! Flawed edits and limits.

use std::sync::atomic::Ordering;

use vgpu_core::edits::{ClaimFile, DeviceNode, Mount, MountMode};
use vgpu_core::{
    Bytes, Confinement, Container, ContainerEdits, ErrorKind, Grant, Isolation, Target,
};

use super::Flawed;
use crate::Result;
use crate::defect::Defect;

impl Isolation for Flawed {
    fn edits(&self, targets: &[Target]) -> Result<ContainerEdits> {
        let device = targets.first().map(|t| t.grant.device());
        let result = self.through(device.as_ref(), |sound| sound.edits(targets));
        let mut edits = match (self.defect, result) {
            (Defect::Iso5, Err(e)) if e.kind == ErrorKind::NotFound => {
                let first = self.sound.machine.devices()?.into_iter().next().ok_or(e)?;
                let claim = targets[0].claim.clone();
                self.sound.edits(&[Target { claim, grant: Grant::Whole(first) }])?
            }
            (_, result) => result?,
        };
        match self.defect {
            Defect::Iso1 => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                edits.env.push(("TURN".into(), turn.to_string()));
            }
            Defect::Iso2 => edits.nodes.push(DeviceNode::at("dev/null")),
            Defect::Iso3 => edits.mounts.push(Mount {
                host: "/run/vgpu/shared".into(),
                container: "/run/vgpu/shared".into(),
                mode: MountMode::Writable,
            }),
            Defect::Iso4 => self.only_env(targets, &mut edits)?,
            Defect::Iso6 => self.show_neighbour(targets, &mut edits)?,
            _ => {}
        }
        Ok(edits)
    }

    fn confine(&self, target: &Target, container: &Container) -> Result<Confinement> {
        let device = target.grant.device();
        let result = self.through(Some(&device), |sound| sound.confine(target, container))?;
        if self.is(Defect::Iso7) {
            self.sound.machine.change(|state| {
                for limit in &mut state.card_mut(&device)?.limits {
                    limit.memory = Bytes(limit.memory.0 * 2);
                }
                Ok(())
            })?;
        }
        Ok(result)
    }

    fn unconfine(&self, target: &Target, container: &Container) -> Result<()> {
        if self.is(Defect::Iso8) {
            return Ok(());
        }
        let device = target.grant.device();
        self.through(Some(&device), |sound| sound.unconfine(target, container))
    }
}

impl Flawed {
    /// Shows the card and its files empty, with the part in env alone.
    fn only_env(&self, targets: &[Target], edits: &mut ContainerEdits) -> Result<()> {
        let Some(Grant::Part(part)) = targets.first().map(|t| t.grant.clone()) else {
            return Ok(());
        };
        let claim = targets[0].claim.clone();
        let whole = Target { claim, grant: Grant::Whole(part.device()) };
        *edits = self.sound.edits(&[whole])?;
        edits.files = vec![ClaimFile { container: "/etc/part".into(), text: "see env\n".into() }];
        edits.env.push(("PART".into(), part.to_string()));
        Ok(())
    }

    fn show_neighbour(&self, targets: &[Target], edits: &mut ContainerEdits) -> Result<()> {
        let Some(Grant::Whole(own)) = targets.first().map(|t| t.grant.clone()) else {
            return Ok(());
        };
        let all = self.sound.machine.devices()?;
        let ours = |d: &&vgpu_core::DeviceId| **d != own && self.sound.must_serve(d).is_ok();
        if let Some(other) = all.iter().find(ours) {
            let target =
                Target { claim: targets[0].claim.clone(), grant: Grant::Whole(other.clone()) };
            let theirs = self.sound.edits(&[target])?.nodes;
            edits.nodes.extend(
                theirs.into_iter().filter(|n| !edits.nodes.contains(n)).collect::<Vec<_>>(),
            );
        }
        Ok(())
    }
}
