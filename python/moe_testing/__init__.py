"""What the tests of this repository and the checks of a device share. It is not installed with the
package moe.

``layers`` writes layers of every family in MLIR, ``mlir`` helps it to; ``data`` has weights and
inputs for them, ``oracles`` what they should compute. ``cases`` are single operations, ``models``
modules of transformers. ``device`` has the driver and arrays on a device.
"""
