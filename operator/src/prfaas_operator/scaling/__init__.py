"""From Prometheus to numbers of workers, and to the use of links."""
