"""Local Kubernetes clusters without containers."""
