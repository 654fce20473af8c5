"""Workers that speak the vLLM HTTP contract without a GPU."""
