"""MLIR for an experts module of transformers.

``describe`` reads what determines the code of a module: shapes, type, layout and the
traced function between its two matmuls.  ``Experts.mlir`` writes it as

    moe.dispatch -> moe.expert -> moe.combine

with the rounding of transformers' code: in bf16 and f16 the result of a matmul is rounded
before and after its bias is added; a bias of another type is added in f32.
``moe.combine`` adds up the choices of a token in f32 and rounds once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._graph.elementwise import Columns, Elementwise, trace
from .._graph.scalars import DTYPES
from .._layers.device import check_device
from .._layers.follow import PLAIN, local_part, weights_of

# Attributes that transformers' use_experts_implementation sets on each decorated module.
_FLAGS = ("has_gate", "has_bias", "is_transposed", "is_concatenated")


def is_experts(module: torch.nn.Module) -> bool:
    """Return true if a module runs its experts through transformers' interface."""
    return all(hasattr(module, flag) for flag in _FLAGS)


def parameter_names(module: torch.nn.Module) -> tuple[str, ...]:
    """Return the weights of a module, in the order of the compiled function."""
    up = "gate_up_proj" if module.has_gate else "up_proj"
    names = (up, f"{up}_bias", "down_proj", "down_proj_bias")
    return names if module.has_bias else names[::2]


