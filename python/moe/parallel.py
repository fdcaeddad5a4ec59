"""Layers whose experts are spread over several ranks (expert parallelism).

    group = moe.parallel.Group(torch.distributed.group.WORLD)   # on every rank
    module = moe.compile("layer.mlir", group=group)
    layer = module.layer(weights)         # reads the experts of this rank
    y = layer(x)                          # the tokens of this rank, any number

Every rank makes the same calls in the same order, a rank without tokens too. The result has the
bits of one rank on the tokens of all ranks, for any number of ranks and any placement of the
experts. What the ranks do not agree on is an error on all of them; a rank that does not come is
one on all others after ``deadline`` seconds, and ends the group.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _dlpack
from ._communicator import Communicator, RawCommunicator
from ._dlpack import DLTensor, Tensor
from ._error import INVALID_ARGUMENT, MoEError
from ._library import Handle, OfThisProcess, check, library
from ._runtime import Layer, Module, _array, make_context
from ._signature import Signature
from ._weights import Checkpoint, resolve

__all__ = ["Communicator", "ExchangeStatistics", "Group", "ParallelLayer", "Saved", "placement",
           "threads"]


class _GroupOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("deadline_seconds", ctypes.c_double),
                ("memory_limit", ctypes.c_uint64), ("chunks", ctypes.c_int32),
                ("way", ctypes.c_int32), ("tokens", ctypes.c_int32)]


class _RawExchangeStatistics(ctypes.Structure):
    _fields_ = [("rounds", ctypes.c_int64), ("rows_sent", ctypes.c_int64),
                ("rows_received", ctypes.c_int64), ("bytes_sent", ctypes.c_uint64),
                ("bytes_received", ctypes.c_uint64), ("way", ctypes.c_int32)]


_P, _OUT = ctypes.c_void_p, ctypes.POINTER
# A moe_rt_read_weight_fn.
_READ = ctypes.CFUNCTYPE(ctypes.c_int32, _P, ctypes.c_size_t, ctypes.c_int64, ctypes.c_int64, _P,
                         ctypes.c_uint64)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "moe_rt_group_create": (_P, [_P, _OUT(RawCommunicator), _OUT(_GroupOptions), _OUT(_P)]),
    "moe_rt_group_destroy": (None, [_P]),
    "moe_rt_group_rank": (ctypes.c_int32, [_P]),
    "moe_rt_group_size": (ctypes.c_int32, [_P]),
    "moe_rt_group_way": (ctypes.c_int32, [_P]),
    "moe_rt_group_status": (_P, [_P]),
    "moe_rt_thread_communicators_create": (_P, [ctypes.c_int32, _OUT(RawCommunicator)]),
    "moe_rt_thread_communicators_destroy": (None, [_OUT(RawCommunicator)]),
    "moe_rt_module_parallel_count": (ctypes.c_size_t, [_P]),
    "moe_rt_module_parallel_name": (ctypes.c_char_p, [_P, ctypes.c_size_t]),
    "moe_rt_layer_create_parallel": (_P, [_P, ctypes.c_char_p, _P, _OUT(DLTensor), _OUT(DLTensor),
                                          ctypes.c_size_t, _OUT(_P)]),
    "moe_rt_layer_create_parallel_from_source": (
        _P, [_P, ctypes.c_char_p, _P, _OUT(DLTensor), _READ, _P, _OUT(_P)]),
    "moe_rt_layer_create_parallel_from_checkpoint": (
        _P, [_P, ctypes.c_char_p, _P, _OUT(DLTensor), _P, _OUT(_P)]),
    "moe_rt_layer_update_parallel_from_source": (_P, [_P, _READ, _P]),
    "moe_rt_layer_move": (_P, [_P, _OUT(DLTensor)]),
    "moe_rt_layer_call_saving": (_P, [_P, _OUT(DLTensor), ctypes.c_size_t, _OUT(DLTensor),
                                      ctypes.c_size_t, _OUT(_P)]),
    "moe_rt_layer_call_saved": (_P, [_P, _P, _OUT(DLTensor), ctypes.c_size_t, _OUT(DLTensor),
                                     ctypes.c_size_t]),
    "moe_rt_saved_bytes": (ctypes.c_uint64, [_P]),
    "moe_rt_saved_destroy": (None, [_P]),
    "moe_rt_layer_exchange_statistics": (_P, [_P, _OUT(_RawExchangeStatistics)]),
}


@functools.cache
def _library() -> ctypes.CDLL:
    """Return the runtime, with the functions of ``moe_rt/group.h`` declared."""
    lib = library()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def threads(count: int) -> list[Communicator]:
    """Return the communicators of ``count`` ranks that are threads of this process."""
    lib = _library()
    if not isinstance(count, int) or not 0 < count < 2 ** 31:
        raise MoEError(INVALID_ARGUMENT, f"count is {count!r}, expected a number of ranks")
    raw = (RawCommunicator * count)()
    check(lib.moe_rt_thread_communicators_create(count, raw))
    owner = Handle(ctypes.addressof(raw), _destroy_threads, keep=raw)
    return [Communicator(each, keep=owner) for each in raw]


def _destroy_threads(pointer: int) -> None:
    _library().moe_rt_thread_communicators_destroy(
        ctypes.cast(pointer, _OUT(RawCommunicator)))


def _communicator(group: Any) -> Communicator | None:
    """Return the communicator of what a caller passes as a group."""
    if group is None or isinstance(group, Communicator):
        return group
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and isinstance(group, distributed.ProcessGroup):
        from .integrations.process_group import communicator

        return communicator(group)
    raise MoEError(INVALID_ARGUMENT, "group: expected a process group of torch.distributed, a "
                   f"moe.parallel.Communicator or None, got {type(group).__name__}")


# moe_rt_way_t.
_WAYS = ("auto", "all_to_all", "peer", "all_gather")
# moe_rt_tokens_t.
_TOKENS = ("sharded", "replicated")


class Group(OfThisProcess):
    """The ranks of a parallel layer, as one of them sees them.

    Args:
      communicator: a process group of ``torch.distributed`` (gloo), one of ``threads``, or None
        for a group of one rank.
      deadline: how long a rank waits for the others in each exchange, in seconds.
      memory_limit: bytes that a call may use besides its tensors and weights; calls that need
        more run in rounds, with the same results. 0: no limit.
      num_threads: threads of a call on this rank, as for ``moe.load``.
      chunks: how many chunks of at least 16 tokens a call runs in: one is computed while the next
        comes and results of the one before go home, with the same results. The same on all ranks.
      way: how rows travel, the same on all ranks. ``all_to_all``: the communicator sends them,
        packed. ``peer``: each rank reads those for it where they lie, in memory that it shares
        with the others, threads or processes of one machine; not in chunks. ``auto`` is ``peer``
        where it is possible, without a limit of memory, else ``all_to_all``, or ``all_gather`` for
        a layer of which 99 % of all tokens go to each rank; ``layer.exchange.way`` says which.
        ``all_gather``: all tokens go to all ranks, unpacked, for layers whose tokens go to nearly
        all of them; neither in chunks nor in rounds. Results are the same.
      tokens: which tokens a rank calls layers with, the same on all ranks. ``sharded``: those of
        its own. ``replicated``: the same tokens as all others, as attention in tensor parallelism
        has them; each rank is home of a slice, and all get the results of all tokens.
    """

    def __init__(self, communicator: Any = None, *, deadline: float = 60.0, memory_limit: int = 0,
                 num_threads: int = 0, chunks: int = 1, way: str = "auto",
                 tokens: str = "sharded"):
        if way not in _WAYS:
            raise MoEError(INVALID_ARGUMENT, f"way is {way!r}, expected one of {list(_WAYS)}")
        if tokens not in _TOKENS:
            raise MoEError(INVALID_ARGUMENT,
                           f"tokens is {tokens!r}, expected one of {list(_TOKENS)}")
        lib = _library()
        found = _communicator(communicator)
        context = make_context(num_threads)
        options = _GroupOptions(ctypes.sizeof(_GroupOptions), float(deadline), memory_limit,
                                chunks, _WAYS.index(way), _TOKENS.index(tokens))
        out = ctypes.c_void_p()
        check(lib.moe_rt_group_create(context.pointer,
                                      None if found is None else ctypes.byref(found.raw),
                                      ctypes.byref(options), ctypes.byref(out)))
        self._context = context
        self._handle = Handle(out.value, lib.moe_rt_group_destroy, context, found)
        self._tokens = tokens

    @property
    def tokens(self) -> str:
        """Which tokens a rank calls layers with: ``sharded`` or ``replicated``."""
        return self._tokens

    @property
    def rank(self) -> int:
        """The rank of this process, from 0."""
        return _library().moe_rt_group_rank(self._handle.pointer)

    @property
    def size(self) -> int:
        """The number of ranks."""
        return _library().moe_rt_group_size(self._handle.pointer)

    @property
    def way(self) -> str:
        """How rows travel: ``all_to_all``, ``peer`` or ``all_gather``. Where it was chosen by
        itself, tokens of a layer may leave by ``all_gather`` in place of ``all_to_all``."""
        return _WAYS[_library().moe_rt_group_way(self._handle.pointer)]

    def check(self) -> None:
        """Raise the error that ended the group, if any."""
        check(_library().moe_rt_group_status(self._handle.pointer))

    def __repr__(self) -> str:
        return f"<moe.parallel.Group: rank {self.rank} of {self.size}>"


def as_group(group: Any, num_threads: int, tokens: str | None = None) -> Group:
    """Return the group that ``moe.compile`` and ``moe.load`` are called with."""
    if not isinstance(group, Group):
        return Group(group, num_threads=num_threads, tokens=tokens or "sharded")
    if tokens not in (None, group.tokens):
        raise MoEError(INVALID_ARGUMENT,
                       f"tokens is {tokens!r}, and the group has {group.tokens!r} tokens")
    return group


@dataclass(frozen=True)
class ExchangeStatistics:
    """What the last call of a layer moved, or its last ``move``, as this rank saw it.

    ``rows_sent`` and ``rows_received`` count tokens on the way to the experts, each once a rank;
    bytes are of all exchanges, between this rank and others. Of a ``move``, rows are experts.
    ``way`` is the one that tokens left by.
    """

    rounds: int
    rows_sent: int
    rows_received: int
    bytes_sent: int
    bytes_received: int
    way: str


def placement(experts: int, size: int) -> np.ndarray:
    """Return the table ``[size, slots]`` that a layer has without another one: neighbouring
    experts in order, the first ranks one more where the experts do not divide evenly."""
    counts = [experts // size + (rank < experts % size) for rank in range(size)]
    table = np.full((size, max(counts)), -1, np.int32)
    first = 0
    for row, count in zip(table, counts):
        row[:count] = range(first, first + count)
        first += count
    return table


def _table_tensor(table: Any) -> Tensor | None:
    if table is None:
        return None
    array = np.asarray(table)
    if array.size and array.dtype.kind not in "iu":
        raise MoEError(INVALID_ARGUMENT, f"table: expected integers, got {array.dtype}")
    return _dlpack.as_tensor(np.ascontiguousarray(array, np.int32), "table")


class Saved(OfThisProcess):
    """What a call of a layer of several ranks has kept, on this rank, for its backward layer."""

    def __init__(self, pointer: int, group: Group):
        self._handle = Handle(pointer, _library().moe_rt_saved_destroy, group._handle)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors that are kept."""
        return _library().moe_rt_saved_bytes(self._handle.pointer)


