"""Functions of one moe.grouped_contract each: their MLIR text, inputs for them and what numpy
computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import data
from .grouped import normal, tensor

SOURCE_ROWS = {"lhs": 37, "rhs": 41}  # where rows are gathered
UNIT = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}
SMALLEST = {"f32": 2.0**-149, "bf16": 2.0**-133, "f16": 2.0**-24}


@dataclass(frozen=True)
class Case:
    """A function of one contraction; `experts` of the experts that the offsets have, from
    `first` on. Without offsets there is one expert."""

    name: str
    k: int
    n: int
    element: str = "f32"
    result: str = "f32"
    experts: int = 5
    offsets: bool = True
    groups: int = 0
    first: int = 0
    gathers: tuple[str, ...] = ()
    accumulate: bool = False
    lhs_rows: int = -1

    @property
    def offset_count(self) -> int:
        return (self.groups or self.experts) + 1

    def shape(self, side: str) -> tuple[int, int]:
        rows = SOURCE_ROWS[side] if side in self.gathers else (
            self.lhs_rows if side == "lhs" else -1)
        return rows, self.k if side == "lhs" else self.n

    def text(self) -> str:
        declared, sides = [], []
        for side in ("lhs", "rhs"):
            declared.append((side, tensor(self.shape(side), self.element)))
            words = f"%{side}"
            if side in self.gathers:
                declared.append((f"{side}_gather", "tensor<?xi32>"))
                words += f" gather(%{side}_gather : tensor<?xi32>)"
            sides.append(words)
        words = ", ".join(sides)
        if self.offsets:
            kind = tensor((self.offset_count,), "i32")
            declared.append(("offsets", kind))
            words += f" offsets(%offsets : {kind})"
        if self.groups:
            words += f" first({self.first})"
        out = tensor((self.experts, self.k, self.n), self.result)
        before = f"  %init = tensor.empty() : {out}\n"
        if self.accumulate:
            declared.append(("init", out))
            words, before = words + " accumulate", ""
        types = dict(declared)
        signature = ", ".join(f'%{n}: {t} {{moe.name = "{n}"}}' for n, t in declared)
        return f"""func.func @{self.name}({signature}) -> {out} {{
{before}  %y = moe.grouped_contract {words} outs(%init : {out})
    : {types["lhs"]}, {types["rhs"]} -> {out}
  return %y : {out}
}}
"""

    def inputs(self, rows: int, offsets=None, draw=normal) -> dict[str, np.ndarray]:
        r = data.rng("contract", self.name, rows)
        made = {}
        for side in ("lhs", "rhs"):
            count, columns = self.shape(side)
            made[side] = draw(r, (rows if count < 0 else count, columns), self.element)
            if side in self.gathers:  # a third of them are no rows
                made[f"{side}_gather"] = r.integers(-count // 4, count + count // 4,
                                                    rows).astype(np.int32)
        if self.offsets:
            if offsets is None:
                offsets = np.sort(r.integers(0, rows + 1, self.offset_count))
            made["offsets"] = np.asarray(offsets, np.int64).astype(np.int32)
        if self.accumulate:
            made["init"] = draw(r, (self.experts, self.k, self.n), self.result)
        return made

    def rows_of(self, arrays: dict[str, np.ndarray], side: str) -> np.ndarray:
        x = arrays[side].astype(np.float64)
        if side not in self.gathers:
            return x
        return x[np.clip(arrays[f"{side}_gather"], 0, len(x) - 1)]

    def expected(self, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The sums, and how far off they may be: one rounding of f32 to a product, as many as there
        are terms to the sum, relative to the sum of magnitudes, and one to the result."""
        x, y = (self.rows_of(arrays, side) for side in ("lhs", "rhs"))
        rows = min(len(x), len(y))
        init = arrays.get("init", np.zeros((self.experts, self.k, self.n)))
        sums, sizes = init.astype(np.float64), np.abs(init.astype(np.float64))
        counts = np.zeros((self.experts, 1, 1))
        for expert in range(self.experts):
            place = self.first + expert
            begin, end = (np.clip(arrays["offsets"][place:place + 2], 0, rows) if self.offsets
                          else (0, rows))
            part = slice(begin, max(begin, end))
            sums[expert] += x[part].T @ y[part]
            sizes[expert] += np.abs(x[part]).T @ np.abs(y[part])
            counts[expert] = max(end - begin, 0)
        roundings = np.where(counts > 0, counts + 1, 0)
        error = roundings * 2.0**-24 * sizes + UNIT[self.result] * np.abs(sums)
        return sums, error + np.where(counts > 0, SMALLEST[self.result], 0)
