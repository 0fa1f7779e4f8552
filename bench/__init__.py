"""Benchmarks: wsframe beside other implementations and beside the limit of the machine."""
