"""Checks of layers on a GPU: the layers, the bundle that contains them, the checks."""
