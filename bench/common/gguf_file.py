"""Write a .gguf file without its data: what is needed to compile a layer.

The data of the file is a hole of the right size. The format is described in docs/gguf.md of ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from .data import weight_shapes
from .formats import FORMATS
from .shapes import Shape

ALIGNMENT = 32
TYPES = {"f32": 0, "q4_0": 2, "q8_0": 8, "q4_K": 12, "q6_K": 14, "mxfp4": 39}
NAMES = {"router": "ffn_gate_inp", "gate_up_proj": "ffn_gate_up_exps", "down_proj": "ffn_down_exps",
         "shared_gate_proj": "ffn_gate_shexp", "shared_up_proj": "ffn_up_shexp",
         "shared_down_proj": "ffn_down_shexp"}
# Its code leaves the normalisation to the key, and its gate is a softmax.
ARCHITECTURE = "qwen2moe"


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: str | bool | int) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    return struct.pack("<II", 4, value)


def write_header(path: Path, shape: Shape, name: str) -> None:
    """Write the header of a file with one layer in a format, and the size of its data."""
    keys: Mapping[str, str | bool | int] = {
        "general.architecture": ARCHITECTURE, f"{ARCHITECTURE}.block_count": 1,
        f"{ARCHITECTURE}.embedding_length": shape.hidden,
        f"{ARCHITECTURE}.expert_count": shape.experts,
        f"{ARCHITECTURE}.expert_used_count": shape.top_k,
        f"{ARCHITECTURE}.expert_weights_norm": shape.renormalise}
    header = b"".join(_string(key) + _value(value) for key, value in keys.items())
    offset, tensors = 0, weight_shapes(shape)
    for tensor, dims in tensors.items():
        kind = "f32" if tensor == "router" else name
        header += _string(f"blk.0.{NAMES[tensor]}.weight") + struct.pack("<I", len(dims))
        header += struct.pack(f"<{len(dims)}Q", *reversed(dims))
        header += struct.pack("<IQ", TYPES[kind], offset)
        rows = 1
        for extent in dims[:-1]:
            rows *= extent
        row = 4 * dims[-1] if kind == "f32" else FORMATS[kind].row_bytes(dims[-1])
        offset += -(-rows * row // ALIGNMENT) * ALIGNMENT
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + header
    header += bytes(-len(header) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
