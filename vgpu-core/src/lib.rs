//! The vendor-neutral model, traits, planner and CDI of vgpu.
