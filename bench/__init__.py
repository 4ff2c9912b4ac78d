"""Benchmarks: what the processor does with a second of CPU, beside the plain way to do the same."""
