"""This project: an artifact of the bundle, called through the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moe
import torch
from moe import _dlpack
from moe_testing.device import arrays
from moe_testing.device.cuda_driver import driver

from ...device import bundle
from . import Case, Unavailable, select


def on_device(tensor: torch.Tensor) -> Any:
    """Return the tensor, or a copy of it in memory of the driver's device."""
    if tensor.is_cuda:
        return tensor
    source = _dlpack.as_tensor(tensor)
    copy = arrays.empty(source.dtype, tuple(tensor.shape), guarded=True)
    arrays.put(copy, tensor.contiguous().view(torch.uint8).numpy())
    return copy


def on_host(array: Any) -> torch.Tensor:
    if isinstance(array, torch.Tensor):
        return array
    found = torch.empty(array.shape, dtype=torch.bfloat16)
    driver().download(array.dl.data, found.view(torch.uint8).numpy())
    return found


class Compiled:
    def __init__(self, case: Case, fence: str = "producer"):
        found = [spec for spec in bundle.find().specs
                 if spec.kind == "shape" and (spec.name, spec.fence) == (case.shape.key, fence)]
        if not found:
            raise Unavailable(f"the bundle has no artifact of {case.shape.key}"
                              + ("" if fence == "producer" else f" with the {fence}'s fence"))
        self.stream = case.stream
        self.module = moe.load(bundle.find().artifact(found[0].key), device="cuda")
        needed = [info.name for info in self.module.signature().weights]
        if missing := [name for name in needed if name not in case.layers[0]]:
            raise Unavailable(f"the compiled layer has weights {missing} that the benchmark lacks")
        self.layers = [self.module.layer({name: on_device(w[name]) for name in needed})
                       for w in case.layers]
        # Disable the counts of tokens per expert, which no other participant has.
        for layer in self.layers:
            layer.enable_statistics(False)

    def load(self, inputs: Sequence[torch.Tensor]) -> None:
        self.inputs = [on_device(x) for x in inputs]
        tokens = len(inputs[0])
        # Fill with NaN, so that results of earlier calls cannot pass the check.
        self.result = on_device(torch.full_like(inputs[0], torch.nan))
        self.workspace = on_device(torch.zeros(max(self.layers[0].workspace_bytes(tokens), 1),
                                               dtype=torch.uint8, device=inputs[0].device))

    def step(self, number: int) -> None:
        layer, x = select(number, len(self.layers), len(self.inputs))
        self.layers[layer](self.inputs[x], out=self.result, workspace=self.workspace,
                           stream=self.stream())

    def output(self) -> torch.Tensor:
        for layer in self.layers:
            layer.poll()
        return on_host(self.result)

    def facts(self) -> dict[str, Any]:
        """Return properties of the layer besides its times."""
        from moe._library import library

        variant = library().moe_rt_module_variant(self.module._handle.pointer)
        target = self.module.metadata["variants"][variant]["target"]
        return {"variant": target["device"]["arch"],
                "weight_bytes": self.layers[0].weight_bytes,
                "workspace_bytes": self.workspace.nbytes}


def open(case: Case) -> Compiled:
    return Compiled(case)
