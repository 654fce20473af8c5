"""A worker with the service times of a ModelProfile."""
