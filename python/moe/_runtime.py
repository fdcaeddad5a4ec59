"""Modules and layers: compiled code with its weights in ``libmoe_rt.so``."""

from __future__ import annotations

import ctypes
import json
import operator
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import _dlpack, _profile
from ._caller import make_caller, use_torch
from ._dlpack import CPU, CUDA, DLDevice, DLTensor, Tensor
from ._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from ._library import (ContextOptions, Executor, Handle, OfThisProcess, RawStatistics,
                       RawTensorInfo, check, encode_path, library)
from ._profile import Profile
from ._signature import ROLES, Signature, Statistics, TensorInfo
from ._weights import Checkpoint, resolve


def _device(name: str | None) -> DLDevice:
    """Parse ``cpu``, ``cuda`` or ``cuda:1``."""
    if name is None or name == "cpu":
        return DLDevice(CPU, 0)
    kind, _, ordinal = name.partition(":") if isinstance(name, str) else (name, "", "")
    if kind != "cuda" or (ordinal and not ordinal.isdecimal()) or len(ordinal) > 9:
        raise MoEError(INVALID_ARGUMENT, f"expected the device 'cpu', 'cuda' or 'cuda:N', "
                       f"got {name!r}")
    return DLDevice(CUDA, int(ordinal or 0))


def _integer(value: Any, what: str) -> int:
    """Convert to a 64-bit integer for the runtime."""
    try:
        number = operator.index(value)
    except TypeError:
        raise MoEError(INVALID_ARGUMENT, f"{what} is {value!r}, expected an integer") from None
    if not -2 ** 63 <= number < 2 ** 63:
        raise MoEError(INVALID_ARGUMENT, f"{what} is {number}, expected an integer of 64 bits")
    return number


def _executor_of_torch() -> Executor | None:
    """Return an executor on PyTorch's threads, if it is loaded and uses OpenMP.

    Its threads spin while they wait, and would compete with those of the runtime for the cores.
    """
    torch = sys.modules.get("torch")
    if getattr(torch, "__file__", None) is None or os.environ.get("MOE_OPENMP") == "0":
        return None
    lib, executor = library(), Executor()
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if status := lib.moe_rt_openmp_executor(os.fsencode(path), ctypes.byref(executor)):
        lib.moe_rt_status_free(status)
        return None
    return executor


def make_context(num_threads: int = 0, device: str | None = None) -> Handle:
    """Create a context with the threads or the GPU of a module; an error if they are
    unavailable."""
    num_threads = _integer(num_threads, "num_threads")
    lib = library()
    out = ctypes.c_void_p()
    options = ContextOptions(struct_size=ctypes.sizeof(ContextOptions),
                              num_threads=num_threads, device=_device(device))
    executor = _executor_of_torch() if num_threads == 0 else None
    if executor is not None:
        options.executor = ctypes.addressof(executor)
    check(lib.moe_rt_context_create(ctypes.byref(options), ctypes.byref(out)))
    context = Handle(out.value, lib.moe_rt_context_destroy)
    context.uses_openmp = executor is not None
    context.on_device = options.device.device_type != CPU
    return context


