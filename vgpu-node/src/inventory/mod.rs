//! What the machine has now.
