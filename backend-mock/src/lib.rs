//! Scripted machines of any shape with faults on demand.
