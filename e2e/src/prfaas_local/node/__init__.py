"""A node agent: kubelet and Service proxy for pods that are plain processes on loopback addresses."""
