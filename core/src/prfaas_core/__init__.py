"""The pure part of PrfaaS: values and decisions, without I/O or a clock."""
