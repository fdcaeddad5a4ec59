"""What a layer sends, and the memory that it takes on a rank."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, MoEError

__all__ = ["BITS", "LayerShape", "Memory", "default_table"]

BITS = {"f32": 32, "f16": 16, "bf16": 16, "f8e4m3fn": 8, "fp8": 8, "i8": 8}
ALIGNMENT = 64  # MOE_RT_WORKSPACE_ALIGNMENT


def _error(message: str) -> MoEError:
    return MoEError(INVALID_ARGUMENT, message)


def _align(count: int, alignment: int = ALIGNMENT) -> int:
    return -(-count // alignment) * alignment


def _bits(dtype: str) -> int:
    digits = dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
    return int("".join(c for c in digits[:2] if c.isdigit()))


def _bytes(tensor: dict[str, Any], rows: int, dimensions: slice = slice(None)) -> int:
    extents = [rows if n == -1 else n for n in tensor["shape"][dimensions]]
    return -(-math.prod(extents) * _bits(tensor["dtype"]) // 8)


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank. ``weights`` are those that it keeps, in the layout of the code.

    ``received`` are rows that came and what goes home, ``home`` values of its own tokens,
    ``gathered`` rows of all ranks, ``packed`` rows to send. ``workspace`` is of the code; None
    where there is none to ask.
    """

    weights: int
    home: int
    gathered: int
    packed: int
    received: int
    workspace: int | None

    @property
    def call(self) -> int:
        """All but the weights."""
        return (self.home + self.gathered + self.packed + self.received
                + (self.workspace or 0))


