"""Calls of a layer with little overhead: descriptors are created once and reused.

``Layer.__call__`` takes any arrays and creates a descriptor for each. A caller that knows
shapes and types in advance only passes addresses; the runtime still checks the rest.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence

from ._dlpack import CPU, CUDA, DTYPES, DLDataType, DLDevice, DLTensor
from ._library import OfThisProcess, check, library
from ._runtime import Layer
from ._signature import TensorInfo


class Call(OfThisProcess):
    """Calls one layer; not thread-safe. ``gpu`` is the number of its GPU, None on the CPU."""

    def __init__(self, layer: Layer, gpu: int | None = None):
        self._layer = layer
        self._device = DLDevice(CPU, 0) if gpu is None else DLDevice(CUDA, gpu)
        self._call = library().moe_rt_layer_call
        self._call_on_stream = library().moe_rt_layer_call_on_stream
        self._tokens = -1
        self._dynamic: list[tuple[ctypes.Array[ctypes.c_int64], int]] = []
        signature = layer.signature
        self._inputs, self._in = self._describe(signature.inputs)
        self._outputs, self._out = self._describe(signature.outputs)

    def _describe(self, infos: Sequence[TensorInfo]) -> tuple[ctypes.Array[DLTensor],
                                                              list[DLTensor]]:
        array = (DLTensor * max(len(infos), 1))()
        for tensor, info in zip(array, infos):
            shape = (ctypes.c_int64 * max(len(info.shape), 1))(*info.shape)
            self._dynamic += [(shape, i) for i, size in enumerate(info.shape) if size < 0]
            tensor.device = self._device
            tensor.dtype = DLDataType(*DTYPES[info.dtype], 1)
            tensor.ndim = len(info.shape)
            tensor.shape = ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64))
        # Views of the elements, as creating one for each access is slow.
        return array, list(array)

    def __call__(self, tokens: int, inputs: Sequence[int], outputs: Sequence[int],
                 workspace: int | None = None, workspace_bytes: int = 0,
                 stream: int | None = None) -> None:
        """Run with ``tokens`` tokens on compact tensors at these addresses.

        With ``stream``, a CUstream, the call is enqueued; 0 is the default stream.
        """
        if tokens != self._tokens:
            for shape, dimension in self._dynamic:
                shape[dimension] = tokens
            self._tokens = tokens
        for tensor, address in zip(self._in, inputs):
            tensor.data = address
        for tensor, address in zip(self._out, outputs):
            tensor.data = address
        handle = self._layer._handle  # must outlive the use of its address
        arguments = (handle.pointer, self._inputs, len(self._in), self._outputs, len(self._out),
                     workspace, workspace_bytes)
        status = (self._call(*arguments) if stream is None
                  else self._call_on_stream(*arguments, stream))
        if status:
            check(status)


class Calls(threading.local):
    """One ``Call`` of a layer for each thread."""

    def __init__(self, layer: Layer, gpu: int | None = None):
        self.call = Call(layer, gpu)
