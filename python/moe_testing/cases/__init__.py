"""Single operations with their MLIR text, inputs for them and what numpy computes."""
