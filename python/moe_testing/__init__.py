"""What the tests of this repository and the checks of a device share: layers of every family in
MLIR, inputs, oracles, and arrays on a device. It is not installed with the package moe."""
