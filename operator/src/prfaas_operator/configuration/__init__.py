"""Programming the routers: what they are told, which version of it, and who has it."""
