"""The bundle: a folder for a machine with a GPU and without a compiler.

    run              ./run check, ./run bench: starts Python with the paths below
    manifest.json    the commit, a description of each artifact, and predicted times
    artifacts.zip    an artifact (moe-compile's output) for each layer
    lib/             libmoe_rt.so, the runtime
    python/          the packages moe, moe_testing (layers and oracles of the tests) and bench
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ..common import machine
from ..common.options import names_of
from . import predictions
from .shapes import ALL, BOTH_FENCES, CHECKED, SHAPES, write_checkpoint

LIMIT = 48 << 20
DEFAULT = machine.ROOT / "build" / "gpu"
DTYPES = ("bf16", "f16", "f32")
# The participant of ``bench gpu`` that runs artifacts with the consumer's fence.
CONSUMER_FENCE = "moe_mlir_consumer_fence"
TARGETS = ("sm_90a", "sm_80")
BOTH = ",".join(TARGETS)
RUN = """\
#!/bin/sh
# ./run check and ./run bench [--json FILE]; needs Python with numpy, ml_dtypes and PyTorch.
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/python${PYTHONPATH:+:$PYTHONPATH}" MOE_RT_LIBRARY="$here/lib/libmoe_rt.so" \\
MOE_GPU_BUNDLE="$here" PYTHONSAFEPATH=1 exec "${PYTHON:-python3}" -m bench.gpu "$@"
"""


class NoBundle(Exception):
    """There is no bundle, or it is incomplete; has the reason."""


@dataclass(frozen=True)
class Spec:
    """A layer to compile: a family of moe_testing/layers.py, or a shape."""

    kind: str  # family or shape
    name: str
    dtype: str
    target: str
    # The warps that execute the proxy fence of gathered rows: gather_fence of #moe.tile.
    fence: str = "producer"

    @property
    def key(self) -> str:
        key = f"{self.name}-{self.dtype}-{self.target.replace(',', '-')}"
        return key if self.fence == "producer" else f"{key}-{self.fence}_fence"

    @property
    def participant(self) -> str:
        """Return the participant of ``bench gpu`` that runs it."""
        return "moe_mlir" if self.fence == "producer" else CONSUMER_FENCE


class Bundle:
    def __init__(self, directory: Path):
        self.directory = directory
        try:
            self.manifest = json.loads((directory / "manifest.json").read_text())
            self._archive = zipfile.ZipFile(directory / "artifacts.zip")
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise NoBundle(f"'{directory}' is no bundle ({error}); ./dev pack gpu makes one"
                           ) from None
        self.specs = [Spec(**entry) for entry in self.manifest["layers"]]

    def shapes(self, fence: str = "producer") -> set[str]:
        return {spec.name for spec in self.specs if (spec.kind, spec.fence) == ("shape", fence)}

    def predictions(self, device: str) -> dict[str, dict[str, float]]:
        """Return the predicted seconds of a call by shape and T, if the model knows the device."""
        gpu = predictions.find_gpu(device)
        found = self.manifest.get("predictions", {})
        return {shape: each[gpu] for shape, each in found.items() if gpu in each}

    @property
    def commit(self) -> str:
        return self.manifest["commit"]

    def artifact(self, key: str) -> bytes:
        try:
            return self._archive.read(f"{key}.moe")
        except KeyError:
            raise NoBundle(f"'{self.directory}' has no artifact of {key}") from None


def find() -> Bundle:
    """Find the bundle that this runs from, or the one in the build tree."""
    return Bundle(Path(os.environ.get("MOE_GPU_BUNDLE", DEFAULT)))


# -- packing ----------------------------------------------------------------


def specs(families: Sequence[str], shapes: Sequence[str], dtypes: Sequence[str],
          targets: Sequence[str]) -> Iterator[Spec]:
    """List everything to compile. f32 does not use tensor cores, so one target covers its code."""
    for name in families:
        for dtype in dtypes:
            for target in targets if dtype != "f32" else targets[-1:]:
                yield Spec("family", name, dtype, target)
    for name in shapes:
        if name in CHECKED:
            yield from (Spec("shape", name, "bf16", target) for target in targets)
        else:
            yield Spec("shape", name, "bf16", ",".join(targets))
        if name in BOTH_FENCES and "sm_90a" in targets:
            yield Spec("shape", name, "bf16", "sm_90a", "consumer")


def _compile(spec: Spec, output: Path) -> None:
    import moe
    from moe_testing import layers

    with tempfile.TemporaryDirectory(prefix="moe-pack-") as scratch:
        command = [str(moe.find_compiler()), f"--target={spec.target}", "-o", str(output)]
        if spec.fence != "producer":
            command.append(f"--pipeline=moe-gpu{{arch={spec.target} gather-fence={spec.fence}}}")
        if spec.kind == "family":
            text, source = layers.text(spec.name, spec.dtype), ["-"]
        else:
            write_checkpoint(Path(scratch), ALL[spec.name])
            text, source = "", [f"--hf={scratch}", "--layer=0", f"--dtype={spec.dtype}"]
        done = subprocess.run(command + source, input=text, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"pack: {spec.key}: moe-compile failed\n{done.stderr[-2000:]}")


def pack(directory: Path, wanted: Iterable[Spec], jobs: int) -> int:
    """Create a bundle, replacing an existing one; returns its size in bytes."""
    wanted, begin = list(wanted), time.monotonic()
    if directory.exists() and any(directory.iterdir()) and not (
            directory / "manifest.json").exists():
        raise SystemExit(f"pack: '{directory}' is not empty and no bundle")
    with tempfile.TemporaryDirectory(prefix=".pack-", dir=_existing(directory)) as scratch:
        whole = Path(scratch) / "bundle"
        _copy_files(whole)
        _compile_all(whole, wanted, jobs)
        (whole / "manifest.json").write_text(json.dumps(
            {"format": 1, "commit": machine.commit(), "date": machine.now(),
             "layers": [asdict(spec) for spec in wanted],
             "predictions": _predict_all(wanted, jobs)}, indent=1) + "\n")
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        whole.rename(directory)
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {len(wanted)} layers, {size / 2**20:.1f} MiB, "
          f"{time.monotonic() - begin:.0f} s")
    return size


def _existing(directory: Path) -> Path:
    """Return the nearest existing parent: files created there can be renamed into place."""
    return next(parent for parent in directory.absolute().parents if parent.is_dir())


def _copy_files(directory: Path) -> None:
    """Copy everything except artifacts and the manifest."""
    from moe._library import library

    python = directory / "python"
    for folder in (directory / "lib", python):
        folder.mkdir(parents=True)
    shutil.copy(Path(library()._name).resolve(), directory / "lib" / "libmoe_rt.so")
    # What runs on the device needs no integrations of frameworks.
    ignored = shutil.ignore_patterns("__pycache__", "results", "lib*.so*", "moe-compile",
                                     "integrations")
    for folder in (machine.ROOT / "python" / "moe", machine.ROOT / "python" / "moe_testing",
                   machine.ROOT / "bench"):
        shutil.copytree(folder, python / folder.name, ignore=ignored)
    (directory / "run").write_text(RUN)
    (directory / "run").chmod(0o755)


def _compile_all(directory: Path, wanted: Sequence[Spec], jobs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="moe-pack-") as scratch, \
            zipfile.ZipFile(directory / "artifacts.zip", "w", zipfile.ZIP_DEFLATED) as archive, \
            ThreadPoolExecutor(jobs) as pool:
        def make(spec: Spec) -> Path:
            path = Path(scratch) / f"{spec.key}.moe"
            _compile(spec, path)
            return path

        for number, path in enumerate(pool.map(make, wanted), 1):
            archive.write(path, path.name)
            path.unlink()
            print(f"\r{number} of {len(wanted)} layers", end="", flush=True, file=sys.stderr)
        print(file=sys.stderr)


def _predict_all(wanted: Sequence[Spec], jobs: int) -> dict[str, predictions.Predictions]:
    import moe

    def make(name: str) -> predictions.Predictions:
        with tempfile.TemporaryDirectory(prefix="moe-pack-") as scratch:
            return predictions.predict(moe.find_compiler(), ALL[name], Path(scratch))

    names = list(dict.fromkeys(spec.name for spec in wanted if spec.kind == "shape"))
    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip(names, pool.map(make, names)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from moe_testing import layers

    none = ["none"]
    parser.add_argument("directory", type=Path, nargs="?", default=DEFAULT,
                        help="the directory of the bundle (default build/gpu)")
    parser.add_argument("--families", type=names_of([*layers.FAMILIES, *none]),
                        default=list(layers.FAMILIES), metavar="A,B",
                        help="any of moe_testing/layers.py, or none (default all)")
    parser.add_argument("--shapes", type=names_of([*ALL, *none]),
                        default=[*SHAPES, *CHECKED], metavar="A,B",
                        help=f"any of {', '.join(ALL)}, or none (default all but those for tests)")
    parser.add_argument("--dtypes", type=names_of(DTYPES), default=list(DTYPES), metavar="A,B",
                        help="types of the families (default all)")
    parser.add_argument("--targets", type=names_of(TARGETS), default=list(TARGETS), metavar="A,B",
                        help="best target first (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")


def run(arguments: argparse.Namespace) -> int:
    def chosen(names: list[str]) -> list[str]:
        return [name for name in names if name != "none"]

    wanted = specs(chosen(arguments.families), chosen(arguments.shapes), arguments.dtypes,
                   arguments.targets)
    size = pack(arguments.directory, wanted, arguments.jobs)
    if size > LIMIT:
        raise SystemExit(f"pack: expected at most {LIMIT >> 20} MiB, got {size / 2**20:.1f} MiB")
    return 0


def matching(all_specs: Iterable[Spec], pattern: str) -> list[Spec]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SystemExit(f"gpu: '{pattern}' is no regular expression: {error}") from None
    return [spec for spec in all_specs if expression.search(spec.key)]
