//! Cambricon MLUs, loaded at run time.
