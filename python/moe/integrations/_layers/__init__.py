"""Compiled layers as modules and operations of PyTorch, with their gradients."""
