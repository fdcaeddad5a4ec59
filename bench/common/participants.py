"""What participants raise, and what becomes of it in a result."""

from __future__ import annotations


class Unavailable(Exception):
    """A participant that cannot run here, or not this case; says why."""


def message(error: BaseException) -> str:
    """The error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
