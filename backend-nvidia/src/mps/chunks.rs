//! Scheme `mps-static`: partitions of a card's multiprocessors, which the daemon alone keeps.

use std::num::NonZeroU32;

use vgpu_core::{
    ComputeShare, CreateOrder, DeviceId, Error, ErrorKind, Holders, Partition, PartitionId,
    PartitionState, Placement, Result, Scheme, Shape, Size,
};

use crate::mps::control::unexpected;
use crate::mps::{Mps, Running};

/// The table of a daemon's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// Chunks of the card, free and used.
    pub(crate) total: NonZeroU32,
    rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// Without the card's part.
    id: String,
    chunks: u32,
    in_use: bool,
}

impl Mps {
    /// The daemon's table.
    pub(crate) fn chunks(&self, running: &Running) -> Result<Table> {
        let text = self.control(running)?.shell("lspart")?;
        table(&running.record.card, &text).ok_or_else(|| unexpected("lspart", &text))
    }

    /// The partitions as parts.
    pub(crate) fn chunk_parts(&self, running: &Running) -> Result<Vec<Partition>> {
        let table = self.chunks(running)?;
        table.rows.iter().map(|row| part(&running.record.card, table.total, row)).collect()
    }

    /// Makes a partition and finds it in the table.
    pub(crate) fn create_chunks(
        &self,
        running: &Running,
        order: &CreateOrder,
    ) -> Result<Partition> {
        let card = order.device();
        let Shape::Size(Size { compute: Some(share), .. }) = order.shape() else {
            let why = "a static MPS partition is a number of chunks; ask for compute";
            return Err(Error::new(ErrorKind::Invalid, why).with("device", card));
        };
        let before = self.chunks(running)?;
        if before.total != share.of {
            let why = format!(
                "{card} turns out to have {} chunks and not {}; scan again",
                before.total, share.of
            );
            return Err(Error::new(ErrorKind::Busy, why));
        }
        let control = self.control(running)?;
        let command = format!("sm_partition add {card} {}", share.units);
        let said = control.shell(&command)?;
        let Some(id) = created(card, &said) else { return Err(unexpected(&command, &said)) };
        let table = self.chunks(running)?;
        match table.rows.iter().find(|row| row.id == id) {
            Some(row) if row.chunks >= share.units => part(card, table.total, row),
            other => {
                // What is not what was ordered is not left behind.
                let removed = self.remove(running, &id);
                let error = unexpected(&command, &format!("{id} is listed as {other:?}"));
                Err(match removed {
                    Ok(()) => error,
                    Err(second) => error.caused_by(second),
                })
            }
        }
    }

    /// Unmakes a partition that nobody uses.
    pub(crate) fn destroy_chunks(&self, running: &Running, local: &str) -> Result<()> {
        let table = self.chunks(running)?;
        let card = &running.record.card;
        let Some(row) = table.rows.iter().find(|row| local_of(&row.id) == local) else {
            let why = format!("{card} has no MPS partition {local}");
            return Err(Error::new(ErrorKind::NotFound, why));
        };
        if row.in_use {
            let why = format!("clients use MPS partition {local} of {card}; end them first");
            return Err(Error::new(ErrorKind::Busy, why));
        }
        self.remove(running, &row.id)
    }

    fn remove(&self, running: &Running, id: &str) -> Result<()> {
        let command = format!("sm_partition rm {} {id}", running.record.card);
        let said = self.control(running)?.shell(&command)?;
        match self.chunks(running)?.rows.iter().any(|row| row.id == id) {
            true => Err(unexpected(&command, &said)),
            false => Ok(()),
        }
    }
}

fn part(card: &DeviceId, total: NonZeroU32, row: &Row) -> Result<Partition> {
    let compute = Some(ComputeShare { units: row.chunks, of: total });
    let size = Size { compute, memory: None };
    Ok(Partition {
        id: PartitionId::of(card, &Scheme::MPS_STATIC, local_of(&row.id))?,
        device: card.clone(),
        scheme: Scheme::MPS_STATIC,
        shape: Some(Shape::Size(size)),
        size,
        placement: Placement::Driver,
        handle: row.id.clone(),
        tag: None,
        state: PartitionState::Complete,
        // The table says whether, not how many.
        holders: if row.in_use { Holders::Unknown } else { Holders::Processes(0) },
    })
}

/// Base64 as it may stand in a name of ours.
fn local_of(id: &str) -> String {
    id.replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// The id in what `sm_partition add` says: the first word that begins with the card's own.
fn created(card: &DeviceId, said: &str) -> Option<String> {
    let start = format!("{card}/");
    said.split_whitespace().find_map(|word| word.strip_prefix(&start)).map(str::to_owned)
}

/// Reads the table: of columns card, partition, free and used chunks, free and used multiprocessors,
/// clients. The card is cut short, and its own line has no partition.
fn table(card: &DeviceId, text: &str) -> Option<Table> {
    let mut total = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [of, id, free, used, _, _, clients] = columns.as_slice() else { continue };
        if !of.starts_with("GPU-") || !card.as_str().starts_with(of) {
            continue;
        }
        if *id == "-" {
            let sum = free.parse::<u32>().ok()?.checked_add(used.parse().ok()?)?;
            total = NonZeroU32::new(sum);
        } else {
            let in_use = !clients.eq_ignore_ascii_case("no");
            rows.push(Row { id: (*id).to_owned(), chunks: used.parse().ok()?, in_use });
        }
    }
    Some(Table { total: total?, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> DeviceId {
        DeviceId::new("GPU-74d43ed3-cdf7-e667-3644-bf5b4f46ed65").expect("an id")
    }

    #[test]
    fn a_table_is_read_and_another_card_s_lines_are_not() {
        let text = "GPU           Partition   free   used   free  used  clients\n\
                                              chunk  chunk  SM    SM\n\
                    GPU-74d43ed3  -           1      8      74    56    -\n\
                    GPU-74d43ed3  Dx4A/+==    -      7      -     56    Yes\n\
                    GPU-74d43ed3  AADw        -      1      -     8     No\n\
                    GPU-00000000  -           9      9      72    72    -\n\
                    GPU-00000000  ZZZZ        -      9      -     72    No\n";
        let Table { total, rows } = table(&card(), text).expect("a table");
        assert_eq!((total.get(), rows.len()), (9, 2));
        assert!(rows[0].in_use && !rows[1].in_use);
        let part = part(&card(), total, &rows[0]).expect("a part");
        assert_eq!(part.id.local(), "Dx4A_-");
        assert_eq!((part.handle.as_str(), part.holders), ("Dx4A/+==", Holders::Unknown));
    }

    #[test]
    fn what_is_no_table_is_told() {
        for text in ["", "Static partitioning mode is not enabled", "GPU-74d43ed3 - x y 1 1 -"] {
            assert_eq!(table(&card(), text), None, "{text}");
        }
    }

    #[test]
    fn the_new_id_is_found_in_either_way_of_saying_it() {
        let card = card();
        for said in [format!("Partition {card}/Dx4A/A created"), format!("{card}/Dx4A/A\n")] {
            assert_eq!(created(&card, &said).as_deref(), Some("Dx4A/A"));
        }
        assert_eq!(created(&card, "Failed to fulfill the requested SM partition"), None);
    }
}