class Module(OfThisProcess):
    """A compiled artifact, created by ``moe.load`` or ``moe.compile``."""

    on_device = uses_openmp = False
    group = None  # the ranks that call its layers, if any

    def __init__(self, source: str | os.PathLike[str] | bytes, *, num_threads: int = 0,
                 device: str | None = None, context: Handle | None = None, group: Any = None):
        lib = library()
        self.group = group
        if group is not None:
            context = group._context
        if context is None:
            context = make_context(num_threads, device)
        self.uses_openmp = context.uses_openmp
        out = ctypes.c_void_p()
        self.path: Path | None = None
        if isinstance(source, bytes):
            check(lib.moe_rt_module_load_memory(context.pointer, source, len(source),
                                                ctypes.byref(out)))
        else:
            self.path = Path(source)
            check(lib.moe_rt_module_load(context.pointer, encode_path(source),
                                         ctypes.byref(out)))
        self._context = context
        self._origin: Any = None  # what ``moe.compile`` made it of
        self.on_device = context.on_device
        self._handle = Handle(out.value, lib.moe_rt_module_destroy, context)
        self.metadata: dict[str, Any] = json.loads(lib.moe_rt_module_metadata(out.value))

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the compiled functions."""
        lib, module = library(), self._handle.pointer
        count = lib.moe_rt_module_function_count(module)
        return tuple(lib.moe_rt_module_function_name(module, i).decode() for i in range(count))

    def signature(self, function: str | None = None) -> Signature:
        """Return the signature of a function, by default of the only one."""
        lib, module = library(), self._handle.pointer
        name = self._only() if function is None else function
        if not isinstance(name, str):
            raise MoEError(INVALID_ARGUMENT, f"function is {name!r}, expected its name")
        sums = self._described(name).get("accumulates", ())
        by_role: list[tuple[TensorInfo, ...]] = []
        for role in range(3):
            count = ctypes.c_size_t()
            check(lib.moe_rt_function_tensor_count(module, name.encode(), role,
                                                   ctypes.byref(count)))
            tensors = []
            for i in range(count.value):
                info = RawTensorInfo()
                check(lib.moe_rt_function_tensor_info(module, name.encode(), role, i,
                                                      ctypes.byref(info)))
                label = info.name.decode()
                tensors.append(TensorInfo(
                    label, ROLES[info.role], _dlpack.dtype_name(info.dtype),
                    tuple(info.shape[d] for d in range(info.ndim)), info.alignment,
                    max(info.num_experts, 0), info.retained,
                    ROLES[info.role] == "output" and label in sums))
            by_role.append(tuple(tensors))
        low, high = ctypes.c_int64(), ctypes.c_int64()
        check(lib.moe_rt_function_token_range(module, name.encode(), ctypes.byref(low),
                                              ctypes.byref(high)))
        return Signature(name, *by_role, low.value, high.value)

    def layer(self, weights: Any = None, function: str | None = None,
              table: Any = None) -> Layer:
        """Bind weights to a function.

        ``weights`` is a mapping from names to arrays, a sequence in signature
        order, a ``.safetensors`` or ``.gguf`` file, the directory of a Hugging Face
        checkpoint, which is memory-mapped, or a ``moe.Checkpoint``. Weights for which
        the code needs another layout are prepared once; from files they are read
        expert by expert. Others are not copied, unless they are stacked from several
        tensors of a file or not aligned.

        With a group of ranks, which all create the layer together, weights are those of all
        experts, of which only those of this rank are read; arrays may also have these alone,
        in the order of its slots. ``table`` ``[size, slots]`` has the
        expert of each slot of each rank, −1 for an empty one; by default
        ``moe.parallel.placement``.
        """
        signature = self.signature(function)
        if self.group is None:
            if table is not None:
                raise MoEError(INVALID_ARGUMENT, "table: expected a module with a group")
            return Layer(self, signature, resolve(weights, signature.weights))
        from .parallel import ParallelLayer

        return ParallelLayer(self, signature, weights, self.group, table)

    @property
    def target(self) -> str:
        """The target whose code runs: a processor, or the architecture of a GPU."""
        target = self._variant["target"]
        return target.get("device", {}).get("arch") or target.get("cpu") or target["triple"]

    @property
    def _variant(self) -> dict[str, Any]:
        """The metadata of the code that runs."""
        return self.metadata["variants"][library().moe_rt_module_variant(self._handle.pointer)]

    def _described(self, function: str) -> dict[str, Any]:
        """Return the metadata of a function."""
        return next((f for f in self._variant["functions"] if f["name"] == function), {})

    def trim(self) -> None:
        """Free the workspaces that are cached for later calls."""
        library().moe_rt_context_trim(self._context.pointer)

    def _only(self) -> str:
        names = self.functions
        if self.group is not None:
            from . import parallel

            names = parallel.names(self)
        if len(names) != 1:
            raise MoEError(INVALID_ARGUMENT, "expected the name of a function, one of "
                           + ", ".join(f"'{n}'" for n in names))
        return names[0]

    def __repr__(self) -> str:
        return f"<moe.Module {self.path or 'in memory'}: {', '.join(self.functions)}>"


class Layer(OfThisProcess):
    """One compiled function with its weights. Call it with arrays."""

    def __init__(self, module: Module, signature: Signature, weights: Sequence[Any] | Checkpoint):
        self.module = module
        self.signature = signature
        # What errors of calls name.
        self._input_labels = [f"input '{info.name}'" for info in signature.inputs]
        self._output_labels = [f"output '{info.name}'" for info in signature.outputs]
        self._counts = True
        self._past: list[Statistics] = []  # of the weights before
        self._updating = threading.Lock()
        self._profile: Profile | None = None  # while it is measured
        self._binding: Any = None  # for programs of JAX that call it
        self._caller = make_caller(signature)
        self._caller_knows_torch = self._caller is None or use_torch(self._caller)
        # A running call keeps its own reference, as an update replaces this one.
        self._handle = self._bind(weights)

    def _bind(self, weights: Sequence[Any] | Checkpoint) -> Handle:
        """Create an object of the runtime with these weights."""
        lib, module, signature = library(), self.module, self.signature
        pointer, name, out = module._handle.pointer, signature.name.encode(), ctypes.c_void_p()
        kept: list[Tensor] = []
        if isinstance(weights, Sequence):
            tensors = self._weight_tensors(weights)
            check(lib.moe_rt_layer_create(pointer, name, _array(tensors), len(tensors),
                                          ctypes.byref(out)))
            kept = self._retained(tensors)
        else:
            check(lib.moe_rt_layer_create_from_checkpoint(
                pointer, name, weights._handle.pointer, ctypes.byref(out)))
        return Handle(out.value, lib.moe_rt_layer_destroy, module._handle, kept)

    def _weight_tensors(self, weights: Sequence[Any]) -> list[Tensor]:
        return [_dlpack.as_tensor(w, f"weight '{info.name}'")
                for w, info in zip(weights, self.signature.weights)]

    def _retained(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the weights that calls read where they are."""
        return [t for t, info in zip(tensors, self.signature.weights) if info.retained]

    def update(self, weights: Any, *, in_place: bool = False) -> None:
        """Replace the weights of the layer; they are passed as to ``Module.layer``.

        Nothing is compiled. New weights are prepared beside the old ones and then
        replace them atomically: a concurrent call, in another thread or on a stream, uses
        all of the old or all of the new ones. The old ones are freed when no call uses
        them; statistics may miss such a call. On a GPU this waits for earlier calls and
        raises their errors like ``poll``, after the weights are replaced; graphs must be
        captured again.

        With ``in_place`` they are prepared in the memory of the old ones, which is
        faster: nothing is allocated. No other thread may call the layer meanwhile. Both
        the old and the new weights must be arrays. If weights are refused, the layer is
        unchanged; after any other error it has none until an update succeeds.
        """
        found = resolve(weights, self.signature.weights)
        lib, on_device = library(), self.module.on_device
        if in_place:
            if isinstance(found, Checkpoint):
                raise MoEError(INVALID_ARGUMENT, "weights that are updated in place: expected "
                               f"arrays, got {found}")
            with self._updating:
                tensors = self._weight_tensors(found)
                check(lib.moe_rt_layer_update(self._handle.pointer, _array(tensors),
                                              len(tensors)))
                self._handle.keep[:] = self._retained(tensors)
            return
        with self._updating:
            if on_device:
                _statistics(self._handle)  # not possible while a stream is captured
            new = self._bind(found)
            lib.moe_rt_layer_enable_statistics(new.pointer, int(self._counts))
            if self._profile is not None:
                check(lib.moe_rt_layer_enable_profile(new.pointer, 1))
            old, self._handle = self._handle, new
            if self._binding is not None:
                self._binding.rebind(new)
            if on_device:
                # Waits for all work of the device.
                old.before.append(lib.moe_rt_layer_reset_statistics)
            self._past = _sums(self._past, _statistics(old))
            check(lib.moe_rt_layer_poll(old.pointer))

    def __call__(self, *inputs: Any, out: Any = None, workspace: Any = None,
                 stream: Any = None, live_tokens: Any = None, **named: Any) -> Any:
        """Run the layer.

        On a GPU, calls with torch tensors run on torch's current stream and do not wait
        for it; ``poll`` raises their errors. With other arrays the call waits, unless a
        stream is given.

        Args:
          inputs: arrays in signature order, or by name: numpy or torch.
          out: an array, or a sequence of them, that receives the outputs.
            Without it they are allocated, of the kind of the first input.
          workspace: a ``uint8`` array of at least ``workspace_bytes(T)`` bytes
            aligned to 64; by default the runtime allocates one and caches it for later
            calls (``Module.trim`` frees it). On a GPU it is device memory, aligned to
            256.
          stream: the CUstream to run on: its handle, or an object with the attribute
            ``cuda_stream`` (torch's).
          live_tokens: on a GPU, an ``int32`` array of one element in its memory: the
            number of live tokens, which come first. Kernels read it when they run, so
            that a graph captured with the most tokens can be replayed with fewer; output
            rows of other tokens have unspecified contents.

        Returns:
          The output, or a tuple if there are several.
        """
        caller = self._caller
        if caller is not None and stream is None and live_tokens is None and not named:
            handle = self._handle
            result = caller(handle.pointer, inputs, out, workspace)
            if result is not NotImplemented:
                return result
            if not self._caller_knows_torch and "torch" in sys.modules:
                self._caller_knows_torch = use_torch(caller)
        given: Sequence[Any] = inputs
        if named or len(inputs) != len(self._input_labels):
            given = self._inputs(inputs, named)
        tensors = []
        for array, label in zip(given, self._input_labels):
            _refuse_gradient(array, label)
            tensors.append(_dlpack.as_tensor(array, label))
        if out is None:
            if sums := [o.name for o in self.signature.outputs if o.accumulates]:
                raise MoEError(INVALID_ARGUMENT, "expected out=, got none: " + ", ".join(sums)
                               + " are added to what it has")
            results = self._allocate(given, tensors)
        elif isinstance(out, Sequence) and not _is_array(out):
            results = list(out)
        else:
            results = [out]
        if len(results) != len(self.signature.outputs):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(self.signature.outputs)} outputs, "
                           f"got {len(results)}")
        outputs = []
        for array, label in zip(results, self._output_labels):
            _refuse_gradient(array, label)
            outputs.append(_dlpack.as_tensor(array, label, writable=True))
        space, size = None, 0
        if workspace is not None:
            described = _dlpack.as_tensor(workspace, "workspace", writable=True)
            if described.dl.strides:
                raise MoEError(INVALID_ARGUMENT, "workspace: expected a contiguous array")
            space, size = described.dl.data, described.nbytes
        handle = self._handle
        arguments = (handle.pointer, _array(tensors), len(tensors), _array(outputs),
                     len(outputs), space, size)
        if (stream is None and given and not isinstance(given[0], np.ndarray)
                and _dlpack.is_torch(given[0]) and given[0].is_cuda):
            import torch

            stream = torch.cuda.current_stream(given[0].device)
        stream = getattr(stream, "cuda_stream", stream)
        if live_tokens is not None:
            live = _dlpack.as_tensor(live_tokens, "live_tokens")
            if live.dtype != "i32" or live.nbytes != 4:
                raise MoEError(INVALID_ARGUMENT, "live_tokens: expected one i32, got "
                               f"{live.dtype} of {live.nbytes} bytes")
            if stream is None:
                raise MoEError(INVALID_ARGUMENT, "live_tokens: expected a stream, got none")
            check(library().moe_rt_layer_call_live_on_stream(*arguments, stream, live.dl.data))
        elif stream is None:
            check(library().moe_rt_layer_call(*arguments))
        else:
            check(library().moe_rt_layer_call_on_stream(*arguments, stream))
        return results[0] if len(results) == 1 else tuple(results)

    def poll(self) -> None:
        """Raise the first error of calls that have run on a stream since the last poll."""
        handle = self._handle
        check(library().moe_rt_layer_poll(handle.pointer))

    def workspace_bytes(self, tokens: int) -> int:
        """Return the bytes of workspace that a call with ``tokens`` tokens needs at most."""
        handle, out = self._handle, ctypes.c_uint64()
        tokens = _integer(tokens, "tokens")
        check(library().moe_rt_layer_workspace_bytes(handle.pointer, tokens, ctypes.byref(out)))
        return out.value

    @property
    def weight_bytes(self) -> int:
        """Return the bytes of weights in memory of the layer: prepared, or read."""
        handle = self._handle
        return library().moe_rt_layer_weight_bytes(handle.pointer)

    @property
    def quantization_errors(self) -> dict[str, list[float]]:
        """Return the relative errors of the weights that ``compile(quantize=...)`` rounded, by
        name: for each expert ``|kept - w| / |w|``, in the Frobenius norm."""
        handle, errors = self._handle, {}
        for index, info in enumerate(self.signature.weights):
            found, count = ctypes.POINTER(ctypes.c_float)(), ctypes.c_size_t()
            check(library().moe_rt_layer_quantization_errors(
                handle.pointer, index, ctypes.byref(found), ctypes.byref(count)))
            if count.value:
                errors[info.name] = found[:count.value]
        return errors

    def statistics(self) -> list[Statistics]:
        """Return the counts of each dispatch of the layer since the last reset."""
        with self._updating:
            return _sums(self._past, _statistics(self._handle))

    def _count_on_from(self, counted: list[Statistics]) -> None:
        """Add the counts of a layer that this one, with other weights, is in place of."""
        with self._updating:
            self._past = counted

    def reset_statistics(self) -> None:
        with self._updating:
            self._past = []
            library().moe_rt_layer_reset_statistics(self._handle.pointer)

    def enable_statistics(self, enabled: bool = True) -> None:
        """Enable or disable statistics of later calls; initially enabled. On a GPU, disabling saves
        a kernel in each call, if a gate chooses the experts and none has a capacity."""
        with self._updating:
            self._counts = enabled
            library().moe_rt_layer_enable_statistics(self._handle.pointer, int(enabled))

    @contextmanager
    def profile(self) -> Iterator[Profile]:
        """Measure what the stages of the calls in a ``with`` block take.

            with layer.profile() as profile:
                layer(x)
            print(profile)

        On a GPU each call waits for its kernels; a captured graph is not measured. After
        ``update`` only the calls since then count.
        """
        lib, before = library(), self.statistics()
        with self._updating:
            if self._profile is not None:
                raise MoEError(FAILED_PRECONDITION, "the layer is profiled already")
            check(lib.moe_rt_layer_enable_profile(self._handle.pointer, 1))
            lib.moe_rt_layer_reset_profile(self._handle.pointer)
            profile = self._profile = Profile(self.module.target)
        try:
            yield profile
        finally:
            with self._updating:
                self._profile = None
                check(lib.moe_rt_layer_enable_profile(self._handle.pointer, 0))
                _profile.read(self._handle, profile)
            profile.dispatches = _profile.differences(before, self.statistics())

    def _inputs(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
        names = [info.name for info in self.signature.inputs]
        given = dict(zip(names, inputs))
        if len(inputs) > len(names):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(names)} inputs, got {len(inputs)}")
        for name, array in named.items():
            if name not in names:
                raise MoEError(INVALID_ARGUMENT, f"no input '{name}'; there are {names}")
            if name in given:
                raise MoEError(INVALID_ARGUMENT, f"input '{name}' was given twice")
            given[name] = array
        if missing := [name for name in names if name not in given]:
            raise MoEError(INVALID_ARGUMENT, "missing inputs: " + ", ".join(missing))
        return [given[name] for name in names]

    def _allocate(self, given: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
        tokens = 0
        for info, tensor in zip(self.signature.inputs, tensors):
            for size, actual in zip(info.shape, tensor.shape):
                if size < 0:
                    tokens = actual
                    break
        example = given[0] if given else None
        return [_dlpack.empty_like_kind(
            example, info.dtype, [tokens if d < 0 else d for d in info.shape])
            for info in self.signature.outputs]

    def __repr__(self) -> str:
        return f"<moe.Layer {self.signature}>"


def _statistics(handle: Handle) -> list[Statistics]:
    lib = library()
    found = []
    for i in range(lib.moe_rt_layer_dispatch_count(handle.pointer)):
        raw = RawStatistics()
        check(lib.moe_rt_layer_statistics(handle.pointer, i, ctypes.byref(raw)))
        counts = np.array(raw.tokens_per_expert[:raw.num_experts], np.int64)
        found.append(Statistics(raw.num_experts, raw.top_k, counts, raw.calls, raw.choices,
                                raw.dropped, raw.padding))
    return found


def _sums(past: list[Statistics], present: list[Statistics]) -> list[Statistics]:
    return [Statistics(b.num_experts, b.top_k, a.tokens_per_expert + b.tokens_per_expert,
                       a.calls + b.calls, a.choices + b.choices, a.dropped + b.dropped,
                       a.padding + b.padding)
            for a, b in zip(past, present)] or present


def _refuse_gradient(array: Any, what: str) -> None:
    if _dlpack.wants_gradient(array):
        raise MoEError(UNIMPLEMENTED, f"{what} requires a gradient, and layers have none; call "
                       "under torch.no_grad(), or detach it")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _dlpack.is_torch(value) or hasattr(value, "__dlpack__")


def _array(tensors: Sequence[Tensor]) -> Any:
    """Return what functions of the runtime take as the first of several ``DLTensor``."""
    if len(tensors) == 1:
        return ctypes.byref(tensors[0].dl)
    return (DLTensor * max(len(tensors), 1))(*(t.dl for t in tensors))


def group_of(group: Any, num_threads: int) -> Any:
    """Return the group of a module, if it has one."""
    if group is None:
        return None
    from .parallel import as_group

    return as_group(group, num_threads)


def load(path: str | os.PathLike[str] | bytes, *, num_threads: int = 0,
         device: str | None = None, group: Any = None) -> Module:
    """Load an artifact, from a file or from bytes.

    A call uses ``num_threads`` threads: 1 is only the caller's, 0 one for each core
    available to the process. With 0, and PyTorch loaded, calls use
    ``torch.get_num_threads()`` of PyTorch's threads, so that two pools do not spin on the
    same cores (``MOE_OPENMP=0`` in the environment or any other number selects threads of
    the runtime; see ``Module.uses_openmp``). Concurrent calls share the threads.
    ``device`` is ``cpu`` (the default), or ``cuda``, ``cuda:1`` and so on, for which the
    artifact must have been compiled. ``group``, a ``moe.parallel.Group`` or what it is made of,
    runs layers that were compiled for several ranks (``moe-compile --parallel``).
    """
    return Module(path, num_threads=num_threads, device=device, group=group_of(group, num_threads))
