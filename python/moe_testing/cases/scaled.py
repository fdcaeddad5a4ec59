"""Products of 8-bit weights with block scales, as DeepSeek-V3 has them: their MLIR text, inputs
for them and what numpy computes by the formula, in f64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import moe
import numpy as np

from .. import data
from ..device import arrays as gpu
from .grouped import LHS_ROWS, tensor

EXPERTS = 3
F8 = "f8E4M3FN"

EPILOGUES: dict[int, tuple[str, Callable[..., np.ndarray]]] = {
    1: ("    %r = arith.addf %s0, %zero : f32", lambda s: s),
    2: ("    %p = arith.mulf %s0, %s1 : f32\n    %r = arith.subf %p, %s0 : f32",
        lambda a, b: a * b - a),
}


@dataclass(frozen=True)
class Case:
    """One moe.grouped_matmul of weights ``[E, n, k]``."""

    name: str
    k: int
    n: int
    rows: str = F8
    products: int = 1
    # Of one tensor of weights, the first column of each product, which has every other one.
    interleaved: tuple[int, ...] = ()
    gather: bool = False
    blocks: tuple[int, int] | None = (128, 128)
    row_scales: bool = True
    out: str = "f32"

    @property
    def scaled_rows(self) -> bool:
        return self.blocks is not None and self.row_scales and self.rows == F8

    @property
    def of_k(self) -> int:
        return -(-self.k // self.blocks[0])

    @property
    def of_n(self) -> int:
        return -(-self.n // self.blocks[1])

    def text(self) -> str:
        lhs_rows = LHS_ROWS if self.gather else -1
        lhs, out = tensor((lhs_rows, self.k), self.rows), tensor((-1, self.n), self.out)
        weights = tensor((EXPERTS, self.n, self.k), F8)
        declared = [("x", lhs, "input")]
        words = ["%x"]
        if self.gather:
            declared.append(("gather", "tensor<?xi32>", "input"))
            words.append("gather(%gather : tensor<?xi32>)")
        declared.append(("offsets", tensor((EXPERTS + 1,), "i32"), "input"))
        words.append(f"offsets(%offsets : {declared[-1][1]})")
        names = [f"w{i}" for i in range(self.products)]
        slices = []
        if self.interleaved:
            both = tensor((EXPERTS, 2 * self.n, self.k), F8)
            declared.append(("w", both, "weight"))
            slices = [f"  %{w} = tensor.extract_slice %w[0, {first}, 0] "
                      f"[{EXPERTS}, {self.n}, {self.k}] [1, 2, 1] : {both} to {weights}\n"
                      for w, first in zip(names, self.interleaved)]
        else:
            declared += [(w, weights, "weight") for w in names]
        words.append(f"weights({', '.join('%' + w for w in names)} : "
                     f"{', '.join([weights] * self.products)}) transposed")
        if self.scaled_rows:
            declared.append(("x_scales", tensor((lhs_rows, self.of_k), "f32"), "input"))
            words.append(f"lhs_scales(%x_scales : {declared[-1][1]})")
        if self.blocks:
            kind = tensor((EXPERTS, self.of_n, self.of_k), "f32")
            scales = [f"{w}_scales" for w in names]
            declared += [(s, kind, "weight") for s in scales]
            words.append(f"weight_scales({', '.join('%' + s for s in scales)} : "
                         f"{', '.join([kind] * self.products)}) blocks({list(self.blocks)})")
        source = "gather" if self.gather else "x"
        kind = "tensor<?xi32>" if self.gather else lhs
        signature = ",\n    ".join(f'%{n}: {t} {{moe.name = "{n}", moe.role = "{r}"}}'
                                   for n, t, r in declared)
        sums = ", ".join(f"%s{i}: f32" for i in range(self.products))
        rounding = "" if self.out == "f32" else (
            f"\n    %rounded = arith.truncf %r : f32 to {self.out}")
        return f"""func.func @{self.name}(
    {signature}) -> {out} {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant -0.0 : f32
  %t = tensor.dim %{source}, %c0 : {kind}
  %init = tensor.empty(%t) : {out}
{"".join(slices)}  %y = moe.grouped_matmul {' '.join(words)}
      outs(%init : {out}) {{
  ^bb0({sums}):
{EPILOGUES[self.products][0]}{rounding}
    moe.yield {'%rounded' if rounding else '%r'} : {self.out}
  }} : {lhs} -> {out}
  return %y : {out}
}}
"""

    # -- arrays ----------------------------------------------------------------

    def weights(self, scale: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        r = data.rng("scaled weights", self.name)
        if self.interleaved:
            made = {"w": normal(r, (EXPERTS, 2 * self.n, self.k), F8)}
        else:
            made = {f"w{i}": normal(r, (EXPERTS, self.n, self.k), F8)
                    for i in range(self.products)}
        if self.blocks:
            made |= {f"w{i}_scales": (scale or scales)(r, (EXPERTS, self.of_n, self.of_k))
                     for i in range(self.products)}
        return made

    def inputs(self, rows: int, offsets=None, scale=None) -> dict[str, np.ndarray]:
        r = data.rng("scaled inputs", self.name, rows)
        lhs_rows = LHS_ROWS if self.gather else rows
        made = {"x": normal(r, (lhs_rows, self.k), self.rows)}
        if self.scaled_rows:
            made["x_scales"] = (scale or scales)(r, (lhs_rows, self.of_k))
        if self.gather:  # a third of them are no rows
            made["gather"] = r.integers(-LHS_ROWS // 4, LHS_ROWS + LHS_ROWS // 4,
                                        rows).astype(np.int32)
        cuts = np.sort(r.integers(0, rows + 1, EXPERTS + 1)) if offsets is None else offsets
        made["offsets"] = np.asarray(cuts).astype(np.int32)
        return made

    def expected(self, arrays: dict[str, np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The result in f64, and how often each row is written."""
        result, written = np.zeros((rows, self.n)), np.zeros(rows, int)
        for expert in range(EXPERTS):
            which = np.arange(*np.clip(arrays["offsets"][expert:expert + 2], 0, rows))
            if not which.size:
                continue
            source = np.clip(arrays["gather"][which], 0, LHS_ROWS - 1) if self.gather else which
            x = self.scaled_lhs(arrays)[source]
            with np.errstate(invalid="ignore"):
                sums = [x @ self.scaled_weights(arrays, i)[expert].T for i in range(self.products)]
            result[which] = EPILOGUES[self.products][1](*sums)
            written[which] += 1
        return result, written

    def scaled_lhs(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        x = arrays["x"].astype(np.float64)
        if self.scaled_rows:
            x *= np.repeat(arrays["x_scales"].astype(np.float64), self.blocks[0], 1)[:, :self.k]
        return x

    def scaled_weights(self, arrays: dict[str, np.ndarray], number: int) -> np.ndarray:
        w = (arrays["w"][:, self.interleaved[number]::2] if self.interleaved
             else arrays[f"w{number}"]).astype(np.float64)
        if self.blocks:
            of = arrays[f"w{number}_scales"].astype(np.float64)
            of = np.repeat(np.repeat(of, self.blocks[1], 1), self.blocks[0], 2)
            w *= of[:, :self.n, :self.k]
        return w


def normal(r: np.random.Generator, shape, element: str) -> np.ndarray:
    return r.standard_normal(shape).astype(np.float32).astype(data.numpy_type(element))


def scales(r: np.random.Generator, shape) -> np.ndarray:
    return (0.5 + r.random(shape)).astype(np.float32)


def extreme(r: np.random.Generator, shape) -> np.ndarray:
    """As far apart as products of two of them stay in f32, some of them zero."""
    made = (r.choice([-1.0, 1.0], shape) * np.exp2(r.integers(-60, 40, shape))).astype(np.float32)
    made[r.random(shape) < 0.1] = 0
    return made


CASES = [
    Case("both", 256, 128),
    Case("ragged", 400, 200),  # neither is a multiple of a block
    Case("short", 16, 8), Case("narrow", 272, 24, out="bf16"),
    Case("two", 384, 136, products=2), Case("gathered", 272, 136, gather=True),
    Case("gathered_two", 144, 80, products=2, gather=True, out="bf16"),
    Case("bf16_rows", 272, 136, "bf16", products=2), Case("f16_rows", 400, 72, "f16"),
    Case("bf16_gathered", 144, 136, "bf16", gather=True, out="bf16"),
    # Clusters of blocks that split k.
    Case("split_in_two", 1024, 72, "bf16", gather=True), Case("split_in_four", 2048, 40, "f16"),
    Case("bf16_small_blocks", 272, 136, "bf16", products=2, blocks=(128, 8)),
    Case("small_blocks", 256, 200, blocks=(128, 8)),
    Case("long_blocks", 400, 136, blocks=(256, 64)),
    Case("one_block", 208, 72, "bf16", blocks=(208, 72)),
    Case("columns_of_weights", 256, 136, blocks=(128, 128), row_scales=False),
    Case("interleaved", 272, 136, products=2, interleaved=(0, 1)),
    Case("interleaved_up_first", 384, 72, products=2, interleaved=(1, 0), blocks=(128, 8)),
    Case("interleaved_bf16", 144, 80, "bf16", products=2, interleaved=(0, 1), gather=True),
    Case("interleaved_unscaled", 144, 36, "f16", products=2, interleaved=(1, 0), blocks=None),
    Case("unscaled", 272, 72, blocks=None), Case("unscaled_bf16", 144, 40, "bf16", blocks=None),
    Case("unscaled_f16", 144, 40, "f16", blocks=None),
]
# What has no kernel of its own: loops.
OTHERS = [
    Case("odd_k", 100, 20), Case("odd_blocks", 96, 20, blocks=(32, 5)),
    Case("odd_rows", 150, 12, "f16", gather=True), Case("wide_rows", 64, 24, "f32"),
]


def quantize_text(columns: int, block: int, element: str) -> str:
    blocks = -(-columns // block)
    return f"""func.func @layer(
        %x: tensor<?x{columns}x{element}> {{moe.name = "x", moe.role = "input"}})
    -> (tensor<?x{columns}xf8E4M3FN> {{moe.name = "q"}},
        tensor<?x{blocks}xf32> {{moe.name = "s"}}) {{
  %q, %s = moe.quantize %x format(<codes = <element = f8E4M3FN>,
      scales = [#moe.field<element = f32, operand = 1, block = [1, {block}]>]>)
    : tensor<?x{columns}x{element}> -> tensor<?x{columns}xf8E4M3FN>, tensor<?x{blocks}xf32>
  return %q, %s : tensor<?x{columns}xf8E4M3FN>, tensor<?x{blocks}xf32>
}}
"""


# -- moe.quantize ------------------------------------------------------------------


@functools.cache
def quantizer(columns: int, block: int, element: str, target: str) -> moe.Layer:
    text = quantize_text(columns, block, element)
    if target == "host":
        return moe.compile(text).layer({})
    return moe.compile(text, target=target, device="cuda").layer({})


def quantize(x: np.ndarray, block: int, element: str, target: str
             ) -> tuple[np.ndarray, np.ndarray]:
    """What the compiled operation makes of x, and its scales."""
    rows, columns = x.shape
    bound = quantizer(columns, block, element, target)
    shapes = {"q": (F8, (rows, columns)), "s": ("f32", (rows, -(-columns // block)))}
    if target == "host":
        made = {k: np.zeros(s, data.numpy_type(t)) for k, (t, s) in shapes.items()}
        bound(x, out=list(made.values()))
        return made["q"], made["s"]
    made = {k: gpu.empty(t, s) for k, (t, s) in shapes.items()}
    bound(gpu.upload(x), out=list(made.values()))
    return gpu.download(made["q"]), gpu.download(made["s"])


def quantized_by_torch(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """DeepSeek-V3's formula, rounded by torch."""
    import torch

    rows, columns = x.shape
    count = -(-columns // block)
    wide = np.zeros((rows, count * block), np.float32)
    wide[:, :columns] = x.astype(np.float32)
    parts = torch.from_numpy(wide.reshape(rows, count, block))
    scales = parts.abs().amax(2) / 448
    divided = parts / torch.where(scales == 0, torch.ones_like(scales), scales)[..., None]
    q = divided.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    return q.reshape(rows, count * block)[:, :columns].numpy(), scales.numpy()
