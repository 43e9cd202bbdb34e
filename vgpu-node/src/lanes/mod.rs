//! Calls to a driver.
