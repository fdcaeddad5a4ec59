"""Cases of moe.grouped_matmul for a GPU: sums of many steps, all tiles, the split of a sum over a
cluster. Results are exact (grouped.grid)."""

from __future__ import annotations

from .grouped import Case, Extra

# k: less than a step of 64, a whole number of steps that 4, 2 or no blocks can share, more
# steps than stages, a rest of 8.
CASES = [
    *[Case(f"sum_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=3,
           transposed=transposed, role="input")
      for element, k, n, transposed in (
          ("bf16", 8, 16, False), ("bf16", 72, 136, False), ("bf16", 512, 136, False),
          ("bf16", 1024, 72, False), ("bf16", 1096, 200, False), ("f16", 1024, 264, False),
          ("bf16", 24, 7, True), ("bf16", 72, 130, True), ("f16", 512, 71, True),
          ("bf16", 1024, 129, True), ("bf16", 1536, 64, True), ("bf16", 1096, 200, True))],
    *[Case(f"gather_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=4, gather=True,
           epilogue="product", transposed=transposed, role="input")
      for element, k, n, transposed in (
          ("bf16", 8, 16, False), ("bf16", 520, 136, False), ("bf16", 1024, 64, False),
          ("f16", 72, 33, True), ("bf16", 1024, 97, True), ("bf16", 512, 192, True))],
    Case("dense", 1024, 72, "bf16", experts=0, transposed=True, role="input"),
    Case("part", 512, 40, "bf16", groups=7, first=3, init="input", role="input"),
    Case("many_experts", 256, 24, "bf16", experts=100, gather=True, role="input"),
    Case("wide", 1024, 72, "bf16", "f32", experts=3, epilogue="swiglu", role="input",
         transposed=True),
    # Columns of both products alternate in one tensor, that of either first; not all of them.
    *[Case(f"interleaved_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=3,
           gather=gather, epilogue="gated", transposed=transposed, interleaved=first, role="input")
      for element, k, n, transposed, gather, first in (
          ("bf16", 72, 136, False, False, (0, 1)), ("f16", 512, 72, False, True, (1, 0)),
          ("bf16", 1024, 200, False, False, (8, 9)), ("f16", 24, 7, True, False, (4, 3)),
          ("bf16", 520, 130, True, True, (0, 1)), ("bf16", 1024, 97, True, False, (1, 0)))],
    *[Case(f"interleaved_biases_{n}{'t' * transposed}", 72, n, "bf16", experts=4, gather=True,
           epilogue="gated_biases", transposed=transposed, interleaved=(0, 1), role="input",
           extras=(Extra("en", "bf16", strided=True, first=0), Extra("en", "bf16", strided=True)))
      for n, transposed in ((72, False), (33, True))],
]
# Products for experts with few rows and with many.
TWO = [
    Case("two_bf16", 72, 136, "bf16", experts=12, role="input"),
    Case("two_f16", 136, 40, "f16", experts=12, gather=True, epilogue="product",
         transposed=True, role="input"),
    Case("two_of_part", 72, 24, "bf16", experts=3, groups=7, first=3, init="input", role="input"),
    Case("few_of_40", 64, 72, "f16", experts=40, transposed=True, role="input"),
    Case("split_of_40", 1024, 72, "bf16", experts=40, role="input"),
]
BY_NAME = {case.name: case for case in CASES + TWO}
