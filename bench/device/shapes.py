"""The layers that are measured on a GPU, and layers of odd sizes that are only checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common import tensors
from ..common.data import weight_shapes
from ..common.shapes import Shape, decoder
from ..common.shapes import SHAPES as CPU_SHAPES
from ..common.tensors import tensor_names


@dataclass(frozen=True)
class TensorInfo:
    """A weight: its name in a checkpoint, below "model.layers.0.", and the terms of its dot
    products; 0 for a bias."""

    source: str
    dims: tuple[int, ...]
    terms: int
    dtype: str = "bf16"


@dataclass(frozen=True)
class GpuShape(Shape):
    """A layer whose gate is a softmax, or a sigmoid with a bias for the selection."""

    sigmoid: bool = False
    groups: int = 1
    kept_groups: int = 1
    scale: float = 1.0
    # gpt-oss: biases everywhere, weights [in, out], gate and up interleaved, and clamped.
    clamped: bool = False
    # The default token counts.
    tokens: tuple[int, ...] = (1, 8, 64, 512, 4096, 32768)

    @property
    def weights(self) -> dict[str, TensorInfo]:
        """Return the weights by the names in the compiled layer."""
        h, i, e, s = self.hidden, self.intermediate, self.experts, self.shared
        if self.clamped:
            experts = "mlp.experts."
            return {"router": TensorInfo("mlp.router.weight", (e, h), h),
                    "router_bias": TensorInfo("mlp.router.bias", (e,), 0),
                    "gate_up_proj": TensorInfo(experts + "gate_up_proj", (e, h, 2 * i), h),
                    "gate_up_proj_bias": TensorInfo(experts + "gate_up_proj_bias", (e, 2 * i), 0),
                    "down_proj": TensorInfo(experts + "down_proj", (e, i, h), i),
                    "down_proj_bias": TensorInfo(experts + "down_proj_bias", (e, h), 0)}
        names = tensor_names(self)
        found = {name: TensorInfo(names[name], dims, dims[-1])
                 for name, dims in weight_shapes(self).items()}
        if self.sigmoid:
            found["e_score_correction_bias"] = TensorInfo(
                "mlp.gate.e_score_correction_bias", (e,), 0, "f32")
        return found

    @property
    def routings(self) -> tuple[str, ...]:
        """Return the possible draws of inputs: with a bias for the selection, inputs are normally
        distributed and the router decides."""
        return ("natural",) if self.sigmoid else ("uniform", "zipf")


def _softmax(key: str, title: str, sizes: tuple[int, int, int, int],
             tokens: tuple[int, ...] = GpuShape.tokens, renormalise: bool = True) -> GpuShape:
    """Return a layer like Mixtral's or OLMoE's, softmax and best K, renormalised or not, with other
    sizes."""
    h, i, e, k = sizes
    if not renormalise:
        return GpuShape(key, title, h, i, e, k, False, decoder(
            "olmoe", (h, h // 128 or 1), intermediate_size=i, num_experts=e,
            num_experts_per_tok=k, norm_topk_prob=False), tokens=tokens)
    return GpuShape(key, title, h, i, e, k, True, decoder(
        "mixtral", (h, h // 128 or 1), intermediate_size=i, num_local_experts=e,
        num_experts_per_tok=k), tokens=tokens)


def _sigmoid(key: str, title: str, sizes: tuple[int, int, int, int], groups: int, kept: int,
             scale: float) -> GpuShape:
    """Return DeepSeek-V3's layer with one shared expert and other sizes."""
    h, i, e, k = sizes
    return GpuShape(key, title, h, i, e, k, True, decoder(
        "deepseek_v3", (h, h // 128 or 1), moe_intermediate_size=i, intermediate_size=i,
        n_routed_experts=e, num_experts_per_tok=k, n_shared_experts=1, n_group=groups,
        topk_group=kept, norm_topk_prob=True, routed_scaling_factor=scale,
        first_k_dense_replace=0), shared=i, sigmoid=True, groups=groups, kept_groups=kept,
        scale=scale)


def _gpt_oss(key: str, title: str, sizes: tuple[int, int, int, int]) -> GpuShape:
    h, i, e, k = sizes
    return GpuShape(key, title, h, i, e, k, True, decoder(
        "gpt_oss", (h, h // 64 or 1), head_dim=64, intermediate_size=i, num_local_experts=e,
        num_experts_per_tok=k), clamped=True)


def _as_on_cpu(key: str) -> GpuShape:
    return GpuShape(**vars(CPU_SHAPES[key]))


# In the order in which they are measured, the most important first.
SHAPES = {shape.key: shape for shape in (
    _softmax("fine", "T = 32768, H = 4096, I = 512, E = 128, K = 8", (4096, 512, 128, 8),
             (32768,)),
    _softmax("coarse", "T = 32768, H = 4096, I = 2048, E = 64, K = 4", (4096, 2048, 64, 4),
             (32768,)),
    _softmax("narrow", "T = 24576, H = 1536, I = 256, E = 128, K = 8", (1536, 256, 128, 8),
             (24576,)),
    _as_on_cpu("qwen3"),
    _as_on_cpu("mixtral"),
    _sigmoid("deepseek_v3", "DeepSeek-V3", (7168, 2048, 256, 8), 8, 4, 2.5),
    _softmax("qwen3_235b", "Qwen3-235B-A22B", (4096, 1536, 128, 8)),
    _as_on_cpu("olmoe"),
    _as_on_cpu("deepseek"),
    _as_on_cpu("granite"),
    _gpt_oss("gpt_oss_120b", "gpt-oss-120b", (2880, 2880, 128, 4)),
    _sigmoid("glm", "GLM-4.5-Air", (4096, 1408, 128, 8), 1, 1, 1.0),
    _softmax("mixtral_8x22b", "Mixtral-8x22B", (6144, 16384, 8, 2)),
    _gpt_oss("gpt_oss_20b", "gpt-oss-20b", (2880, 2880, 32, 4)),
    _softmax("granite_3b", "Granite-3.0-3B", (1536, 512, 40, 8)),
    _softmax("jamba", "Jamba v0.1", (4096, 14336, 16, 2), renormalise=False),
    # The sizes of its experts; down_proj has Mixtral's layout.
    _softmax("dbrx", "DBRX", (6144, 10752, 16, 4)),
    _sigmoid("kimi_k2", "Kimi K2", (7168, 2048, 384, 8), 1, 1, 2.827),
)}

# Many stages along k and partial tiles, which the small families of moe_testing do not cover. One
# matmul has fewer than 1024 terms and the other more, in either order.
CHECKED = {shape.key: shape for shape in (
    _softmax("odd_wide", "odd, wide", (1288, 712, 12, 3)),
    _softmax("odd_deep", "odd, deep", (520, 1416, 9, 4)),
    _softmax("tiny", "tiny", (64, 48, 8, 2), (1, 8)),
)}

# For tests on the CUDA double.
TESTED = {shape.key: shape for shape in (
    _sigmoid("tiny_sigmoid", "tiny, sigmoid", (64, 48, 8, 2), 4, 2, 2.5),
    _gpt_oss("tiny_clamped", "tiny, clamped", (64, 48, 8, 2)),
)}

ALL = SHAPES | CHECKED | TESTED

# The layers with performance goals, and the layers that a bundle has in two versions, with the
# proxy fence of gathered rows in the producer and in the consumer warps, compared in one run.
MAIN = ("fine", "coarse", "narrow")
BOTH_FENCES = (*MAIN, *CHECKED)


def write_checkpoint(directory: Path, shape: GpuShape) -> None:
    """Write a checkpoint without data, which is enough to compile."""
    tensors.write_checkpoint(directory, shape, {
        info.source: (info.dtype, info.dims) for info in shape.weights.values()})
