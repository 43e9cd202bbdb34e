//! The thin node agent between vgpu-node and the kubelet.
