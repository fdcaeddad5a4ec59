"""What checks the layers on a GPU: the layers, the bundle that takes them there, the checks."""
