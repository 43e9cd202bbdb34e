//! Which cards may be handed out.
