//! How many different sizes a card has at once, where its driver keeps only so many (sMLU: 16 profiles).

use std::collections::HashSet;
use std::num::NonZeroU32;

use crate::size::Size;

/// The sizes that a card has, and those that it is to have.
///
/// What is only promised takes one of the few places as what is made does, and yet nothing can join it: another tool
/// may take the last place first, and then only sizes that are made can be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sizes {
    made: HashSet<Size>,
    promised: HashSet<Size>,
}

impl Sizes {
    /// Of parts that are there, whoever made them, and of those that are allocated and are not there yet. Each is
    /// on the scheme's grid, as the driver tells it.
    pub fn new(
        made: impl IntoIterator<Item = Size>,
        promised: impl IntoIterator<Item = Size>,
    ) -> Self {
        Self { made: made.into_iter().collect(), promised: promised.into_iter().collect() }
    }

    /// Whether one more part of `size` can be made on a card that keeps `max` sizes, in whatever order the promised
    /// ones are made, and without taking the place of one of them.
    pub fn take(&self, size: &Size, max: NonZeroU32) -> bool {
        let all = self.all();
        let new = usize::from(!all.contains(size));
        self.made.contains(size) || all.len() + new <= max.get() as usize
    }

    /// Those that are made: one more part of any of them needs no new place.
    pub fn made(&self) -> &HashSet<Size> {
        &self.made
    }

    /// All different ones, made and promised.
    pub fn all(&self) -> HashSet<&Size> {
        self.made.union(&self.promised).collect()
    }
}
