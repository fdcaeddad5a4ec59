"""Types of command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Parse a comma-separated list of known names."""
    known = list(known)

    def parse(text: str) -> list[str]:
        for name in (names := text.split(",")):
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"expected some of {', '.join(known)}, got '{name}'")
        return names

    return parse


def counts(text: str) -> list[int]:
    """Parse positive integers separated by commas; returns them in ascending order."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = [0]
    if numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"expected positive numbers, got '{text}'")
    return numbers
