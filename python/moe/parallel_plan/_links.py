"""Constants of links, and the time of an exchange over them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from ._files import fail, load_json

__all__ = ["Link", "Links", "read_links"]


@dataclass(frozen=True)
class Link:
    """A link of a rank: each direction takes ``alpha`` seconds and 1 / ``beta`` a byte."""

    alpha: float
    beta: float

    def seconds(self, count: float) -> float:
        """Return the time of so many bytes in one direction; none take none."""
        return self.alpha + count / self.beta if count > 0 else 0.0


@dataclass(frozen=True)
class Links:
    """The links of a rank: ``node`` to ranks of its node, ``network`` to others.

    ``flops`` and ``bandwidth`` are what the rank computes, and reads of its memory, a second; None
    where the file does not say.
    """

    name: str
    node: Link
    network: Link
    flops: float | None = None
    bandwidth: float | None = None

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Links:
        """Read a file of constants.

        ``{"format": 1, "name": "...", "node": {"alpha": seconds, "beta": bytes a second},
        "network": {...}, "rank": {"flops": ..., "bandwidth": ...}}``; ``rank`` may be absent.
        """
        found = load_json(path)
        if not isinstance(found, dict) or found.get("format") != 1:
            raise fail(path, "expected an object with 'format' 1")
        unknown = sorted(set(found) - {"format", "name", "node", "network", "rank"})
        if unknown:
            raise fail(path, f"has '{unknown[0]}', expected 'name', 'node', 'network' and 'rank'")
        name = found.get("name", "links")
        if not isinstance(name, str):
            raise fail(path, f"'name' is {name!r}, expected a text")
        links = [Link(*_numbers(path, found, key, ("alpha", "beta"))) for key in
                 ("node", "network")]
        rank = _numbers(path, found, "rank", ("flops", "bandwidth")) if "rank" in found else ()
        return Links(name, *links, *rank)


def _numbers(path: str | os.PathLike[str], found: dict[str, Any], key: str,
             names: tuple[str, ...]) -> list[float]:
    entry = found.get(key)
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise fail(path, f"expected '{key}' to be an object with '{names[0]}' and '{names[1]}'")
    numbers = []
    for name in names:
        value = entry[name]
        least = "at least 0" if name == "alpha" else "above 0"
        if (type(value) not in (int, float) or not math.isfinite(value) or value < 0
                or (value == 0 and name != "alpha")):
            raise fail(path, f"'{key}': '{name}' is {value!r}, expected a number {least}")
        numbers.append(float(value))
    return numbers


def read_links(path: str | os.PathLike[str] | None) -> Links | None:
    """Read a file of constants, if any."""
    return None if path is None else Links.read(path)
