"""The writer of MLIR text that layers.py uses."""
