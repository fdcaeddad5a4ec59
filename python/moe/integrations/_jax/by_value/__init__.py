"""Experts of a function of JAX that are found by what it computes."""

from .search import find_by_value

__all__ = ["find_by_value"]
