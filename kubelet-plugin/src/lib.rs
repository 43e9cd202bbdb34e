//! What a kubelet plugin in Rust needs; knows no GPU.
