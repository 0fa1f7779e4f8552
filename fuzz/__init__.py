"""Fuzzing of the codec on both kernels: ``python -m fuzz --help``."""
