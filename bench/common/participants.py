"""Errors of participants, and their representation in results."""

from __future__ import annotations


class Unavailable(Exception):
    """A participant that cannot run on this machine, or not this case; has the reason."""


def message(error: BaseException) -> str:
    """Format an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
