"""Kernels that other compilers wrote as PTX, on the double of the CUDA driver.

Each run starts with a new state of the double. What the ISA forbids and hardware accepts is
allowed, since such kernels rely on it.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from . import cuda_driver

LENIENT = {"COPIES": "allow", "RACES": "equal", "BARRIERS": "allow", "PLACEMENT": "hardware"}
# CU_TENSOR_MAP_DATA_TYPE_*, CU_LAUNCH_ATTRIBUTE_*, CU_FUNC_ATTRIBUTE_*
_TYPES = {"uint8": 0, "float8_e4m3fn": 0, "float16": 6, "float32": 7, "bfloat16": 9}
_CLUSTER, _COOPERATIVE, _PROGRAMMATIC = 4, 2, 6
_DYNAMIC_SHARED = 8
_SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


class Refused(Exception):
    """The double did not load or execute a kernel; says why."""


@dataclass(frozen=True)
class Program:
    ptx: str
    entry: str
    threads: int
    shared: int = 0  # bytes of dynamic shared memory

    def parameters(self) -> list[tuple[int, bool]]:
        """The bytes of each, and whether it is a floating-point number."""
        head = re.search(rf"\.entry\s+{re.escape(self.entry)}\s*\((.*?)\)\s*[.{{]", self.ptx,
                         re.DOTALL)
        found = []
        for kind, bits, count in re.findall(
                r"\.param\s+(?:\.align\s+\d+\s+)?\.([bufs])(\d+)[^,\[]*(?:\[(\d+)\])?",
                head.group(1)):
            found.append((_SIZES[bits] * int(count or 1), kind == "f"))
        return found

    def mutated(self, pattern: str, by: str = "", count: int = 1, skip: int = 0) -> Program:
        """The program with some occurrences of a pattern replaced; there must be any."""
        seen = 0

        def replace(match: re.Match[str]) -> str:
            nonlocal seen
            seen += 1
            chosen = seen > skip and (count == 0 or seen <= skip + count)
            return match.expand(by) if chosen else match.group(0)

        ptx = re.sub(pattern, replace, self.ptx)
        assert ptx != self.ptx, f"there is no '{pattern}' to replace"
        return Program(ptx, self.entry, self.threads, self.shared)


@dataclass(frozen=True)
class TensorMap:
    """Of an array; its box counts from the outermost dimension, as its shape does."""

    array: np.ndarray
    box: tuple[int, ...]
    swizzle: int  # CU_TENSOR_MAP_SWIZZLE_*


@dataclass(frozen=True)
class Launch:
    program: Program
    grid: tuple[int, ...]
    arguments: Sequence[Any]  # arrays, numbers, tensor maps
    cluster: int = 1
    cooperative: bool = False
    programmatic: bool = False


class _Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16)]


class _Config(ctypes.Structure):
    _fields_ = [("sizes", ctypes.c_uint * 7), ("stream", ctypes.c_void_p),
                ("attributes", ctypes.POINTER(_Attribute)), ("count", ctypes.c_uint)]


@dataclass
class _Run:
    driver: cuda_driver.Driver
    memory: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> None:
        if getattr(self.driver.library, name)(*arguments):
            message = self.driver.library.moe_cuda_double_message
            message.restype = ctypes.c_char_p
            raise Refused(message().decode())

    def address(self, array: np.ndarray) -> int:
        if id(array) not in self.memory:
            assert array.flags.c_contiguous
            address = self.driver.allocate(array.nbytes)
            self.driver.upload(address, array)
            self.memory[id(array)] = address, array
        return self.memory[id(array)][0]

    def upload(self, launches: Sequence[Launch]) -> None:
        for launch in launches:
            for value in launch.arguments:
                if isinstance(value, np.ndarray | TensorMap):
                    self.address(value if isinstance(value, np.ndarray) else value.array)

    def encode(self, given: TensorMap) -> ctypes.Array:
        """At an address that is a multiple of 64."""
        array, rank = given.array, given.array.ndim
        storage = (ctypes.c_char * 192)()
        self.kept.append(storage)
        start = -ctypes.addressof(storage) % 64
        sizes = (ctypes.c_uint64 * rank)(*reversed(array.shape))
        strides = (ctypes.c_uint64 * rank)(*reversed(array.strides[:-1]))
        box = (ctypes.c_uint32 * rank)(*reversed(given.box))
        ones = (ctypes.c_uint32 * rank)(*[1] * rank)
        self.call("cuTensorMapEncodeTiled", ctypes.byref(storage, start),
                  _TYPES[array.dtype.name], rank, ctypes.c_void_p(self.address(array)), sizes,
                  strides, box, ones, 0, given.swizzle, 0, 0)
        return (ctypes.c_char * 128).from_buffer(storage, start)

    def parameter(self, value: Any, size: int, floating: bool) -> ctypes.Array:
        if isinstance(value, TensorMap):
            return self.encode(value)
        if isinstance(value, np.ndarray):
            value = self.address(value)
        if floating or isinstance(value, float):
            raw = np.array([value], np.float32).tobytes()
        else:
            raw = int(value).to_bytes(8, "little", signed=int(value) < 0)[:size]
        return ctypes.create_string_buffer(raw, size)

    def launch(self, launch: Launch) -> None:
        program, module, function = launch.program, ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), program.ptx.encode())
        self.call("cuModuleGetFunction", ctypes.byref(function), module, program.entry.encode())
        self.call("cuFuncSetAttribute", function, _DYNAMIC_SHARED, program.shared)
        kinds = program.parameters()
        assert len(kinds) == len(launch.arguments), (kinds, len(launch.arguments))
        values = [self.parameter(value, size, floating)
                  for value, (size, floating) in zip(launch.arguments, kinds, strict=True)]
        self.kept.extend(values)
        pointers = (ctypes.c_void_p * (len(values) + 1))(*[ctypes.addressof(v) for v in values])
        wanted = [(_CLUSTER, (launch.cluster, 1, 1))] if launch.cluster > 1 else []
        wanted += [(_COOPERATIVE, (1,))] if launch.cooperative else []
        wanted += [(_PROGRAMMATIC, (1,))] if launch.programmatic else []
        attributes = (_Attribute * max(1, len(wanted)))()
        for attribute, (number, numbers) in zip(attributes, wanted, strict=False):
            attribute.id, attribute.value[:len(numbers)] = number, numbers
        grid = tuple(launch.grid) + (1,) * (3 - len(launch.grid))
        config = _Config((ctypes.c_uint * 7)(*grid, program.threads, 1, 1, program.shared), None,
                         attributes, len(wanted))
        self.call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)

    def results(self) -> None:
        for address, array in self.memory.values():
            if array.flags.writeable:
                self.driver.download(address, array)


def run(*launches: Launch, seed: int = 0, **settings: str) -> None:
    """Run launches of one stream; the arrays among their arguments get what was written to
    them. Raises ``Refused``."""
    environment = {f"MOE_CUDA_DOUBLE_{name}": value for name, value in (LENIENT | settings).items()}
    with mock.patch.dict(os.environ, environment | {"MOE_CUDA_DOUBLE_SEED": str(seed)}):
        ctypes.CDLL(cuda_driver.library_name()).moe_cuda_double_reset()
        cuda_driver.driver.cache_clear()
        one = _Run(cuda_driver.Driver())
        # A copy between launches would wait for the first.
        one.upload(launches)
        for launch in launches:
            one.launch(launch)
        one.call("cuCtxSynchronize")
        one.results()
