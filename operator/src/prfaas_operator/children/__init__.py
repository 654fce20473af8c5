"""Builders of the objects in member clusters: pure functions from a value to the body of a server-side apply."""
