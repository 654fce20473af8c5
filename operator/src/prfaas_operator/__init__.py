"""The hub operator."""
