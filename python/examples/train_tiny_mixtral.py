#!/usr/bin/env python3
"""Train a tiny byte-level Mixtral on the King James Bible and record what its MoE layers compute.

The result is a real, if small, checkpoint: its router was trained, without a balancing loss, and
is skewed; its activations come from text that it never saw; every reference number comes from
Hugging Face transformers. test/data/tiny-mixtral/README.md describes the files that it writes.

    train_tiny_mixtral.py                  train, save the checkpoint, capture and check references
    train_tiny_mixtral.py --capture-only   keep the checkpoint, capture and check references
    train_tiny_mixtral.py --check-only     recompute the references and compare; write nothing

Training needs the text: the `bible` command (Debian packages bible-kjv and bible-kjv-text), or its
output in --text. The other two modes need only the files in --out.
"""

import argparse
import contextlib
import hashlib
import json
import math
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import MixtralConfig, MixtralForCausalLM

DATA = Path(__file__).resolve().parents[2] / "test" / "data" / "tiny-mixtral"
BIBLE_COMMAND = ["bible", "-f", "gen1:1-rev22:21"]
WINDOW = 256  # bytes in a training sequence, and in a window of the perplexity
BATCH, LEARNING_RATE = 8, 3e-3  # sequences in a training step; the highest rate
HELDOUT_BYTES = 64 * WINDOW
CAPTURED_ROWS = 509  # a multiple of no tile size
TOLERANCE = 1e-5  # of the largest magnitude: for another machine; the same one gives the same bits
WINDOWING = (
    f"The bytes of heldout.txt are the token ids, cut into consecutive windows of {WINDOW}. Each "
    "window is a sequence of its own: positions start at 0, no context comes from the window "
    "before, and every byte but the first is predicted. The loss is the mean cross entropy, in "
    "nats, over all predicted bytes; the perplexity is exp(loss).")


def read_text(path):
    """Returns the sha256 of the source, all books but the last, and the start of the last."""
    raw = path.read_bytes() if path else subprocess.run(
        BIBLE_COMMAND, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    # One verse a line: "Ge1:1 In the beginning ...". The reference is dropped, the line break kept.
    verses = [re.fullmatch(rb"(\d?[A-Za-z]+)\d+:\d+ (.*)", line).groups()
              for line in raw.splitlines()]
    last = verses[-1][0]
    train = b"".join(verse + b"\n" for book, verse in verses if book != last)
    heldout = b"".join(verse + b"\n" for book, verse in verses if book == last)
    return hashlib.sha256(raw).hexdigest(), train, heldout[:HELDOUT_BYTES]


def to_ids(data):
    return torch.tensor(list(data), dtype=torch.long)


def moe_blocks(model):
    return [layer.mlp for layer in model.model.layers]


@contextlib.contextmanager
def recorded(modules):
    """Yields a list for each module; a forward pass appends its (first argument, result)."""
    records = [[] for _ in modules]
    handles = [module.register_forward_hook(
                   lambda _, args, result, record=record: record.append((args[0], result)))
               for module, record in zip(modules, records)]
    yield records
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def expert_counts(model):
    """Yields a list that receives, at the end, the choices of each expert, layer by layer."""
    counts = []
    with recorded([block.gate for block in moe_blocks(model)]) as records:
        yield counts
    for record in records:
        ids = torch.cat([ids for _, (_logits, _weights, ids) in record])
        counts.append(torch.bincount(ids.flatten(),
                                     minlength=model.config.num_local_experts).tolist())


@torch.no_grad()
def evaluate(model, data):
    """Returns the loss, as WINDOWING defines it, and the choices that fell on each expert."""
    model.eval()
    # Every window predicts the same number of bytes, so the mean of the windows' means is the mean.
    windows = to_ids(data).reshape(-1, 1, WINDOW)
    with expert_counts(model) as counts:
        losses = [model(input_ids=x, labels=x, use_cache=False).loss.item() for x in windows]
    return sum(losses) / len(losses), counts


def build():
    config = MixtralConfig(
        vocab_size=256, hidden_size=128, intermediate_size=192, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, router_aux_loss_coef=0.0,
        initializer_range=0.05, bos_token_id=None, eos_token_id=None)
    return MixtralForCausalLM(config)


def train(model, text, args):
    """Trains the model in place and returns the seconds it took."""
    ids = to_ids(text)
    generator = torch.Generator().manual_seed(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98),
                                  weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE,
                                                   total_steps=args.steps, pct_start=0.05)
    model.train()
    start = time.monotonic()
    for step in range(1, args.steps + 1):
        first = torch.randint(len(ids) - WINDOW + 1, (BATCH, 1), generator=generator)
        batch = ids[first + torch.arange(WINDOW)]
        with expert_counts(model) as counts:
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == args.steps:
            print(f"step {step:5d}  {time.monotonic() - start:4.0f} s  loss {loss.item():.3f}  "
                  f"tokens per expert {counts}", flush=True)
    return time.monotonic() - start


def load(out):
    """Loads the checkpoint in f32, with the experts as transformers' plain loop."""
    return MixtralForCausalLM.from_pretrained(
        out, dtype=torch.float32, local_files_only=True, experts_implementation="eager").eval()


