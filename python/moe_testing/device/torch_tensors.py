"""Tensors of PyTorch whose memory is that of the driver's double, on the device "cuda:0".

PyTorch for the CPU has no such tensors of its own. Operations of PyTorch run on copies on
the host; our operations get the addresses.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .cuda_driver import Graph, Memory, driver

aten = torch.ops.aten
_SAME_MEMORY = {aten.detach.default, aten.alias.default, aten.view.default,
                aten._unsafe_view.default}


class DeviceTensor(torch.Tensor):
    """A contiguous tensor in memory of the double."""

    @staticmethod
    def __new__(cls, memory: Memory, shape: tuple[int, ...], dtype: torch.dtype) -> DeviceTensor:
        tensor = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device="cuda:0")
        tensor.memory = memory
        return tensor

    def data_ptr(self) -> int:
        return self.memory.address

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({to_host(self)})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation whose operands or result are on the device."""
    if function.namespace == "moe_mlir":
        return OPDEFS[function._schema.name]._init_fn(*args, **kwargs)
    if function is aten.to.dtype and args[0].dtype == args[1]:
        return args[0]
    if function in _SAME_MEMORY:
        source = args[0]
        shape = source.shape if len(args) == 1 else torch.empty(
            source.shape, device="meta").view(args[1]).shape
        return DeviceTensor(source.memory, tuple(shape), source.dtype)
    host = tree_map(lambda v: to_host(v) if isinstance(v, DeviceTensor) else v, (args, kwargs))
    host[1].pop("device", None)
    on_device = torch.device(kwargs.get("device") or "cuda:0").type == "cuda"
    result = function(*host[0], **host[1])
    if function._schema.is_mutable:
        write(args[0], host[0][0])
        return args[0]
    return tree_map(lambda v: to_device(v) if isinstance(v, torch.Tensor) and on_device else v,
                    result)


_kept: list[Memory] = []


def capture(stream: int, work: Callable[[], Any]) -> Graph:
    """Capture what ``work`` gives to ``stream``; its memory stays, as in ``torch.cuda.graph``."""
    before = len(_kept)
    _kept.append(None)
    graph = driver().capture(stream, work)
    graph.memory = _kept[before:]
    del _kept[before:]
    return graph


def to_device(tensor: torch.Tensor) -> DeviceTensor:
    tensor = tensor.detach().contiguous()
    memory = Memory(tensor.nbytes)
    if _kept:
        _kept.append(memory)
    made = DeviceTensor(memory, tuple(tensor.shape), tensor.dtype)
    write(made, tensor)
    return made


def write(made: DeviceTensor, tensor: torch.Tensor) -> None:
    driver().upload(made.memory.address, _bytes(tensor.detach().contiguous()))


def to_host(tensor: DeviceTensor) -> torch.Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype)
    driver().download(tensor.memory.address, _bytes(made))
    return made


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy()


class _Factories(TorchDispatchMode):
    """Makes the tensors that are asked for on "cuda"."""

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "moe_mlir" and any(
                isinstance(leaf, DeviceTensor) for leaf in tree_leaves((args, kwargs))):
            with self:  # for what our operation asks for
                return run(function, args, kwargs)
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            return run(function, args, kwargs)
        return function(*args, **kwargs)


@contextlib.contextmanager
def device(monkeypatch: Any, stream: int = 0) -> Iterator[None]:
    """Within this, "cuda" is the double, and ``stream`` PyTorch's current stream."""
    from moe.integrations._experts import description
    from moe.integrations._layers import follow

    current = types.SimpleNamespace(cuda_stream=stream,
                                    synchronize=lambda: driver().wait(stream))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: current)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability",
                        lambda device=None: driver().capability())
    for module in (description, follow):
        monkeypatch.setattr(module, "PLAIN", (*follow.PLAIN, DeviceTensor))
    with _Factories():
        yield
