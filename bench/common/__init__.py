"""What all benchmarks share: shapes, weights and inputs, timing, comparisons, the machine."""