@torch.no_grad()
def references(model, heldout):
    """Returns, for the first CAPTURED_ROWS bytes, {file name: array}, and the least difference in
    probability between the last expert that was chosen and the first that was not."""
    windows = to_ids(heldout).reshape(-1, WINDOW)[:math.ceil(CAPTURED_ROWS / WINDOW)]
    with recorded(moe_blocks(model)) as records:
        model(input_ids=windows, use_cache=False)
    arrays, margin = {}, math.inf
    for layer, (block, [(x, in_model)]) in enumerate(zip(moe_blocks(model), records)):
        x, in_model = (t.flatten(0, 1)[:CAPTURED_ROWS].contiguous() for t in (x, in_model))
        # The block runs again on the rows that are stored: input.npy alone gives output.npy.
        y = block(x[None])[0]
        torch.testing.assert_close(y, in_model, rtol=0, atol=TOLERANCE * y.abs().max().item())
        logits, weights, ids = block.gate(x)
        ranked, k = logits.softmax(-1).sort(descending=True).values, ids.shape[1]
        margin = min(margin, (ranked[:, k - 1] - ranked[:, k]).min().item())
        arrays |= {
            f"layer{layer}.input.npy": x.numpy(),
            f"layer{layer}.output.npy": y.numpy(),
            f"layer{layer}.router_ids.npy": ids.to(torch.int32).numpy(),
            f"layer{layer}.router_weights.npy": weights.numpy()}
    return arrays, margin


def versions():
    return {"python": platform.python_version(), "torch": torch.__version__,
            "transformers": transformers.__version__, "numpy": np.__version__}


def capture(out, training):
    model, heldout = load(out), (out / "heldout.txt").read_bytes()
    loss, counts = evaluate(model, heldout)
    arrays, margin = references(model, heldout)
    for name, array in arrays.items():
        np.save(out / name, array)
    captured = [np.bincount(arrays[f"layer{layer}.router_ids.npy"].ravel(),
                            minlength=len(count)).tolist()
                for layer, count in enumerate(counts)]
    metrics = {
        "heldout": {"file": "heldout.txt", "sha256": hashlib.sha256(heldout).hexdigest(),
                    "bytes": len(heldout),
                    "window": WINDOW, "windowing": WINDOWING,
                    "predicted_bytes": len(heldout) // WINDOW * (WINDOW - 1),
                    "loss": loss, "perplexity": math.exp(loss), "tokens_per_expert": counts},
        "captured": {"rows": CAPTURED_ROWS,
                     "from": f"the first {CAPTURED_ROWS} bytes of heldout.txt, same windows",
                     "tokens_per_expert": captured, "min_router_margin": margin,
                     "versions": versions()},
        "training": training}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"held out: loss {loss:.4f}, perplexity {math.exp(loss):.3f}, tokens per expert {counts}")


def check(out):
    """Recomputes everything from the files; returns whether transformers reproduces it."""
    model, heldout = load(out), (out / "heldout.txt").read_bytes()
    expected = json.loads((out / "metrics.json").read_text())["heldout"]
    ok = hashlib.sha256(heldout).hexdigest() == expected["sha256"]

    def compare(name, stored, computed):
        nonlocal ok
        same_type = stored.dtype == computed.dtype and stored.shape == computed.shape
        difference = np.abs(stored - computed).max() if same_type else math.inf
        ok &= bool(difference <= TOLERANCE * np.abs(stored).max())
        found = "bitwise equal" if difference == 0 else f"largest difference {difference:.3g}"
        print(f"check {name}: {found}")

    compare("held-out loss", np.float64(expected["loss"]), np.float64(evaluate(model, heldout)[0]))
    for name, array in references(model, heldout)[0].items():
        compare(name, np.load(out / name), array)
    for layer, block in enumerate(moe_blocks(model)):
        x, y = (np.load(out / f"layer{layer}.{name}.npy") for name in ("input", "output"))
        computed = block(torch.from_numpy(x)[None])[0].detach().numpy()
        compare(f"layer{layer}.output.npy from the stored input", y, computed)
    print("check passed" if ok else "check FAILED")
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--capture-only", action="store_true", help="do not train; capture and check")
    mode.add_argument("--check-only", action="store_true", help="do not train or write; check")
    parser.add_argument("--out", type=Path, default=DATA,
                        help="folder of the files (default: test/data/tiny-mixtral)")
    parser.add_argument("--text", type=Path,
                        help=f"output of `{' '.join(BIBLE_COMMAND)}` (default: run it)")
    parser.add_argument("--steps", type=int, default=2400,
                        help="training steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    if args.capture_only:
        capture(args.out, json.loads((args.out / "metrics.json").read_text())["training"])
    elif not args.check_only:
        digest, text, heldout = read_text(args.text)
        model = build()
        model.set_experts_implementation("eager")
        before, _ = evaluate(model, heldout)
        print(f"before training: loss {before:.4f}, perplexity {math.exp(before):.3f}")
        seconds = train(model, text, args)
        model.save_pretrained(args.out)
        (args.out / "model.safetensors").chmod(0o644)
        (args.out / "generation_config.json").unlink(missing_ok=True)
        (args.out / "heldout.txt").write_bytes(heldout)
        capture(args.out, {
            "text_sha256": digest, "text_bytes": len(text), "steps": args.steps,
            "batch": BATCH, "window": WINDOW, "learning_rate": LEARNING_RATE, "seed": args.seed,
            "threads": args.threads, "seconds": round(seconds, 1), "heldout_loss_before": before,
            "heldout_perplexity_before": math.exp(before), "versions": versions()})
    return 0 if check(args.out) else 1


if __name__ == "__main__":
    sys.exit(main())