@dataclass(frozen=True)
class LayerShape:
    """What the plan has to know of a layer.

    ``token_bytes`` of a token go to a rank, ``choice_bytes`` of a choice come home, and
    ``gathered_bytes`` of a token to all ranks. ``program`` is the layer's entry in the metadata of
    an artifact (``parallel``), or one like it for a layer that is known by its sizes.
    """

    name: str
    experts: int
    top_k: int
    slots: int
    replicas: int
    token_bytes: int
    choice_bytes: int
    gathered_bytes: int
    weights: int
    flops_per_row: float | None
    expert_bytes: int
    program: dict[str, Any] = field(repr=False)
    workspaces: dict[str, Callable[[int], int]] | None = field(default=None, repr=False)

    # ---------------------------------------------------------------------
    # Memory
    # ---------------------------------------------------------------------

    def _values(self, rows: str, extent: int, begin: int = 0) -> int:
        """The end of the values of some rows, laid out one behind the other."""
        for value in self.program["values"]:
            kind = value["rows"] if -1 in value["shape"] else "none"
            if kind == rows:
                begin = _align(begin) + _bytes(value, extent)
        return begin

    def _is_packed(self, source: dict[str, Any]) -> bool:
        made = {value["name"] for value in self.program["values"]}
        return "index" in source or source["value"] not in made

    def _tensor(self, name: str) -> dict[str, Any]:
        return next(each for each in (*self.program["values"], *self.program["arguments"])
                    if each["name"] == name)

    @property
    def home_rows(self) -> str:
        """What a row is that comes home: one a ``choice``, or one a ``rank`` that adds these."""
        for exchange in self._steps("exchange"):
            index = exchange["sources"][0].get("index")
            if ("expected" in exchange and self.top_k > 1 and index is not None
                    and self._tensor(index)["shape"][-1] == 1):
                return "rank"
        return "choice"

    def _steps(self, kind: str) -> list[dict[str, Any]]:
        return [step[kind] for step in self.program["steps"] if kind in step]

    def _copied(self, source: dict[str, Any], extent: int, begin: int) -> int:
        """The end of the copies of what other ranks read, where it is not the group's memory."""
        made = {value["name"] for value in self.program["values"]}
        for name in (source["value"], source.get("index")):
            if name is not None and name not in made:
                begin = _align(begin) + _bytes(self._tensor(name), extent)
        return begin

    def memory(self, tokens: int, all_tokens: int, sent: int, received: int,
               way: str = "all_to_all") -> Memory:
        """Return the bytes for so many tokens here and on all ranks, and rows sent and received.

        As ``runtime/src/parallel/call_memory.cpp`` lays them out; ``way`` is that of the group.
        """
        home = self._values("home", tokens, self._values("none", 0))
        made = {value["name"] for value in self.program["values"]}
        for gather in self._steps("gather"):
            if gather["source"] not in made:
                home = _align(home) + _bytes(self._tensor(gather["source"]), tokens)
        packed, back = 0, self._values("received", received)
        for exchange in self._steps("exchange"):
            end = 0
            if way == "peer":
                for source in exchange["sources"]:
                    if "expected" in exchange:
                        back = self._copied(source, received, back)
                    else:
                        end = self._copied(source, tokens, end)
                packed = max(packed, end)
                continue
            for source in filter(self._is_packed, exchange["sources"]):
                tensor = self._tensor(source["value"])
                row = _bytes(tensor, 0, slice(-1, None))
                end = _align(end) + sent * row
                if "expected" in exchange:
                    rows = (_bytes(index := self._tensor(source["index"]), received)
                            * 8 // _bits(index["dtype"]) if "index" in source else
                            _bytes(tensor, received) // row)
                    back = _align(back) + rows * row
            if "expected" not in exchange:
                packed = max(packed, end)
        gathered = self._values("all", all_tokens)
        return Memory(self.weights, *map(_align, (home, gathered, packed, back)),
                      self._workspace(tokens, all_tokens, received))

    def _workspace(self, tokens: int, all_tokens: int, received: int) -> int | None:
        if self.workspaces is None:
            return None
        extents = {"home": tokens, "all": all_tokens, "received": received}
        most = 0
        for step in self.program["steps"]:
            if "call" not in step:
                continue
            rows = [self._rows(name) for name in (*step["inputs"], *step["outputs"])]
            kind = next((each for each in reversed(rows) if each != "none"), None)
            if kind is not None:
                most = max(most, self.workspaces[step["call"]](extents[kind]))
        return most

    def _rows(self, name: str) -> str:
        if name == "placement":
            return "none"
        tensor = self._tensor(name)
        return tensor.get("rows", "home") if -1 in tensor["shape"] else "none"

    def rounds(self, tokens: list[int], rank: int, sent: list[int], received: list[int],
               limit: int) -> int | None:
        """Return the fewest rounds of a rank under a limit of memory; None where none is enough.

        ``sent`` and ``received`` are its rows to and from each rank. A call is whole if the rows
        that it may receive at most fit.
        """
        everyone = sum(tokens)

        def fits(count: int, rows: int | None = None) -> bool:
            out, back = (sum(-(-each // count) for each in rows_of) for rows_of in
                         (sent, received))
            need = self.memory(tokens[rank], everyone, out, back if rows is None else rows)
            return need.call <= limit

        if fits(1, everyone):
            return 1
        low, high = 1, max(1, *sent, *received)
        if not fits(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle + 1, high)
        return low

    # ---------------------------------------------------------------------
    # Layers
    # ---------------------------------------------------------------------

    @staticmethod
    def of_module(module: Any, function: str | None = None) -> LayerShape:
        """Describe a layer of a module that was compiled with ``--parallel``."""
        programs = {each["name"]: each for each in module._variant.get("parallel", ())}
        if not programs:
            raise MoEError(FAILED_PRECONDITION, "the artifact has no layer for several ranks, "
                           "expected one compiled with --parallel=SLOTS")
        if function is None and len(programs) != 1:
            raise _error("expected the name of a layer, one of "
                         + ", ".join(f"'{name}'" for name in programs))
        name = next(iter(programs)) if function is None else function
        if name not in programs:
            raise _error(f"expected a layer, one of {', '.join(map(repr, programs))}, got '{name}'")
        program = programs[name]
        steps = [step["exchange"] for step in program["steps"] if "exchange" in step]
        out = [each for each in steps if "expected" not in each]
        back = [each for each in steps if "expected" in each]
        if len(out) != 1 or len(back) != 1:
            raise MoEError(FAILED_PRECONDITION, f"layer '{name}' has {len(out)} exchanges to "
                           f"experts and {len(back)} home, expected one of each")
        tensors = {each["name"]: each for each in (*program["values"], *program["arguments"])}

        def row_bytes(names: list[str]) -> int:
            return sum(_bytes(tensors[each], 0, slice(-1, None)) for each in names)

        sent = [source["value"] for source in out[0]["sources"]]
        local = next(tensors[each] for each in sent if tensors[each]["dtype"] == "i32")
        gathers = [step["gather"]["source"] for step in program["steps"] if "gather" in step]
        parts = {step["call"] for step in program["steps"] if "call" in step}
        functions = [each for each in module._variant["functions"] if each["name"] in parts]
        shape = LayerShape(
            name, program["experts"], local["shape"][-1], program["slots"], program["replicas"],
            row_bytes(sent), row_bytes([source["value"] for source in back[0]["sources"]]),
            sum(_bytes(tensors[each], 1) for each in gathers), sum(map(_kept, functions)),
            None, sum(_bytes(each, 0) // program["experts"] for each in program["arguments"]
                      if each["role"] == "weight" and len(each["shape"]) > 2
                      and each["shape"][0] == program["experts"]),
            program, _workspaces(module, functions))
        return shape

    @staticmethod
    def of_sizes(experts: int, top_k: int, hidden: int, intermediate: int, slots: int,
                 dtype: str = "bf16", matrices: int = 3, replicas: int = 1,
                 token_bytes: int | None = None, choice_bytes: int | None = None) -> LayerShape:
        """Describe a layer by its sizes: gated experts with ``matrices`` weights of [I, H].

        The rows that travel are in ``dtype``, unless their bytes are given.
        """
        if dtype not in BITS:
            raise _error(f"expected a dtype of {', '.join(BITS)}, got '{dtype}'")
        for what, value in (("hidden", hidden), ("intermediate", intermediate), ("slots", slots),
                            ("matrices", matrices)):
            if value < 1:
                raise _error(f"{what} is {value}, expected at least 1")
        row = hidden * BITS[dtype] // 8
        name = dtype if dtype in ("f32", "f16", "bf16") else "i8"
        values = [("tokens", "i32", "home", [-1, top_k]), ("local", "i32", "home",
                                                            [-1, top_k, top_k]),
                  ("weights", "f32", "home", [-1, top_k]), ("send", "i32", "home", [experts]),
                  ("home", "i32", "home", [-1, top_k]), ("returns", "i32", "home", [experts]),
                  ("rows", name, "received", [-1, hidden]), ("ids", "i32", "received", [-1, top_k]),
                  ("received", "i32", "received", [experts]),
                  ("order", "i32", "received", [-1, top_k]), ("back", "i32", "received", [experts]),
                  ("results", name, "received", [-1, top_k, hidden]),
                  ("choices", name, "home", [-1, top_k, hidden])]
        program = {
            "values": [dict(zip(("name", "dtype", "rows", "shape"), each)) for each in values],
            "arguments": [{"name": "x", "dtype": name, "shape": [-1, hidden], "role": "input"}],
            "steps": [{"exchange": {"sources": [{"value": "x", "index": "tokens"},
                                                {"value": "local"}], "counts": "send",
                                    "results": ["rows", "ids"], "received": "received"}},
                      {"exchange": {"sources": [{"value": "results", "index": "order"}],
                                    "counts": "back", "results": ["choices"],
                                    "expected": "returns"}}]}
        expert = matrices * hidden * intermediate * BITS[dtype] // 8
        return LayerShape(
            "layer", experts, top_k, slots, replicas,
            row + 4 * top_k if token_bytes is None else token_bytes,
            row if choice_bytes is None else choice_bytes, 0, slots * expert,
            2.0 * matrices * hidden * intermediate, expert, program)


def _kept(function: dict[str, Any]) -> int:
    """The bytes of weights that a part keeps: prepared ones, and others that it reads itself."""
    return sum(_bytes(each, 0) for each in function["arguments"]
               if each["role"] == "prepared"
               or (each["role"] == "weight" and each.get("retained", True)))


def _workspaces(module: Any, functions: list[dict[str, Any]]
                ) -> dict[str, Callable[[int], int]] | None:
    """The functions of an artifact for this machine that say how much workspace they need."""
    if module.path is None or module.on_device:
        return None
    try:
        # The runtime has checked the artifact, which is a shared object; variants for several
        # targets are several, and only one is alone in its file.
        if len(module.metadata["variants"]) != 1:
            return None
        code = ctypes.CDLL(os.fspath(module.path.resolve()))
        found = {}
        for each in functions:
            function = getattr(code, f"moe_workspace_{each['name']}")
            function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64]
            found[each["name"]] = function
        return found
    except (OSError, AttributeError):
        return None


def default_table(experts: int, ranks: int, slots: int) -> np.ndarray:
    """Return neighbouring experts in order, as ``moe.parallel.placement``, in ``slots`` slots.

    More ranks than experts hold copies, in the same order again; no runtime takes that yet.
    """
    table = np.full((ranks, slots), -1, np.int32)
    if ranks > experts:
        table[:] = (np.arange(ranks * slots) % experts).reshape(ranks, slots)
        return table
    first = 0
    for rank, row in enumerate(table):
        count = experts // ranks + (rank < experts % ranks)
        row[:count] = range(first, first + count)
        first += count
    return table
