"""A TCP link between two clusters with a bandwidth, a delay and faults that are changed while it runs."""
