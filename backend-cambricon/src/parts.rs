//! What both kinds of instances have in common: names, handles, and who holds them.

use std::path::{Path, PathBuf};

use vgpu_core::{ClaimId, DeviceId, Error, ErrorKind, Holders, PartitionId, Result, Scheme};

use crate::api::{CndevFailure, Process};
use crate::backend::CambriconBackend;
use crate::{convert, host};

/// The id of an instance: its name, which who made it chose and which is unique on the card, so that an id never
/// comes to mean another's instance; or its number, where the name is none that we could have given.
pub(crate) fn id(
    device: &DeviceId,
    scheme: &Scheme,
    name: &str,
    number: i32,
) -> Result<PartitionId> {
    match tag(name) {
        Some(tag) => PartitionId::of(device, scheme, tag.as_str()),
        None => PartitionId::of(device, scheme, format!("{NUMBERED}{number}")),
    }
}

/// The claim that an instance's name says.
pub(crate) fn tag(name: &str) -> Option<ClaimId> {
    ClaimId::new(name).ok().filter(|_| !name.starts_with(NUMBERED))
}

/// That a part is not there.
pub(crate) fn no_part(part: &PartitionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no part {part}; list the card's parts again"))
}

/// That a scheme is none of this card's.
pub(crate) fn unserved(device: &DeviceId, scheme: &Scheme) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{device} cannot be split by {scheme}; scan again"))
}

/// A claim's id as the name of an instance.
pub(crate) fn name(claim: &ClaimId) -> Result<&str> {
    if claim.as_str().len() > crate::api::MAX_NAME {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{claim} is longer than the {} bytes of an instance's name",
                crate::api::MAX_NAME
            ),
        ));
    }
    Ok(claim.as_str())
}

/// The processes on a card, and what each has open; `None` where the library cannot tell.
pub(crate) struct Openers(Option<Vec<Option<Vec<PathBuf>>>>);

impl Openers {
    /// Who holds the instance with this node; `used` is memory that the driver counts for it, if it does.
    ///
    /// A process that opened no instance's node, or whose files cannot be read, may be anybody's: then memory
    /// tells, and where that is not counted, nobody can.
    pub(crate) fn of(&self, node: &str, used: Option<u64>) -> Holders {
        let Some(processes) = &self.0 else {
            return match used {
                Some(0) => Holders::Processes(0),
                _ => Holders::Unknown,
            };
        };
        let has = |files: &Vec<PathBuf>| files.iter().any(|f| f == Path::new(node));
        let ours = processes.iter().flatten().filter(|files| has(files)).count();
        let in_caps =
            |files: &Vec<PathBuf>| files.iter().any(|f| f.starts_with("/dev/cambricon-caps"));
        let anybodys =
            processes.iter().any(|files| files.as_ref().is_none_or(|files| !in_caps(files)));
        match (ours, used) {
            (0, None) if anybodys => Holders::Unknown,
            (0, Some(1..)) => Holders::Unknown,
            (n, _) => Holders::Processes(u32::try_from(n).unwrap_or(u32::MAX)),
        }
    }
}

impl CambriconBackend {
    pub(crate) fn openers(&self, index: u32) -> Result<Openers> {
        match self.api().processes(index) {
            Ok(list) => Ok(Openers(Some(self.opened(&list)))),
            Err(failure) if failure.is_unsupported() => Ok(Openers(None)),
            Err(failure) => Err(convert::error(&failure)),
        }
    }

    fn opened(&self, list: &[Process]) -> Vec<Option<Vec<PathBuf>>> {
        list.iter().map(|process| host::opened_by(&self.tree, process.pid)).collect()
    }

    /// The handle of an instance: its number and its card's, as the library counts cards there; tried out, since
    /// nobody says which count that is.
    pub(crate) fn handle(
        &self,
        index: u32,
        number: i32,
        uuid: &str,
        uuid_of: impl Fn(i32) -> std::result::Result<String, CndevFailure>,
    ) -> Result<i32> {
        let slots = self.api().slots(index);
        let handles: Vec<i32> = slots.iter().map(|slot| (number << 8) | slot).collect();
        let mut last = None;
        for handle in &handles {
            match uuid_of(*handle) {
                Ok(found) if found == uuid => return Ok(*handle),
                Ok(_) => {}
                // No way to try it out: the likeliest.
                Err(failure) if failure.is_unsupported() => return Ok(handles[0]),
                Err(failure) if convert::is_of_the_driver(&failure) => {
                    return Err(convert::error(&failure));
                }
                Err(failure) => last = Some(failure),
            }
        }
        let why = format!("none of the handles {handles:?} leads to instance {number} ({uuid})");
        let error = Error::new(ErrorKind::Vendor, why);
        Err(match last {
            Some(failure) => error.caused_by(convert::error(&failure)),
            None => error,
        })
    }
}

const NUMBERED: &str = "instance-";
