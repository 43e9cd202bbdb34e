//! A sound backend with one promise broken.
use crate::backend::MockBackend;
use crate::defect::Defect;
use std::sync::Arc;
#[derive(Debug, Default)]
pub(crate) struct Memory {}
#[derive(Debug)]
pub(crate) struct Flawed(MockBackend, Defect, Arc<Memory>);
impl Flawed {
    pub(crate) fn new(sound: MockBackend, defect: Defect, memory: Arc<Memory>) -> MockBackend {
        let me = Self(sound, defect, memory);
        me.0
    }
}
