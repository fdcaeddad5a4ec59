"""The measured MoE layers: shapes and configurations of published models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .formats import FORMATS

DTYPE_BYTES = {"f32": 4, "bf16": 2, "f16": 2}
# The types that run by default.
DEFAULT_DTYPES = ("f32", "bf16")


@dataclass(frozen=True)
class Shape:
    """One MoE layer: H, I, E, K of the literature, and the configuration of its model."""

    key: str
    title: str
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    # The weights of the K chosen experts are divided by their sum.
    renormalise: bool
    config: dict[str, Any] = field(hash=False)
    # Width of the shared network that every token uses; 0 if there is none.
    shared: int = 0

    @property
    def expert_parameters(self) -> int:
        return 3 * self.hidden * self.intermediate

    @property
    def common_parameters(self) -> int:
        """Return the parameters that every token uses: the router and the shared network."""
        return self.hidden * (self.experts + 3 * self.shared)

    @property
    def parameters(self) -> int:
        return self.experts * self.expert_parameters + self.common_parameters

    def weight_bytes(self, dtype: str) -> float:
        """Return the bytes of all weights in a type or format."""
        return self._bytes(self.experts, self.hidden * self.experts, dtype)

    def _bytes(self, experts: float, others: float, dtype: str) -> float:
        """Return the bytes of some experts, the shared network and ``others`` elements, which are
        f32 where a format has the weights."""
        quantised = experts * self.expert_parameters + 3 * self.hidden * self.shared
        if dtype in DTYPE_BYTES:
            return (quantised + others) * DTYPE_BYTES[dtype]
        each = FORMATS[dtype]
        return quantised * each.block_bytes / each.block + others * DTYPE_BYTES["f32"]

    def rows_per_expert(self, tokens: int) -> float:
        return tokens * self.top_k / self.experts

    def flops(self, tokens: int) -> int:
        """Return the useful operations of a call, without activations and combine."""
        per_token = self.top_k * self.expert_parameters + self.common_parameters
        return 2 * tokens * per_token

    def bytes_touched(self, tokens: int, active_experts: float, dtype: str) -> float:
        """Return the minimum bytes that a call moves: active experts, common weights, x and y."""
        return self._bytes(active_experts, self.hidden * (self.experts + 2 * tokens), dtype)


def decoder(model_type: str, shape: tuple[int, int], **more: Any) -> dict[str, Any]:
    """Return a configuration of one layer; the parts outside the MoE layer are minimal."""
    hidden, heads = shape
    return dict(model_type=model_type, hidden_size=hidden, hidden_act="silu", num_hidden_layers=1,
                num_attention_heads=heads, num_key_value_heads=heads, vocab_size=64,
                max_position_embeddings=128, **more)


SHAPES = {shape.key: shape for shape in (
    Shape("granite", "Granite-3.0-1B", 1024, 512, 32, 8, True, decoder(
        "granitemoe", (1024, 16), intermediate_size=512, num_local_experts=32,
        num_experts_per_tok=8)),
    Shape("olmoe", "OLMoE-1B-7B", 2048, 1024, 64, 8, False, decoder(
        "olmoe", (2048, 16), intermediate_size=1024, num_experts=64, num_experts_per_tok=8,
        norm_topk_prob=False)),
    Shape("qwen3", "Qwen3-30B-A3B", 2048, 768, 128, 8, True, decoder(
        "qwen3_moe", (2048, 16), moe_intermediate_size=768, num_experts=128,
        num_experts_per_tok=8, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])),
    Shape("deepseek", "DeepSeek-V2-Lite", 2048, 1408, 64, 6, False, decoder(
        "deepseek_v2", (2048, 16), moe_intermediate_size=1408, intermediate_size=10944,
        n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, first_k_dense_replace=0,
        topk_method="greedy", n_group=1, topk_group=1, routed_scaling_factor=1.0,
        norm_topk_prob=False, scoring_func="softmax"), shared=2816),
    Shape("mixtral", "Mixtral-8x7B", 4096, 14336, 8, 2, True, decoder(
        "mixtral", (4096, 32), intermediate_size=14336, num_local_experts=8,
        num_experts_per_tok=2)),
    # Its extents: without the biases and the limits of its experts.
    Shape("gpt_oss", "gpt-oss-20b", 2880, 2880, 32, 4, True, decoder(
        "mixtral", (2880, 45), intermediate_size=2880, num_local_experts=32,
        num_experts_per_tok=4)),
    # For smoke tests only; its times are meaningless.
    Shape("tiny", "tiny", 64, 48, 8, 2, True, decoder(
        "mixtral", (64, 2), intermediate_size=48, num_local_experts=8, num_experts_per_tok=2)),
)}

DEFAULT_SHAPES = tuple(key for key in SHAPES if key != "tiny")
DEFAULT_TOKENS = (1, 4, 32, 128, 512, 2048)
