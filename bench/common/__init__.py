"""Shared code of the benchmarks: shapes, weights and inputs, timing, comparisons, the machine."""
