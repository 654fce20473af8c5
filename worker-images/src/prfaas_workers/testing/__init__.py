"""Builders for tests: importlib mode cannot import them from a test folder."""
