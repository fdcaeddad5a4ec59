"""``moe.compile``: compiles MLIR text, a file or a checkpoint to a loaded module.

It runs the executable ``moe-compile``, which is searched through ``$MOE_COMPILE``,
beside this package, in a build tree and in ``$PATH``. Results are cached (``_cache``)
under a hash of the source, the options, the compiler and, for the host target, the CPU.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _cache
from ._error import (DATA_LOSS, FAILED_PRECONDITION, INTERNAL, INVALID_ARGUMENT, NOT_FOUND,
                     RESOURCE_EXHAUSTED, MoEError)
from ._library import ABI_VERSION
from ._runtime import Module, group_of, make_context
from ._tools import find_tool

__all__ = ["compile", "find_compiler"]


def find_compiler() -> Path:
    """Return the path of ``moe-compile``."""
    if named := os.environ.get("MOE_COMPILE"):
        if not os.access(named, os.X_OK):
            raise MoEError(NOT_FOUND, f"$MOE_COMPILE names '{named}', which is no executable")
        return Path(named)
    if found := find_tool("moe-compile"):
        return found
    if found := shutil.which("moe-compile"):
        return Path(found)
    raise MoEError(NOT_FOUND, "moe-compile was not found beside the package, in a build tree or in "
                   "PATH; set MOE_COMPILE to its path")


def compile(source: str | os.PathLike[str], *, output: str | os.PathLike[str] | None = None,
            target: str | None = None, dtype: str | None = None, layer: int | str | None = None,
            quantize: str | None = None, routes: str | None = None, options: Sequence[str] = (),
            cache: bool = True, num_threads: int = 0, device: str | None = None,
            group: Any = None) -> Module:
    """Compile MoE layers and load the result.

    Args:
      source: MLIR text, the path of an ``.mlir`` file, the directory of a
        Hugging Face checkpoint (its ``config.json``) or a ``.gguf`` file, both of which
        need ``layer``.
      output: where to write the artifact; by default it lives in the cache.
      target: the target to compile for, as ``moe-compile --target``, or several
        separated by commas, the best first; by default the host.
      dtype: type of a checkpoint's layer: ``f32``, ``f16`` or ``bf16``; by default that
        of its ``config.json``, and f32 for a ``.gguf`` file.
      layer: index of the layer in a checkpoint, or ``"all"``: a function ``layer_N`` for
        each with experts; those of one shape share their code.
      quantize: format in which the layer keeps weights of 16 or 32 bits, as
        ``moe-compile --quantize``: ``int4:32``, ``int8``, ``mxfp4``, ``fp8:128x128``;
        ``Layer.quantization_errors`` has what that costs.
      routes: ``record`` adds the outputs ``route_ids`` and ``route_weights`` (with numbers if
        there are several), what the gates choose; ``replay`` adds inputs of these names that
        replace them; ``replay-ids`` adds ``route_ids`` alone, and the gates compute the
        weights of these experts. As ``moe-compile --routes``.
      options: further options of ``moe-compile``.
      cache: reuse an artifact that was compiled before.
      num_threads: threads of a call, as for ``moe.load``.
      device: device to run on, as for ``moe.load``; with ``cuda`` the default targets are
        every GPU and the host.
      group: a ``moe.parallel.Group``, or a process group of ``torch.distributed``, over whose
        ranks the experts are spread. Without ``--parallel`` among the options a rank holds
        as many experts as these ranks need.

    Raises:
      MoEError: with the compiler's diagnostics.

    Warns:
      RuntimeWarning: if code will be slow, such as an expert that is left to loops,
        with the reason.
    """
    # Check everything before the work starts, so that errors are immediate.
    text, path = _classify(source)
    arguments = _arguments(target, dtype, layer, quantize, routes, options, device)
    if (path is not None and _is_checkpoint(path)) != (layer is not None):
        raise MoEError(INVALID_ARGUMENT, "a checkpoint directory or a .gguf file needs layer=N, "
                       "and only they do")
    group = group_of(group, num_threads)
    if group is not None and not any(re.match(r"--?parallel(=|$)", a) for a in arguments):
        arguments.append(f"--parallel=ranks={group.size}")
    context = make_context(num_threads, device) if group is None else group._context
    compiler = find_compiler()
    origin = _Origin(text, path, tuple(arguments), _stamp(path))
    _cache.limit()

    cached = None
    if cache:
        key = _key(compiler, text, path, arguments)
        cached = _cache.directory() / f"{key}.moe"
        if module := _load_cached(cached, context, group):
            if output is not None:
                _copy(cached, Path(output))
                module.path = Path(output)
            return _finish(module, origin)
    check_compiler(compiler)
    if output is None and not cache:
        with tempfile.TemporaryDirectory(prefix="moe-") as folder:
            artifact = Path(folder) / "module.moe"
            _run(compiler, text, path, arguments, artifact)
            return _finish(Module(artifact.read_bytes(), context=context, group=group), origin)
    artifact = Path(output) if output is not None else cached
    with _cache.scratch(artifact) as scratch:
        _run(compiler, text, path, arguments, scratch)
        # Only keep an artifact that loads.
        module = Module(scratch, context=context, group=group)
        _publish(scratch, artifact)
    module.path = artifact
    if cached is not None:
        if artifact is not cached:
            with suppress(MoEError):  # full disk: the result itself is complete
                _copy(artifact, cached)
        _cache.trim()
    return _finish(module, origin)


def _arguments(target: Any, dtype: Any, layer: Any, quantize: Any, routes: Any, options: Any,
               device: Any) -> list[str]:
    """Return the options of moe-compile."""
    for name, value in (("target", target), ("dtype", dtype), ("quantize", quantize),
                        ("routes", routes)):
        if value is not None and not isinstance(value, str):
            raise MoEError(INVALID_ARGUMENT, f"{name} is {value!r}, expected a string")
    if layer not in (None, "all") and (not isinstance(layer, int) or layer < 0):
        raise MoEError(INVALID_ARGUMENT, f"layer is {layer!r}, expected the number of a layer or "
                       "'all'")
    arguments = list(options) if isinstance(options, Iterable) else [options]
    if isinstance(options, str) or not all(isinstance(option, str) for option in arguments):
        raise MoEError(INVALID_ARGUMENT, f"options is {options!r}, expected a sequence of strings")
    for option in arguments:
        if re.match(r"--?(emit|o)(=|$)", option):
            raise MoEError(INVALID_ARGUMENT, f"the option '{option}' is moe-compile's alone: an "
                           "artifact is made and loaded here")
    on_gpu = device is not None and device != "cpu"
    if target is None and on_gpu:
        target = "sm_90a,sm_80,host"
    if target is not None:
        if all(name.strip().startswith("sm_") != on_gpu for name in target.split(",")):
            raise MoEError(INVALID_ARGUMENT, f"the target '{target}' has no code for the device "
                           f"'{device or 'cpu'}'")
        arguments.append(f"--target={target}")
    if dtype is not None:
        arguments.append(f"--dtype={dtype}")
    if layer is not None:
        arguments.append(f"--layer={layer}")
    if quantize is not None:
        arguments.append(f"--quantize={quantize}")
    if routes is not None:
        arguments.append(f"--routes={routes}")
    return arguments


def check_compiler(compiler: Path) -> None:
    """Return true if the compiler runs here and its artifacts match the runtime."""
    info = compiler.stat()
    _check_compiler(compiler, info.st_size, info.st_mtime_ns)


@functools.lru_cache
def _check_compiler(compiler: Path, _size: int, _time: int) -> None:
    done = _start([str(compiler), "--version"])
    if done.returncode != 0:
        raise MoEError(FAILED_PRECONDITION, f"'{compiler}' does not run (exit status "
                       f"{done.returncode})\n" + (done.stderr or done.stdout).rstrip())
    match = re.search(r"\bABI (\d+)", done.stdout)
    if match is None or int(match[1]) != ABI_VERSION:
        raise MoEError(FAILED_PRECONDITION, f"'{compiler}' makes artifacts of "
                       f"{match[0] if match else 'an older ABI'}, expected ABI {ABI_VERSION}")


def _start(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, text=True, capture_output=True, **options)
    except OSError as error:
        raise MoEError(FAILED_PRECONDITION, f"cannot run '{command[0]}': "
                       f"{error.strerror}") from error


def _load_cached(cached: Path, context: Any, group: Any) -> Module | None:
    """Load an artifact from the cache; None if it is missing or damaged."""
    try:
        if not cached.is_file():
            return None
        module = Module(cached, context=context, group=group)
    except MoEError as error:
        # Damaged, or removed by another process: compile it again.
        if error.code in (DATA_LOSS, NOT_FOUND):
            return None
        raise
    _cache.used(cached)
    return module


def _copy(artifact: Path, to: Path) -> None:
    """Copy an artifact atomically."""
    with _cache.scratch(to) as scratch:
        try:
            shutil.copyfile(artifact, scratch)
        except OSError as error:
            raise MoEError(RESOURCE_EXHAUSTED, f"cannot write '{to}': {error.strerror}") from error
        _publish(scratch, to)


def _publish(scratch: Path, artifact: Path) -> None:
    try:
        os.chmod(scratch, 0o644)
        os.replace(scratch, artifact)
    except OSError as error:
        raise MoEError(INVALID_ARGUMENT, f"cannot write '{artifact}': {error.strerror}") from error


@dataclass(frozen=True)
class _Origin:
    """What a module was compiled from: text, or a path with its state then."""

    text: str | None
    path: Path | None
    arguments: tuple[str, ...]
    stamp: tuple[int, int] | None


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Return what a change of a file changes; of a checkpoint, that of its configuration."""
    file = path / "config.json" if path is not None and path.is_dir() else path
    if file is None or not file.exists():
        return None
    info = file.stat()
    return info.st_size, info.st_mtime_ns


