"""Real KV bytes over real TCP: the simulated workers' stand-in for NIXL. docs/workers.md describes the protocol."""
