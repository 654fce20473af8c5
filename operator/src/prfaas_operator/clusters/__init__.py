"""Access to Kubernetes clusters: the hub and its members, through `kubernetes.aio`."""
