//! One node: inventory, offers, claims, ledger, lanes and health policy.
