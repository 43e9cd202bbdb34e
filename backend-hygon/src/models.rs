//! Models by PCI device id. Only names and, where the driver does not tell, compute units come from
//! here: a card that nobody listed works all the same.

/// What a card is called: by the table, else by its PCI id.
pub(crate) fn name(device: u32) -> String {
    match MODELS.iter().find(|(id, _)| *id == device) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("Hygon 1d94:{device:04x}"),
    }
}

/// Compute units by model, where neither driver nor library tells them.
pub(crate) fn compute_units(device: u32) -> Option<u32> {
    let name = name(device);
    UNITS.iter().find(|(model, _)| *model == name).map(|(_, units)| *units)
}

/// Every count of compute units in the tables.
#[cfg(test)]
pub(crate) fn counts() -> Vec<u32> {
    let mut counts: Vec<u32> = UNITS.iter().map(|(_, units)| *units).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

const UNITS: &[(&str, u32)] = &[
    ("BW100", 80),
    ("BW100_LC", 80),
    ("BW200", 80),
    ("BW200_LC", 80),
    ("K100", 120),
    ("K100_AI", 120),
    ("K100_LC_AI", 120),
    ("K100_LC_E_AI", 128),
    ("Z100", 60),
    ("Z100L", 60),
];

const MODELS: &[(u32, &str)] = &[
    (0x51b7, "Z200SM_80"),
    (0x52b7, "ZIFANG 8182"),
    (0x54b7, "Z100"),
    (0x55b7, "Z100L"),
    (0x55c7, "Z200SM_71"),
    (0x55d7, "Z200SM_71_S"),
    (0x56b7, "Z200SM_81"),
    (0x57b7, "ZIFANG 8185"),
    (0x61a7, "K500SM_B"),
    (0x61b7, "K500SM"),
    (0x61c7, "K500SM_B"),
    (0x61d7, "K500SM"),
    (0x61e7, "K500SM"),
    (0x61f7, "K500"),
    (0x6210, "K100_AI"),
    (0x6211, "K100_LC_E_AI"),
    (0x6212, "K100_LC_AI"),
    (0x6213, "K100_AI_i"),
    (0x6214, "K500"),
    (0x62a0, "K500SM_AI"),
    (0x62b0, "K500SM_AI"),
    (0x62b7, "K100"),
    (0x62c7, "K100-LC"),
    (0x6310, "BW200"),
    (0x6311, "BW200_LC"),
    (0x631a, "BW1000_H"),
    (0x6320, "BW150"),
    (0x6321, "BW100_LC"),
    (0x632a, "BW151"),
    (0x6330, "BW500SM"),
    (0x6360, "BW10"),
    (0x636a, "BW11"),
    (0x6370, "BW100"),
    (0x637a, "BW101"),
    (0x6423, "BW1500B"),
    (0x6430, "BW1100"),
    (0x6431, "BW1000_LC"),
    (0x6436, "BW3000B"),
    (0x6437, "BW3000B_LC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_nobody_listed_has_a_name() {
        assert_eq!(name(0x6210), "K100_AI");
        assert_eq!(name(0xffff), "Hygon 1d94:ffff");
        assert_eq!((compute_units(0x6370), compute_units(0x6423)), (Some(80), None));
    }

    #[test]
    fn every_count_belongs_to_a_model() {
        for (model, _) in UNITS {
            assert!(MODELS.iter().any(|(_, name)| name == model), "{model}");
        }
        assert_eq!(counts(), [60, 80, 120, 128]);
    }
}