@dataclass(frozen=True)
class Experts:
    """Everything that determines the compiled code of an experts module, except the top k."""

    experts: int
    hidden: int
    up: int  # columns of the first matmul
    intermediate: int
    output: int
    dtype: str
    transposed: bool  # weights are [in, out] instead of [out, in]
    parameters: tuple[str, ...]
    dtypes: tuple[str, ...]  # of the parameters; biases may differ from ``dtype``
    gate: Elementwise

    @property
    def has_bias(self) -> bool:
        return len(self.parameters) == 4

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the parameters."""
        first, second = (self.hidden, self.up), (self.intermediate, self.output)
        if not self.transposed:
            first, second = first[::-1], second[::-1]
        matrices = [(self.experts, *first), (self.experts, *second)]
        if not self.has_bias:
            return matrices
        return [matrices[0], (self.experts, self.up), matrices[1], (self.experts, self.output)]

    def mlir(self, top_k: int) -> str:
        """Return the function of hidden states, ids and weights for ``top_k`` choices per token."""
        return _Text(self).write(top_k)

    def result_type(self) -> str:
        """Return the type of the rows that the experts make."""
        return f"tensor<?x{self.output}x{self.dtype}>"

    def region(self, zero: str) -> str:
        """Return the region of a ``moe.expert``; ``zero`` names the index 0 outside of it."""
        return _Text(self).region(zero)


def describe(module: torch.nn.Module, name: str,
             weights: Sequence[torch.Tensor] | None = None) -> Experts:
    """Describe the computation of a module, which messages call ``name``.

    ``weights`` are those of the module, if already read.
    """
    if getattr(module, "has_post_expert_norm", False):
        raise MoEError(UNIMPLEMENTED, f"{name}: the norm after the experts, "
                       f"{type(module.post_expert_norm).__name__}, has no translation to MLIR")
    names = parameter_names(module)
    if weights is None:
        weights = weights_of(module, names)
    tensors = [local_part(t) for t in weights]
    for parameter, tensor in zip(names, tensors):
        _check_kind(tensor, f"{name}: {parameter}")
        if tensor.device != tensors[0].device:
            raise MoEError(INVALID_ARGUMENT, f"{name}: {parameter} is on '{tensor.device}', "
                           f"expected '{tensors[0].device}' as {names[0]}")
    dtype = tensors[0].dtype
    for parameter, tensor in zip(names, tensors):
        # A bias may have another type.
        known = tensor.dtype in DTYPES
        if not known or (tensor.dtype != dtype and not parameter.endswith("_bias")):
            wanted = f"{dtype} as {names[0]}" if known else "f32, bf16 or f16"
            raise MoEError(INVALID_ARGUMENT, f"{name}: {parameter} is {tensor.dtype}, expected "
                           f"{wanted}")
    first, second = tensors[0], tensors[len(tensors) // 2]
    if first.ndim != 3 or second.ndim != 3:
        raise MoEError(INVALID_ARGUMENT, f"{name}: the weights have shapes {tuple(first.shape)} "
                       f"and {tuple(second.shape)}, expected three dimensions")
    transposed = bool(module.is_transposed)
    hidden, up = first.shape[1:] if transposed else reversed(first.shape[1:])
    intermediate, output = second.shape[1:] if transposed else reversed(second.shape[1:])
    if module.has_gate:
        gate = trace(module._apply_gate, up, dtype, f"{name}: {_gate_name(module)}")
    else:
        gate = trace(module.act_fn, up, dtype, f"{name}: the activation {_name(module.act_fn)}")
    found = Experts(first.shape[0], hidden, up, intermediate, output, DTYPES[dtype], transposed,
                    names, tuple(DTYPES[t.dtype] for t in tensors), gate)
    for parameter, tensor, shape in zip(names, tensors, found.shapes()):
        if tuple(tensor.shape) != shape:
            raise MoEError(INVALID_ARGUMENT, f"{name}: {parameter} has shape "
                           f"{tuple(tensor.shape)}, expected {shape}")
    if gate.columns != intermediate:
        raise MoEError(INVALID_ARGUMENT, f"{name}: the gate makes {gate.columns} columns of {up}, "
                       f"down_proj takes {intermediate}")
    if module.num_experts != first.shape[0]:
        raise MoEError(INVALID_ARGUMENT, f"{name}: num_experts is {module.num_experts}, the "
                       f"weights are of {first.shape[0]} experts")
    return found


def _check_kind(tensor: torch.Tensor, what: str) -> None:
    if type(tensor) not in (*PLAIN, FakeTensor):  # torch.export has no elements
        raise MoEError(UNIMPLEMENTED, f"{what} is a {type(tensor).__name__}, expected a plain "
                       "tensor (quantized weights are not known)")
    check_device(tensor.device, what)


def _name(function: Any) -> str:
    return f"'{getattr(function, '__name__', type(function).__name__)}'"


def _gate_name(module: torch.nn.Module) -> str:
    """Name the gate: the default one by its activation, others by themselves."""
    from transformers.integrations.moe import _default_apply_gate

    if type(module)._apply_gate is _default_apply_gate:
        return f"the activation {_name(module.act_fn)}"
    return f"{type(module).__name__}._apply_gate"


_TRANSPOSED = ("indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, "
               "affine_map<(m, n, k) -> (m, n)>] ")
_ID, _ROW = "affine_map<(i, j) -> (i, j)>", "affine_map<(i, j) -> (j)>"

# transformers marks an expert of another rank with the number of experts as its id. Ids beyond i32
# become -2, which the runtime reports, as truncation might make them valid.
_IDS = """\
  %none = arith.constant -1 : i32
  %invalid = arith.constant -2 : i32
  %sentinel = arith.constant {experts} : i64
  %minus_one = arith.constant -1 : i64
  %no_ids = tensor.empty(%t) : {ids}
  %ids = linalg.generic {{indexing_maps = [{id}, {id}], iterator_types = ["parallel", "parallel"]}}
      ins(%top_k_index : {wide}) outs(%no_ids : {ids}) {{
  ^bb0(%id: i64, %old: i32):
    %narrow = arith.trunci %id : i64 to i32
    %valid = arith.cmpi ult, %id, %sentinel : i64
    %is_sentinel = arith.cmpi eq, %id, %sentinel : i64
    %is_none = arith.cmpi eq, %id, %minus_one : i64
    %dropped = arith.ori %is_sentinel, %is_none : i1
    %other = arith.select %dropped, %none, %invalid : i32
    %r = arith.select %valid, %narrow, %other : i32
    linalg.yield %r : i32
  }} -> {ids}
