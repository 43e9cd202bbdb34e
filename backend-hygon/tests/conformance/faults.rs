//! Faults on a prepared host: its files, the fakes' control file, the disk.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use vgpu_conformance::{During, FaultPlan, Fixture, Support};
use vgpu_core::{
    CreateOrder, DeviceId, Error, ErrorKind, Meaning, PartitionId, Placement, Result, Scheme,
    Shape, Subject,
};

use crate::fixture::FakeHygon;
use crate::support::{DiskFaults, put};

const PIDS: std::ops::Range<u32> = 7_000..7_016;

impl FakeHygon {
    /// Tells the fakes; `{}` takes everything back.
    fn control(&self, control: &Value) -> Result<Support> {
        let file = self.fake.control_file();
        put(&file, &control.to_string()).map_err(|e| Error::io("write", &file, &e))?;
        Ok(Support::Played)
    }

    fn done(&self, result: io::Result<()>) -> Result<Support> {
        result.map_err(|e| Error::io("change", &self.fake.root, &e))?;
        Ok(Support::Played)
    }

    fn is_cut(&self) -> bool {
        let mode = self.fake.at("etc/dmi_mig_config/mode");
        fs::read_to_string(mode).is_ok_and(|text| text == "1")
    }

    /// The registry's files of an instance, by its UUID: GPU instance and compute instance.
    fn registered(&self, part: &PartitionId) -> Result<(PathBuf, PathBuf)> {
        let listed = self.open()?.partitions(&part.device())?;
        let handle = listed.into_iter().find(|p| p.id == *part).map(|p| p.handle);
        let absent = || Error::new(ErrorKind::NotFound, format!("there is no {part}"));
        let uuid = handle.ok_or_else(absent)?.trim_start_matches("MIG-").to_owned();
        let folder = self.fake.at("etc/dmi_mig_config/ci");
        for entry in fs::read_dir(&folder).map_err(|e| Error::io("list", &folder, &e))?.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            if let (true, Some(stem)) = (text.contains(&uuid), name.strip_suffix("ci0.conf")) {
                let gpu = self.fake.at(&format!("etc/dmi_mig_config/gi/{stem}.conf"));
                return Ok((gpu, entry.path()));
            }
        }
        Err(absent())
    }

    /// The file by which a process is known to use a part: its path in the container, and its text.
    fn seen_of(&self, part: &PartitionId) -> Result<(String, String)> {
        if part.scheme() == Scheme::HCU_MIG {
            let (_, file) = self.registered(part)?;
            let below = file.strip_prefix(&self.fake.root).expect("it is below the root");
            return Ok((below.display().to_string(), "seen".into()));
        }
        let file = self.fake.at(&format!("etc/vdev/vdev{}.conf", part.local()));
        let text = fs::read_to_string(&file).map_err(|e| Error::io("read", &file, &e))?;
        Ok(("etc/vdev/docker/vdev0.conf".into(), text))
    }
}

impl FaultPlan for FakeHygon {
    fn fail(
        &self,
        device: &DeviceId,
        during: During,
        nth: u32,
        kind: ErrorKind,
    ) -> Result<Support> {
        if during == During::Usage {
            let code = match kind {
                ErrorKind::Busy => 16,
                ErrorKind::Permission => 4,
                ErrorKind::Vendor => 6,
                other => return Ok(Support::Declined(format!("no code of ROCm SMI is {other}"))),
            };
            // The kernel does not tell, so that the library is asked.
            let n = self.fake.place(device)?;
            let file = self.fake.card_folder(n).join("mem_info_vram_used");
            let _gone = fs::remove_file(file);
            return self.control(
                &json!({ "fail": [{ "function": "rsmi_dev_memory_usage_get", "code": code }] }),
            );
        }
        let (calls, codes): (&[&str], [u32; 3]) = match (self.is_cut(), self.is_by_library()) {
            (true, _) => (
                &[
                    "nvmlDeviceCreateGpuInstanceWithPlacement",
                    "nvmlGpuInstanceCreateComputeInstance",
                ],
                [19, 4, 999],
            ),
            (false, true) => (&["dmiCreateVDevices"], [17, 19, 1]),
            (false, false) => {
                // EBUSY, EACCES, EREMOTEIO.
                let errno = match kind {
                    ErrorKind::Busy => 16,
                    ErrorKind::Permission => 13,
                    ErrorKind::Vendor => 121,
                    other => return Ok(Support::Declined(format!("no errno is {other}"))),
                };
                // Write, link, sync; removing the draft is not needed for the part.
                let fail = (nth <= 3).then_some((nth, errno));
                self.disk.set(DiskFaults { fail, ..DiskFaults::default() });
                return Ok(Support::Played);
            }
        };
        let code = match kind {
            ErrorKind::Busy => codes[0],
            ErrorKind::Permission => codes[1],
            ErrorKind::Vendor => codes[2],
            other => return Ok(Support::Declined(format!("no code of the library is {other}"))),
        };
        match calls.get(nth as usize - 1) {
            Some(call) => self.control(&json!({ "fail": [{ "function": call, "code": code }] })),
            // A create changes no more than that: it comes to its end.
            None => Ok(Support::Played),
        }
    }

