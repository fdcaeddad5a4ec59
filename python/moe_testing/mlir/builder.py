"""Writes MLIR text for the layers in layers.py: names, types and linalg idioms.

Products accumulate in f32 whatever the type of the layer; what is stored between
two products, and what is returned, is rounded to the layer's type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAPS = """\
#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (j)>
#column = affine_map<(i, j) -> (i)>
#first = affine_map<(i, j) -> (i, 0)>
#second = affine_map<(i, j) -> (i, 1)>
"""


@dataclass(frozen=True)
class Value:
    """An SSA value that is a tensor; -1 is a dynamic dimension."""

    name: str
    shape: tuple[int, ...]
    element: str

    @property
    def type(self) -> str:
        dims = "".join("?x" if d < 0 else f"{d}x" for d in self.shape)
        return f"tensor<{dims}{self.element}>"

    def __str__(self) -> str:
        return self.name


@dataclass
class Argument:
    value: Value
    role: str


class Block:
    """A list of operations: the body of the function or of a moe.expert."""

    def __init__(self, layer: Layer, indent: int, rows: str):
        self.layer, self.indent, self.rows = layer, indent, rows
        self.lines: list[str] = []

    # -- plain text ---------------------------------------------------------

    def line(self, text: str) -> None:
        self.lines += [" " * self.indent + part if part else part for part in text.split("\n")]

    def let(self, name: str, shape: Sequence[int], element: str, text: str) -> Value:
        """``%name = text``; ``{type}`` in the text is the type of the result."""
        value = Value(self.layer.fresh(name), tuple(shape), element)
        self.line(f"{value} = " + text.replace("{type}", value.type))
        return value

    # -- tensors ------------------------------------------------------------

    def empty(self, columns: int, element: str) -> Value:
        return self.let("empty", (-1, columns), element, f"tensor.empty({self.rows}) : {{type}}")

    def zeros(self, columns: int) -> Value:
        empty = self.empty(columns, "f32")
        return self.let("zeros", empty.shape, "f32",
                        f"linalg.fill ins(%zero : f32) outs({empty} : {empty.type}) -> {{type}}")

    def linear(self, name: str, x: Value, w: Value) -> Value:
        """``x [n, k]`` times ``w [m, k]`` transposed, as Hugging Face stores it: f32."""
        return self._matmul(name, x, w, w.shape[0], "indexing_maps = [#lhs, #rhs_t, #out]\n    ")

    def matmul(self, name: str, x: Value, w: Value) -> Value:
        """``x [n, k]`` times ``w [k, m]``: f32."""
        return self._matmul(name, x, w, w.shape[1], "")

    def _matmul(self, name: str, x: Value, w: Value, columns: int, maps: str) -> Value:
        zeros = self.zeros(columns)
        return self.let(name, zeros.shape, "f32",
                        f"linalg.matmul {maps}ins({x}, {w} : {x.type}, {w.type})"
                        f" outs({zeros} : {zeros.type}) -> {{type}}")

    def slice(self, name: str, x: Value, offset: int, columns: int, stride: int = 1) -> Value:
        """``columns`` columns of ``x`` from ``offset`` on."""
        return self.let(name, (x.shape[0], columns), x.element,
                        f"tensor.extract_slice {x}[0, {offset}] [{self.rows}, {columns}] "
                        f"[1, {stride}]\n    : {x.type} to {{type}}")

    def map(self, name: str, inputs: Sequence[Value], body: str, element: str = "f32",
            columns: int | None = None, maps: Sequence[str] | None = None) -> Value:
        """Element by element; ``body`` names its inputs %a, %b, ... and yields %r."""
        columns = inputs[0].shape[1] if columns is None else columns
        maps = ["#row" if len(v.shape) == 1 else "#id" for v in inputs] if maps is None else maps
        out = self.empty(columns, element)
        arguments = ", ".join(f"%{chr(97 + i)}: {v.element}" for i, v in enumerate(inputs))
        names, types = ", ".join(map(str, inputs)), ", ".join(v.type for v in inputs)
        text = (f"linalg.generic {{indexing_maps = [{', '.join([*maps, '#id'])}],\n"
                f"    iterator_types = [\"parallel\", \"parallel\"]}}\n"
                f"    ins({names} : {types}) outs({out} : {out.type}) {{\n"
                f"^bb0({arguments}, %old: {element}):\n"
                + "".join(f"  {part.strip()}\n" for part in body.strip().split("\n"))
                + f"  linalg.yield %r : {element}\n}} -> {{type}}")
        return self.let(name, out.shape, element, text)

    def round(self, name: str, x: Value) -> Value:
        """``x``, f32, rounded to the type of the layer."""
        if x.element == self.layer.dtype:
            return x
        return self.map(name, [x], f"%r = arith.truncf %a : f32 to {self.layer.dtype}",
                        self.layer.dtype)

    def extend(self, name: str, x: Value) -> Value:
        """``x`` in f32."""
        if x.element == "f32":
            return x
        return self.map(name, [x], f"%r = arith.extf %a : {x.element} to f32")

    def add_row(self, name: str, x: Value, bias: Value) -> Value:
        """``x [n, m]`` plus ``bias [m]`` of f32 or the type of the layer."""
        body = "%r = arith.addf %a, %b : f32" if bias.element == "f32" else (
            f"%e = arith.extf %b : {bias.element} to f32\n%r = arith.addf %a, %e : f32")
        return self.map(name, [x, bias], body)

    # -- the dialect --------------------------------------------------------

    def gate(self, logits: Value, top_k: int, attributes: str = "") -> tuple[Value, Value]:
        weights, ids = self.layer.fresh("weights"), self.layer.fresh("ids")
        self.line(f"{weights}, {ids} = moe.gate {logits} "
                  + _before_top_k(attributes, f"top_k({top_k})") + f" : {logits.type}")
        return Value(weights, (-1, top_k), "f32"), Value(ids, (-1, top_k), "i32")

    def dispatch(self, x: Value, ids: Value, experts: int,
                 attributes: str = "") -> tuple[Value, Value, Value]:
        names = [self.layer.fresh(n) for n in ("grouped", "offsets", "positions")]
        before, _, after = attributes.partition("|")
        text = " ".join(f"{x}, {ids} {before} experts({experts}) {after}".split())
        self.line(f"{', '.join(names)} = moe.dispatch {text}\n    : {x.type}, {ids.type}")
        return (Value(names[0], (-1, x.shape[1]), x.element),
                Value(names[1], (experts + 1,), "i32"), Value(names[2], ids.shape, "i32"))

    def expert(self, name: str, grouped: Value, offsets: Value, parameters: Sequence[Value],
               body: Callable[..., Value], attributes: str = "", columns: int | None = None,
               element: str | None = None) -> Value:
        """moe.expert; ``body(block, rows, *slices)`` returns the rows it yields."""
        columns = grouped.shape[1] if columns is None else columns
        result = Value(self.layer.fresh(name), (-1, columns), element or grouped.element)
        rows = Value(self.layer.fresh("rows"), grouped.shape, grouped.element)
        slices = [Value(self.layer.fresh(p.name[1:] + "_e"), p.shape[1:], p.element)
                  for p in parameters]
        header = f"{result} = moe.expert {grouped}, {offsets}"
        if parameters:
            header += ("\n    params(" + ", ".join(map(str, parameters)) + "\n           : "
                       + ", ".join(p.type for p in parameters) + ")")
        if attributes:
            header += f"\n    {attributes}"
        arguments = ", ".join(f"{v}: {v.type}" for v in [rows, *slices])
        self.line(f"{header} {{\n^bb0({arguments}):")
        count = self.layer.fresh("n")
        inner = Block(self.layer, self.indent + 2, count)
        yielded = body(inner, rows, *slices)
        if any(count in text for text in inner.lines):
            self.line(f"  {count} = tensor.dim {rows}, %c0 : {rows.type}")
        self.lines += inner.lines
        self.line(f"  moe.yield {yielded} : {yielded.type}\n}} : {grouped.type}, {offsets.type} -> "
                  f"{result.type}")
        return result

    def combine(self, name: str, grouped: Value, positions: Value, weights: Value | None,
                attributes: str = "") -> Value:
        given = "" if weights is None else f" weights({weights} : {weights.type})"
        attributes = f" {attributes}" if attributes else ""
        return self.let(name, (-1, grouped.shape[1]), grouped.element,
                        f"moe.combine {grouped}, {positions}{given}{attributes}\n"
                        f"    : {grouped.type}, {positions.type}")


def _before_top_k(attributes: str, top_k: str) -> str:
    """Operands (bias, noise, ids) stand before top_k, attributes after it."""
    before, bar, after = attributes.partition("|")
    parts = [before, top_k, after] if bar else [top_k, before]
    return " ".join(part.strip() for part in parts if part.strip())


@dataclass
class Layer:
    """The function ``@layer``."""

    dtype: str
    arguments: list[Argument] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.used.update(zero=1, c0=1)
        self.body = Block(self, 2, "%t")

    def fresh(self, name: str) -> str:
        count = self.used.get(name, 0)
        self.used[name] = count + 1
        return f"%{name}" if count == 0 else f"%{name}_{count}"

    def _argument(self, name: str, shape: Sequence[int], element: str | None,
                  role: str) -> Value:
        value = Value(self.fresh(name), tuple(shape), element or self.dtype)
        self.arguments.append(Argument(value, role))
        return value

    def input(self, name: str, *shape: int, element: str | None = None) -> Value:
        return self._argument(name, shape, element, "input")

    def weight(self, name: str, *shape: int, element: str | None = None) -> Value:
        return self._argument(name, shape, element, "weight")

    def text(self, comment: str) -> str:
        """The whole file; inputs come first."""
        arguments = [a for role in ("input", "weight") for a in self.arguments if a.role == role]
        declared = []
        for a in arguments:
            attributes = f'moe.role = "{a.role}", moe.name = "{a.value.name[1:]}"'
            declared.append(f"    {a.value}: {a.value.type} {{{attributes}}}")
        lines = self.body.lines
        x = arguments[0].value
        prologue = []
        uses = "\n".join(lines)
        for needle, definition in (
                ("%c0", "%c0 = arith.constant 0 : index"),
                ("%zero", "%zero = arith.constant 0.0 : f32"),
                ("%t", f"%t = tensor.dim {x}, %c0 : {x.type}")):
            if needle in uses or (needle == "%c0" and "%t" in uses):
                prologue.append(f"  {definition}")
        maps = "".join(line + "\n" for line in MAPS.splitlines()
                       if line.split()[0] in uses.replace(",", " ").replace("]", " ")
                       .replace("[", " ").split())
        return ("\n".join(f"// {line}".rstrip() for line in comment.strip().splitlines())
                + "\n// RUN: moe-compile %s -o %t.moe\n\n" + maps
                + ("\n" if maps else "") + "func.func @layer(\n" + ",\n".join(declared) + ")\n"
                + "    -> (" + ", ".join(r.type for r in self.results) + ") {\n"
                + "\n".join(prologue + lines)
                + f"\n  return {', '.join(map(str, self.results))} : "
                + ", ".join(r.type for r in self.results) + "\n}\n")
