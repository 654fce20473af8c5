"""A worker with a real small transformer on CPU, whose KV can be computed in one place and used in another."""
