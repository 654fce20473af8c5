"""Workers that speak the vLLM HTTP contract without a GPU."""

VERSION = "0.1.0"
