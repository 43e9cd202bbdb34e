//! Static SM partitions: chunks of a card, each in at most one of them. The id says where they lie.

/// The chunks of one card.
pub(crate) struct Chunks {
    total: u32,
    sms: u32,
    parts: Vec<u128>,
}

impl Chunks {
    pub(crate) fn new(total: u32, sms: u32) -> Self {
        Self { total, sms, parts: Vec::new() }
    }

    /// Takes the lowest free chunks; the id, or nothing where too few are left.
    pub(crate) fn add(&mut self, count: u32) -> Option<String> {
        let taken = self.parts.iter().fold(0_u128, |all, part| all | part);
        let free: Vec<u32> = (0..self.total).filter(|n| taken & (1 << n) == 0).collect();
        if count == 0 || free.len() < count as usize {
            return None;
        }
        let part = free.iter().take(count as usize).fold(0_u128, |all, n| all | (1 << n));
        self.parts.push(part);
        Some(id(part))
    }

    pub(crate) fn remove(&mut self, named: &str) -> bool {
        let before = self.parts.len();
        self.parts.retain(|part| id(*part) != named);
        self.parts.len() < before
    }

    /// The table: the card's line first, then a line each. Only the start of the card's id is shown.
    pub(crate) fn table(&self, card: &str, in_use: impl Fn(&str) -> bool) -> String {
        let short = &card[..card.len().min(12)];
        let used: u32 = self.parts.iter().map(|part| part.count_ones()).sum();
        let free = self.total - used;
        let mut text = String::from(
            "GPU           Partition                             free   used   free  used  clients\n",
        );
        text += "                                                    chunk  chunk  SM    SM\n";
        text +=
            &format!("{short}  -  {free}  {used}  {}  {}  -\n", free * self.sms, used * self.sms);
        for part in &self.parts {
            let (id, chunks) = (id(*part), part.count_ones());
            let clients = if in_use(&id) { "Yes" } else { "No" };
            text += &format!("{short}  {id}  -  {chunks}  -  {}  {clients}\n", chunks * self.sms);
        }
        text
    }
}

/// Base64 of the chunks, as the program's own ids look; `/` and `+` come up in them too.
fn id(part: u128) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0_u8; 27];
    bytes[..16].copy_from_slice(&part.to_le_bytes());
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let all = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            text.push(char::from(LETTERS[(all >> shift & 63) as usize]));
        }
    }
    text
}