    fn interrupt(&self, _device: &DeviceId, after: u32) -> Result<Support> {
        if self.is_cut() || self.is_by_library() {
            return self.control(&json!({ "die_after": after }));
        }
        self.disk.set(DiskFaults { die_after: Some(after), ..DiskFaults::default() });
        Ok(Support::Played)
    }

    fn hang(&self, device: &DeviceId) -> Result<Support> {
        let n = self.fake.place(device)?;
        let hanging = self.fake.hang(n).map_err(|e| Error::io("hang", &self.fake.root, &e))?;
        *self.hanging.lock().unwrap_or_else(PoisonError::into_inner) = Some(hanging);
        Ok(Support::Played)
    }

    fn is_hanging(&self) -> Result<bool> {
        let mut hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(hanging.as_mut().is_some_and(|hanging| hanging.is_read()))
    }

    fn heal(&self) -> Result<()> {
        self.disk.set(DiskFaults::default());
        let _played = self.control(&json!({}))?;
        let hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner).take();
        match hanging {
            Some(hanging) => {
                hanging.release().map_err(|e| Error::io("release", &self.fake.root, &e))
            }
            None => Ok(()),
        }
    }

    fn lose(&self, device: &DeviceId) -> Result<Support> {
        self.done(self.fake.lose(self.fake.place(device)?))
    }

    fn restore(&self, device: &DeviceId) -> Result<Support> {
        self.done(self.fake.restore(self.fake.place(device)?))
    }

    fn condition(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        let count = match meaning {
            Meaning::Good => "ue: 0\nce: 0\n",
            Meaning::NeedsReset => "ue: 3\nce: 8\n",
            other => return Ok(Support::Declined(format!("no reading of a card is {other}"))),
        };
        self.done(self.fake.set(self.fake.place(device)?, "ras/umc_err_count", count))
    }

    fn hold(&self, subject: &Subject, processes: u32) -> Result<Support> {
        PIDS.for_each(|pid| self.fake.end(pid));
        let (device, sees) = match subject {
            Subject::Device(device) => (device.clone(), None),
            Subject::Part(part) if processes > 0 => (part.device(), Some(self.seen_of(part)?)),
            Subject::Part(part) => (part.device(), None),
            _ => return Ok(Support::Declined("only cards and parts are held".into())),
        };
        let n = self.fake.place(&device)?;
        let sees: Vec<(&str, &str)> = sees.iter().map(|(path, text)| (&**path, &**text)).collect();
        for pid in PIDS.take(processes as usize) {
            let _played = self.done(self.fake.run(pid, n, &sees))?;
        }
        Ok(Support::Played)
    }

    fn foreign(&self, order: &CreateOrder) -> Result<Option<PartitionId>> {
        let device = order.device();
        match (order.shape(), order.placement()) {
            (Shape::Profile(profile), Placement::Slots(slots)) => {
                let Some(id) = [("2g", 3), ("4g", 10), ("8g", 24)]
                    .iter()
                    .find(|(name, _)| profile.as_str().starts_with(name))
                    .map(|(_, id)| id)
                else {
                    return Ok(None);
                };
                let registry = self.fake.at("etc/dmi_mig_config");
                let number = (0..64).find(|n| {
                    let text = fs::read_to_string(registry.join(format!("dev{n}")));
                    text.is_ok_and(|text| text.trim() == device.as_str())
                });
                let Some(number) = number else { return Ok(None) };
                let free = |gi: &u32| !registry.join(format!("gi/dev{number}gi{gi}.conf")).exists();
                let gi = (1..64).find(free).expect("few are there");
                let text = format!("{id} {}\n", slots.start);
                let _played =
                    self.done(put(&registry.join(format!("gi/dev{number}gi{gi}.conf")), &text))?;
                let conf = "pci: x\nmig_uuid: 00aa-foreign\n";
                let _played =
                    self.done(put(&registry.join(format!("ci/dev{number}gi{gi}ci0.conf")), conf))?;
                let local = format!("{profile}-{}", slots.start);
                PartitionId::of(device, &Scheme::HCU_MIG, local).map(Some)
            }
            (Shape::Size(size), placement) => {
                let there = self.fake.confs();
                let number = (0..200).find(|n| there.iter().all(|(m, _)| m != n)).expect("few");
                let mask = match placement {
                    Placement::Units(words) => [0, 1].map(|n| words.get(n).copied().unwrap_or(0)),
                    // The highest units, which nobody was given yet.
                    _ => {
                        let cards = &self.fake.cards[self.fake.place(device)?];
                        let unit = cards.units - 1;
                        if unit < 64 { [1 << unit, 0] } else { [0, 1 << (unit - 64)] }
                    }
                };
                let memory = size.memory.map_or(1, |m| m.0 >> 20);
                let text = format!(
                    "PciBusId: {device}\ncu_mask: 0x{:016x}\ncu_mask: 0x{:016x}\ncu_count: 1\n\
                     mem: {memory} MiB\ndevice_id: 0\nvdev_id: {number}\npipe_id: 19\nenable: 1\n",
                    mask[0], mask[1]
                );
                let _played =
                    self.done(put(&self.fake.at(&format!("etc/vdev/vdev{number}.conf")), &text))?;
                PartitionId::of(device, &Scheme::VDCU, number).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn vanish(&self, part: &PartitionId) -> Result<Support> {
        if part.scheme() == Scheme::HCU_MIG {
            let (gpu, compute) = self.registered(part)?;
            let _played = self.done(fs::remove_file(gpu))?;
            return self.done(fs::remove_file(compute));
        }
        self.done(fs::remove_file(self.fake.at(&format!("etc/vdev/vdev{}.conf", part.local()))))
    }

    fn event(&self, device: &DeviceId, meaning: Meaning) -> Result<Support> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let kind = match meaning {
            Meaning::TenantFault => 1,
            Meaning::Suspect => 2,
            Meaning::Resetting => 3,
            Meaning::Changed => 4,
            Meaning::NeedsReset => return self.condition(device, meaning),
            other => return Ok(Support::Declined(format!("no event of a card is {other}"))),
        };
        let id = format!("event-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let event = json!({ "id": id, "address": device, "kind": kind });
        self.control(&json!({ "events": [event] }))
    }

    fn replace_driver(&self) -> Result<Support> {
        self.done(put(&self.fake.at("sys/module/hycu/version"), "6.4.0\n"))
    }

    fn reboot(&self) -> Result<Support> {
        PIDS.for_each(|pid| self.fake.end(pid));
        // Hardware instances are lost; what the registry leaves behind poisons their numbers.
        let registry = self.fake.at("etc/dmi_mig_config");
        for folder in ["gi", "ci"] {
            for entry in fs::read_dir(registry.join(folder)).into_iter().flatten().flatten() {
                let _played = self.done(fs::remove_file(entry.path()))?;
                if folder == "ci" {
                    let _played = self.done(fs::create_dir_all(entry.path().with_extension("")))?;
                }
            }
        }
        Ok(Support::Played)
    }
}