class ParallelLayer(Layer):
    """A layer of several ranks. All of them call it together."""

    def __init__(self, module: Module, signature: Signature, weights: Any, group: Group,
                 table: Any = None):
        self.group = group
        self._table = table
        super().__init__(module, signature, weights)

    def _bind(self, weights: Any) -> Handle:
        lib, module, signature = _library(), self.module, self.signature
        name, out = signature.name.encode(), ctypes.c_void_p()
        pointers = (module._handle.pointer, name, self.group._handle.pointer)
        try:
            table = _table_tensor(self._table)
            found = resolve(weights, signature.weights)
            tensors = self._weight_tensors(found) if isinstance(found, Sequence) else []
            read = self._own_experts(tensors)
        except Exception:
            # The others are told, who create the layer, too.
            lib.moe_rt_status_free(lib.moe_rt_layer_create_parallel(*pointers, None, None, 0,
                                                                    ctypes.byref(out)))
            raise
        arguments = (*pointers, None if table is None else ctypes.byref(table.dl))
        kept: list[Tensor] = []
        if isinstance(found, Checkpoint):
            check(lib.moe_rt_layer_create_parallel_from_checkpoint(
                *arguments, found._handle.pointer, ctypes.byref(out)))
        elif read is not None:
            check(lib.moe_rt_layer_create_parallel_from_source(*arguments, read, None,
                                                               ctypes.byref(out)))
        else:
            check(lib.moe_rt_layer_create_parallel(*arguments, _array(tensors), len(tensors),
                                                   ctypes.byref(out)))
            kept = self._retained(tensors)
        return Handle(out.value, lib.moe_rt_layer_destroy, self.group._handle,
                      (module._handle, kept))

    def _own_experts(self, tensors: Sequence[Tensor]) -> Any:
        """Return a function that reads weights of this rank's experts alone; None if they are of
        all experts."""
        infos, rank = self.signature.weights, self.group.rank
        experts, of_experts = self._experts()
        table = (placement(experts, self.group.size) if self._table is None
                 else np.asarray(self._table))
        if table.ndim != 2 or len(table) != self.group.size:
            return None  # the runtime says what is wrong
        own = [int(expert) for expert in table[rank] if expert >= 0]
        expected = [(len(own), *info.shape[1:]) if info.name in of_experts else info.shape
                    for info in infos]
        if len(own) == experts or all(
                tensor.shape[:1] == info.shape[:1]
                for info, tensor in zip(infos, tensors) if info.name in of_experts):
            return None
        for info, tensor, shape in zip(infos, tensors, expected):
            if (tensor.dtype, tensor.shape) != (info.dtype, shape) or tensor.dl.strides:
                raise MoEError(INVALID_ARGUMENT, f"weight '{info.name}' is {tensor.dtype} "
                               f"{list(tensor.shape)}, expected {info.dtype} {list(shape)}, "
                               f"contiguous, for the {len(own)} experts of rank {rank}")
        slots = {expert: slot for slot, expert in enumerate(own)}

        def read(_user: Any, weight: int, first: int, count: int, data: int, size: int) -> int:
            each, tensor = size // count, tensors[weight]
            for i in range(count):
                row = slots.get(first + i) if infos[weight].name in of_experts else first + i
                if row is None:
                    return 1  # an expert of another rank, for which the runtime does not ask
                ctypes.memmove(data + i * each,
                               tensor.dl.data + tensor.dl.byte_offset + row * each, each)
            return 0

        return _READ(read)

    def _all_experts(self, tensors: Sequence[Tensor]) -> Any:
        """Return a function that reads weights of all experts."""
        for info, tensor in zip(self.signature.weights, tensors):
            if (tensor.dtype, tensor.shape) != (info.dtype, info.shape) or tensor.dl.strides:
                raise MoEError(INVALID_ARGUMENT, f"weight '{info.name}' is {tensor.dtype} "
                               f"{list(tensor.shape)}, expected {info.dtype} {list(info.shape)}, "
                               "contiguous")

        def read(_user: Any, weight: int, first: int, count: int, data: int, size: int) -> int:
            dl = tensors[weight].dl
            ctypes.memmove(data, dl.data + dl.byte_offset + first * (size // count), size)
            return 0

        return _READ(read)

    def _experts(self) -> tuple[int, set[str]]:
        return experts_of(self.module, self.signature.name)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Run the layer on the tokens of this rank, as ``Layer`` does, with all other ranks."""
        try:
            return super().__call__(*inputs, **options)
        except Exception as error:
            if not getattr(error, "_from_runtime", False):
                # The others are told, who wait in the same call.
                refuse_call(self)
            raise

    def forward(self, *inputs: Any, **named: Any) -> tuple[Any, Saved]:
        """Run a layer that was compiled with ``--backward`` as a call does; return its result, and
        what its backward layer needs."""
        return self._run(inputs, named, None)

    def backward(self, saved: Saved, *inputs: Any, **named: Any) -> Any:
        """Run a backward layer with what ``forward`` of its layer has saved on every rank.

        Gradients of experts are those of this rank's slots, zeros for an empty one. Gradients of
        other weights are sums over the tokens of this rank: add them up over the ranks.
        """
        return self._run(inputs, named, saved)[0]

    def _run(self, inputs: Sequence[Any], named: dict[str, Any],
             saved: Saved | None) -> tuple[Any, Saved]:
        lib, out = _library(), ctypes.c_void_p()
        pointer = self._handle.pointer
        try:
            before = None if saved is None else saved._handle.pointer
            given = self._inputs(inputs, named)
            tensors = [_dlpack.as_tensor(array, label)
                       for array, label in zip(given, self._input_labels)]
            results = self._allocate(given, tensors)
            outputs = [_dlpack.as_tensor(array, label, writable=True)
                       for array, label in zip(results, self._output_labels)]
        except Exception:
            # The others are told, who wait in the same call.
            refuse_call(self)
            raise
        arguments = (_array(tensors), len(tensors), _array(outputs), len(outputs))
        if saved is None:
            check(lib.moe_rt_layer_call_saving(pointer, *arguments, ctypes.byref(out)))
            saved = Saved(out.value, self.group)
        else:
            check(lib.moe_rt_layer_call_saved(pointer, before, *arguments))
        return results[0] if len(results) == 1 else tuple(results), saved

    def update(self, weights: Any, *, in_place: bool = True) -> None:
        """Replace the weights of this rank, which are arrays as those the layer was created with.

        They are prepared in the memory of the old ones. No other rank takes part: each does so
        before its next call, if its weights have changed. After an error in the middle the layer
        has no weights, and calls are errors of all ranks, until an update succeeds.
        """
        found = resolve(weights, self.signature.weights)
        if not in_place or not isinstance(found, Sequence):
            raise MoEError(INVALID_ARGUMENT, "weights of a layer of several ranks are replaced in "
                           "place, by arrays")
        with self._updating:
            tensors = self._weight_tensors(found)
            read = self._own_experts(tensors) or self._all_experts(tensors)
            check(_library().moe_rt_layer_update_parallel_from_source(
                self._handle.pointer, read, None))

    def move(self, table: Any = None) -> None:
        """Move the experts to another placement, together with all other ranks.

        The ranks send one another the weights of experts that they did not have, as the code keeps
        them; nothing is read or prepared again. Later calls have the bits of a layer that was
        created with the table. A wrong table of one rank is an error of all, and changes nothing.
        ``exchange`` then counts the experts that moved. During the move a rank has the largest
        array of the experts that it sends and takes once more.

        Args:
          table: i32 ``[ranks, slots]``, the same on all ranks; None for the placement of a layer
            without a table.
        """
        lib, pointer = _library(), self._handle.pointer
        try:
            tensor = _table_tensor(table)
        except Exception:
            # The others are told: no table has this shape.
            lib.moe_rt_status_free(lib.moe_rt_layer_move(pointer, ctypes.byref(DLTensor())))
            raise
        check(lib.moe_rt_layer_move(pointer,
                                    None if tensor is None else ctypes.byref(tensor.dl)))
        self._table = table

    @property
    def exchange(self) -> ExchangeStatistics:
        """What the last call moved."""
        raw = _RawExchangeStatistics()
        check(_library().moe_rt_layer_exchange_statistics(self._handle.pointer,
                                                          ctypes.byref(raw)))
        numbers = [getattr(raw, name) for name, _ in raw._fields_]
        return ExchangeStatistics(*numbers[:-1], _WAYS[numbers[-1]])


def experts_of(module: Module, name: str) -> tuple[int, set[str]]:
    """Return the number of experts of a layer, and the weights of which ranks have parts: the code
    has slots in place of experts. With as many slots as experts they have all of them."""
    variant = module._variant
    layer = next(each for each in variant["parallel"] if each["name"] == name)
    parts = {step["call"] for step in layer["steps"] if "call" in step}
    shapes = {info.name: list(info.shape) for info in module.signature(name).weights}
    return layer["experts"], {
        argument["name"] for function in variant["functions"] if function["name"] in parts
        for argument in function["arguments"]
        if argument["role"] == "weight" and argument["shape"] != shapes[argument["name"]]}


def refuse_call(layer: ParallelLayer) -> None:
    """Let the other ranks know, in their next call, that this one cannot call a layer."""
    lib = library()
    lib.moe_rt_status_free(lib.moe_rt_layer_call(layer._handle.pointer, None, 0, None, 0, None, 0))


def names(module: Module) -> tuple[str, ...]:
    """Return the names of a module's layers for several ranks."""
    lib, pointer = _library(), module._handle.pointer
    count = lib.moe_rt_module_parallel_count(pointer)
    return tuple(lib.moe_rt_module_parallel_name(pointer, i).decode() for i in range(count))
