"""Generate text with a model of transformers whose experts are compiled layers.

    python generate.py                              the small model of the tests
    python generate.py DIR --prompt "Once upon"     a checkpoint of yours

Needs torch and transformers (`./dev test` installs them into .venv). The model itself
is not changed: `experts_implementation="moe_mlir"` is all that differs from the run
with which the text is compared.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import moe.integrations.transformers as compiled_experts

TINY = Path(__file__).resolve().parents[2] / "test" / "data" / "tiny-mixtral"


class Bytes:
    """The tokenizer of a model whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def generate(checkpoint: Path, implementation: str, dtype: torch.dtype, prompt: list[int],
             tokens: int) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=dtype, experts_implementation=implementation).eval()
    if implementation == compiled_experts.NAME:
        compiled_experts.prepare(model)  # or at the first call
    ids = torch.tensor([prompt])
    options = dict(do_sample=False, pad_token_id=0, attention_mask=torch.ones_like(ids))
    model.generate(ids, max_new_tokens=2, **options)
    start = time.perf_counter()
    text = model.generate(ids, max_new_tokens=tokens, **options)[0].tolist()
    seconds = time.perf_counter() - start
    print(f"{implementation:>10}: {(len(text) - len(prompt)) / seconds:7.1f} tokens/s")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=TINY)
    parser.add_argument("--prompt", default="And God said, Let there be ")
    parser.add_argument("--tokens", type=int, default=64, help="to generate (default: 64)")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--against", default="grouped_mm",
                        help="the implementation to compare with (default: %(default)s)")
    arguments = parser.parse_args()

    tokenizer = Bytes() if arguments.checkpoint == TINY else AutoTokenizer.from_pretrained(
        arguments.checkpoint)
    prompt = tokenizer.encode(arguments.prompt)
    compiled_experts.register()
    texts = [generate(arguments.checkpoint, name, getattr(torch, arguments.dtype), prompt,
                      arguments.tokens)
             for name in (compiled_experts.NAME, arguments.against)]
    print(tokenizer.decode(texts[0]))
    same = texts[0] == texts[1]
    print("the same tokens" if same else f"other tokens than {arguments.against}")
    # In bf16 and f16 a rounding may decide between two tokens.
    return 0 if same or arguments.dtype != "float32" else 1


if __name__ == "__main__":
    sys.exit(main())