def plan(module: Module, tokens: str) -> dict[str, Any]:
    """Return the plan of a module for a range of tokens, ``MIN:MAX``, from its source; backward
    functions have none."""
    origin = module._origin
    if origin is None:
        raise MoEError(FAILED_PRECONDITION, f"{module!r} was loaded, and its source is not known")
    if _stamp(origin.path) != origin.stamp:
        raise MoEError(FAILED_PRECONDITION, f"'{origin.path}' has changed since it was compiled")
    return _plan(origin, tokens)


@functools.lru_cache(maxsize=64)
def _plan(origin: _Origin, tokens: str) -> dict[str, Any]:
    kept = [a for a in origin.arguments if not re.match(r"--?(tokens|backward)(=|$)", a)]
    with tempfile.TemporaryDirectory(prefix="moe-") as folder:
        report = Path(folder) / "plan.json"
        _run(find_compiler(), origin.text, origin.path,
             [*kept, "--emit=plan-json", f"--tokens={tokens}"], report)
        return json.loads(report.read_text())


def _finish(module: Module, origin: _Origin) -> Module:
    """Keep where a module comes from, and warn about slow code, as the compiler reported it now
    or when it created the module."""
    module._origin = origin
    for message in module.metadata.get("warnings", ()):
        warnings.warn(f"moe.compile: {message}", RuntimeWarning, stacklevel=3)
    return module


