//! Hygon DCUs and HCUs, loaded at run time.
