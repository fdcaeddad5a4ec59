"""Checkpoints with one layer of a shape."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .shapes import DTYPE_BYTES, Shape

# In the layout of data.Weights, below "model.layers.0.".
TENSORS = {"router": "mlp.gate.weight", "gate_up_proj": "mlp.experts.gate_up_proj",
           "down_proj": "mlp.experts.down_proj",
           "shared_gate_proj": "mlp.shared_experts.gate_proj.weight",
           "shared_up_proj": "mlp.shared_experts.up_proj.weight",
           "shared_down_proj": "mlp.shared_experts.down_proj.weight"}
TENSORS_OF = {"granitemoe": {"router": "block_sparse_moe.router.layer.weight",
                             "gate_up_proj": "block_sparse_moe.input_linear.weight",
                             "down_proj": "block_sparse_moe.output_linear.weight"}}


def tensor_names(shape: Shape) -> dict[str, str]:
    """Return the names of the weights in a model of the shape, below "model.layers.0."."""
    return TENSORS | TENSORS_OF.get(shape.config["model_type"], {})


def write_checkpoint(directory: Path, shape: Shape,
                     tensors: Mapping[str, tuple[str, Sequence[int]]],
                     arrays: Iterable[np.ndarray] = ()) -> None:
    """Write the configuration of the shape, and a file whose header has the type and the dimensions
    of each tensor below "model.layers.0.". Without arrays the data is a hole, which is enough to
    compile."""
    (directory / "config.json").write_text(json.dumps(shape.config))
    header, end = {}, 0
    for name, (dtype, dims) in tensors.items():
        begin, end = end, end + math.prod(dims) * DTYPE_BYTES[dtype]
        header[f"model.layers.0.{name}"] = {
            "dtype": dtype.upper(), "shape": dims, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(array.view(np.uint8).data)
        file.truncate(8 + len(text) + end)