def _classify(source: str | os.PathLike[str]) -> tuple[str | None, Path | None]:
    """Return MLIR text, or an existing path."""
    if not isinstance(source, (str, os.PathLike)):
        raise MoEError(INVALID_ARGUMENT, "source: expected MLIR text or a path, got "
                       f"{type(source).__qualname__}")
    if isinstance(source, str) and ("\n" in source or "{" in source):
        return source, None
    path = Path(source)
    if not path.exists():
        raise MoEError(NOT_FOUND, f"no such file or directory: '{source}'")
    return None, path


def _is_gguf(path: Path) -> bool:
    return path.is_file() and path.suffix == ".gguf"


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() or _is_gguf(path)


def _key(compiler: Path, text: str | None, path: Path | None, arguments: Sequence[str]) -> str:
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

    if path is None:
        add(text.encode())
    elif path.is_dir():
        config = path / "config.json"
        if not config.exists():
            raise MoEError(INVALID_ARGUMENT, f"'{path}' has no config.json")
        # The artifact depends on the names of tensors, so the list of them counts, too.
        for file in (config, path / "model.safetensors.index.json"):
            add(file.read_bytes() if file.exists() else b"")
        if not (path / "model.safetensors.index.json").exists():
            for file in sorted(path.glob("*.safetensors")):
                with open(file, "rb") as stream:
                    length = int.from_bytes(stream.read(8), "little")
                    add(stream.read(min(length, file.stat().st_size)))
    elif _is_gguf(path):
        # Its header has no length of its own, and the file may be large.
        info = path.stat()
        add(f"{path.resolve()} {info.st_size} {info.st_mtime_ns}".encode())
    else:
        add(path.read_bytes())
    for argument in arguments:
        add(argument.encode())
        for named in re.split("[=:]", argument)[1:]:  # for example a recorded histogram
            if os.path.isfile(named):
                add(Path(named).read_bytes())
    # The compiler and the library beside it, which may contain its code.
    for file in [compiler.resolve(), *sorted(compiler.resolve().parent.parent.glob("lib/libMoE*"))]:
        stat = file.stat()
        add(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    targets = [a.partition("=")[2].split(",") for a in arguments if a.startswith("--target=")]
    if not targets or any("host" in names for names in targets):
        add(platform.machine().encode())
        add(_cpu_flags())
    return digest.hexdigest()[:40]


def _cpu_flags() -> bytes:
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file:
                if line.startswith((b"flags", b"Features")):
                    return line
    except OSError:
        pass
    return platform.processor().encode()


def _run(compiler: Path, text: str | None, path: Path | None, arguments: Sequence[str],
         artifact: Path) -> None:
    """Run the compiler, which writes ``artifact``."""
    if path is None:
        source = "-"
    else:
        option = "--gguf" if _is_gguf(path) else "--hf"
        source = f"{option}={path}" if _is_checkpoint(path) else str(path)
    # Remove the compiler's temporary files in any case.
    try:
        with tempfile.TemporaryDirectory(prefix="moe-") as folder:
            done = _start([str(compiler), source, "-o", str(artifact), *arguments], input=text,
                          env={**os.environ, "TMPDIR": folder})
    except OSError as error:
        raise MoEError(RESOURCE_EXHAUSTED, f"no temporary folder: {error.strerror}") from error
    if done.returncode != 0:
        code = INVALID_ARGUMENT if done.returncode == 1 else INTERNAL
        raise MoEError(code, f"moe-compile failed (exit status {done.returncode})\n"
                       + (done.stderr or done.stdout).rstrip())