"""


class _Text:
    """Writes the function of one ``Experts``."""

    def __init__(self, experts: Experts):
        self.e = experts
        self.lines: list[str] = []

    def write(self, k: int) -> str:
        e = self.e
        rows = f"tensor<?x{e.hidden}x{e.dtype}>"
        result = f"tensor<?x{e.output}x{e.dtype}>"
        wide, ids, weights = f"tensor<?x{k}xi64>", f"tensor<?x{k}xi32>", f"tensor<?x{k}xf32>"
        offsets = f"tensor<{e.experts + 1}xi32>"
        types = [self.tensor(*shape, element=dtype) for shape, dtype in zip(e.shapes(), e.dtypes)]
        arguments = [f'    %{name}: {type_} {{moe.role = "input", moe.name = "{name}"}}'
                     for name, type_ in (("hidden_states", rows), ("top_k_index", wide),
                                         ("top_k_weights", weights))]
        arguments += [f'    %{name}: {type_} {{moe.role = "weight", moe.name = "{name}"}}'
                      for name, type_ in zip(e.parameters, types)]
        return "".join((
            "func.func @experts(\n", ",\n".join(arguments), f") -> {result} {{\n",
            "  %c0 = arith.constant 0 : index\n",
            f"  %t = tensor.dim %hidden_states, %c0 : {rows}\n",
            _IDS.format(experts=e.experts, wide=wide, ids=ids, id=_ID),
            "  %grouped, %offsets, %positions = moe.dispatch %hidden_states, %ids "
            f"experts({e.experts}) : {rows}, {ids}\n",
            "  %expert_rows = moe.expert %grouped, %offsets params(",
            ", ".join(f"%{name}" for name in e.parameters), " : ", ", ".join(types), ") {\n",
            self.region("%c0"), f"\n  }} : {rows}, {offsets} -> {result}\n",
            f"  %y = moe.combine %expert_rows, %positions weights(%top_k_weights : {weights})\n",
            f"      : {result}, {ids}\n  return %y : {result}\n}}\n"))

    def tensor(self, *shape: int, element: str | None = None) -> str:
        dims = "".join("?x" if d < 0 else f"{d}x" for d in shape)
        return f"tensor<{dims}{element or self.e.dtype}>"

    def line(self, text: str) -> None:
        self.lines += ["    " + part for part in text.split("\n")]

    def region(self, zero: str) -> str:
        """Return the region of an expert: matmul, gate, matmul."""
        e = self.e
        rows = self.tensor(-1, e.hidden)
        slices = [self.tensor(*shape[1:], element=dtype)
                  for shape, dtype in zip(e.shapes(), e.dtypes)]
        self.lines = [f"  ^bb0(%rows: {rows}, " + ", ".join(
            f"%{name}_e: {type_}" for name, type_ in zip(e.parameters, slices)) + "):"]
        self.line(f"%n = tensor.dim %rows, {zero} : {rows}\n%zero = arith.constant 0.0 : f32")
        up, *_ = e.parameters
        self.matmul("up", "%rows", e.hidden, f"%{up}_e", e.up)
        source, element = "%up", "f32"
        if e.has_bias:
            source, element = self.biased("up", f"%{up}_bias_e", e.up, e.dtypes[1]), e.dtype
        inputs = [self.columns(f"gate_input{i}", source, element, part)
                  for i, part in enumerate(e.gate.inputs)]
        # Results of matmuls are rounded at their use; biased ones are already.
        rounded = "" if element == e.dtype else "_product"
        start = [f"{name} = arith.truncf {name}_product : f32 to {e.dtype}"
                 for name in e.gate.arguments if rounded]
        arguments = [f"{name}{rounded}: {element}" for name in e.gate.arguments]
        self.generic("h", inputs, arguments, start + e.gate.text.splitlines(), e.gate.result,
                     e.intermediate)

        self.matmul("down", "%h", e.intermediate, "%down_proj_e", e.output)
        result = "%down"
        if e.has_bias:
            result = self.biased("down", "%down_proj_bias_e", e.output, e.dtypes[3])
        elif e.dtype != "f32":
            result = "%down_rounded"
            self.generic("down_rounded", [("%down", self.tensor(-1, e.output, element="f32"))],
                         ["%a: f32"], [f"%r = arith.truncf %a : f32 to {e.dtype}"], "%r", e.output)
        self.line(f"moe.yield {result} : {self.tensor(-1, e.output)}")
        return "\n".join(self.lines)

    def matmul(self, name: str, lhs: str, depth: int, rhs: str, columns: int) -> None:
        """Write the matmul ``%name``, f32, of ``columns`` columns."""
        e = self.e
        out = self.tensor(-1, columns, element="f32")
        maps, shape = "", (depth, columns)
        if not e.transposed:
            maps, shape = _TRANSPOSED, shape[::-1]
        self.line(f"%no_{name} = tensor.empty(%n) : {out}\n"
                  f"%zero_{name} = linalg.fill ins(%zero : f32) outs(%no_{name} : {out}) -> {out}\n"
                  f"%{name} = linalg.matmul {maps}ins({lhs}, {rhs} : {self.tensor(-1, depth)}, "
                  f"{self.tensor(*shape)})\n    outs(%zero_{name} : {out}) -> {out}")

    def biased(self, name: str, bias: str, columns: int, bias_dtype: str) -> str:
        """Write ``%name_biased``: ``%name`` rounded, then rounded again with its bias added."""
        dtype = self.e.dtype
        lhs, rhs, result = "%a", "%b", "%sum"
        text = []
        if dtype != "f32":
            text += [f"%product = arith.truncf %a : f32 to {dtype}",
                     f"%lhs = arith.extf %product : {dtype} to f32"]
            lhs = "%lhs"
        if bias_dtype != "f32":
            text.append(f"%rhs = arith.extf %b : {bias_dtype} to f32")
            rhs = "%rhs"
        text.append(f"%sum = arith.addf {lhs}, {rhs} : f32")
        if dtype != "f32":
            text.append(f"%r = arith.truncf %sum : f32 to {dtype}")
            result = "%r"
        inputs = [(f"%{name}", self.tensor(-1, columns, element="f32")),
                  (bias, self.tensor(columns, element=bias_dtype))]
        self.generic(f"{name}_biased", inputs, ["%a: f32", f"%b: {bias_dtype}"], text, result,
                     columns)
        return f"%{name}_biased"

    def columns(self, name: str, source: str, element: str, part: Columns) -> tuple[str, str]:
        """Return some columns of the first matmul, and their type."""
        whole = self.tensor(-1, self.e.up, element=element)
        if part == Columns(0, 1, self.e.up):
            return source, whole
        some = self.tensor(-1, part.count, element=element)
        self.line(f"%{name} = tensor.extract_slice {source}[0, {part.offset}] [%n, {part.count}] "
                  f"[1, {part.stride}]\n    : {whole} to {some}")
        return f"%{name}", some

    def generic(self, name: str, inputs: Sequence[tuple[str, str]], arguments: Sequence[str],
                text: Sequence[str], result: str, columns: int) -> None:
        """Write ``%name``: ``result`` of ``text``, elementwise; a vector is broadcast to all
        rows."""
        maps = [_ID if type_.startswith("tensor<?") else _ROW for _, type_ in inputs]
        out = self.tensor(-1, columns)
        self.line(f"%no_{name} = tensor.empty(%n) : {out}\n"
                  f"%{name} = linalg.generic {{indexing_maps = [{', '.join([*maps, _ID])}],\n"
                  '    iterator_types = ["parallel", "parallel"]}\n'
                  f"    ins({', '.join(tensor for tensor, _ in inputs)} : "
                  f"{', '.join(type_ for _, type_ in inputs)}) outs(%no_{name} : {out}) {{\n"
                  f"^bb0({', '.join(arguments)}, %old: {self.e.dtype}):")
        for line in text:
            self.line("  " + line)
        self.line(f"  linalg.yield {result} : {self.e.dtype}\n}} -> {out}")
