"""This project, with the proxy fence of gathered rows in the consumer warps."""

from __future__ import annotations

from . import Case
from .moe_mlir import Compiled


def open(case: Case) -> Compiled:
    return Compiled(case, "consumer")
