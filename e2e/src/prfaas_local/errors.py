"""The errors of the local clusters."""


class LocalClusterError(Exception):
    """Something of the local clusters cannot be had or did not come up; the message says what to do."""
