"""Cases of moe.grouped_matmul for clusters of two blocks that load an operand for each other
(moe.multicast). Results are exact (grouped.grid)."""

from __future__ import annotations

from itertools import accumulate

from .grouped import Case

# Of whole tiles and pairs of them, one row less and more, and none: of the last pair of an
# expert, one block may have no rows.
COUNTS = (0, 1, 127, 128, 129, 0, 256, 257)
OFFSETS = (0, *accumulate(COUNTS))
EIGHT = dict(element="bf16", experts=8, role="input")
CASES = {case.name: case for case in (
    # Two column tiles, the second of which is ragged; three steps along k.
    Case("weights", k=136, n=264, transposed=True, multicast="weights", **EIGHT),
    Case("weights_along_n", k=136, n=264, multicast="weights", **EIGHT),
    Case("weights_gathered", k=72, n=200, transposed=True, gather=True, multicast="weights",
         **EIGHT),
    Case("weights_of_two", k=136, n=72, epilogue="product", multicast="weights", **EIGHT),
    Case("weights_of_two_gathered", k=72, n=72, gather=True, epilogue="product",
         multicast="weights", **EIGHT),
    Case("weights_interleaved", k=72, n=72, transposed=True, interleaved=(0, 1),
         epilogue="gated", multicast="weights", **EIGHT),
    Case("rows", k=136, n=264, transposed=True, multicast="rows", **EIGHT),
    Case("rows_along_n", k=136, n=264, multicast="rows", **EIGHT),
    Case("rows_of_two", k=72, n=200, epilogue="product", multicast="rows", **EIGHT),
    Case("rows_of_f16", k=72, n=264, multicast="rows", element="f16", experts=8, role="input"))}
