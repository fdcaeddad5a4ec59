"""Functions of JAX: their StableHLO, their gradients, and calls from programs of XLA."""
