"""``moe.compile``: MLIR text, a file or a checkpoint to a loaded module.

The work is done by the executable ``moe-compile``.  It is found through
``$MOE_COMPILE``, beside this package, in a build tree, or in ``$PATH``.  Results
are kept in ``$MOE_CACHE_DIR`` (by default ``~/.cache/moe``) under a hash of the
source, the options, the compiler and, for the host's own target, the CPU.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ._error import INTERNAL, INVALID_ARGUMENT, NOT_FOUND, MoEError
from ._runtime import Module, load

__all__ = ["compile", "find_compiler"]


def find_compiler() -> Path:
    """The path of ``moe-compile``."""
    if named := os.environ.get("MOE_COMPILE"):
        if not os.access(named, os.X_OK):
            raise MoEError(NOT_FOUND, f"$MOE_COMPILE names '{named}', which is no executable")
        return Path(named)
    package = Path(__file__).resolve().parent
    build = Path(os.environ.get("MOE_BUILD_DIR", package.parent.parent / "build"))
    for path in (package / "moe-compile", package / "bin" / "moe-compile",
                 build / "bin" / "moe-compile"):
        if os.access(path, os.X_OK):
            return path
    if found := shutil.which("moe-compile"):
        return Path(found)
    raise MoEError(NOT_FOUND, "moe-compile was not found beside the package, in a build tree or in "
                   "PATH; set MOE_COMPILE to its path")


def compile(source: str | os.PathLike[str], *, output: str | os.PathLike[str] | None = None,
            target: str | None = None, dtype: str | None = None, layer: int | None = None,
            options: Sequence[str] = (), cache: bool = True, num_threads: int = 0,
            device: str | None = None) -> Module:
    """Compile MoE layers and load the result.

    Args:
      source: MLIR text, the path of an ``.mlir`` file, or the directory of a
        Hugging Face checkpoint (its ``config.json``), which needs ``layer``.
      output: where to write the artifact; by default it lives in the cache.
      target: the target to compile for, as ``moe-compile --target``, or several
        with commas between them, the best first; by default the host.
      dtype: of a checkpoint's layer: ``f32``, ``f16`` or ``bf16``; by default the
        one its ``config.json`` names.
      layer: which layer of a checkpoint.
      options: further options of ``moe-compile``.
      cache: reuse an artifact that was compiled before.
      num_threads: threads of a call, as for ``moe.load``.
      device: where it runs, as for ``moe.load``; on ``cuda`` the default target is
        every GPU, and the host.

    Raises:
      MoEError: with the compiler's diagnostics.
    """
    compiler = find_compiler()
    text, path = _classify(source)
    if target is None and device not in (None, "cpu"):
        target = "sm_90a,sm_80,host"
    if (path is not None and path.is_dir()) != (layer is not None):
        raise MoEError(INVALID_ARGUMENT, "a checkpoint directory needs layer=N, and only that does")
    arguments = list(options)
    if target is not None:
        arguments.append(f"--target={target}")
    if dtype is not None:
        arguments.append(f"--dtype={dtype}")
    if layer is not None:
        arguments.append(f"--layer={layer}")

    key = _key(compiler, text, path, arguments, target)
    if output is not None:
        artifact = Path(output)
    elif cache:
        artifact = _cache_directory() / f"{key}.moe"
        if artifact.exists():
            return load(artifact, num_threads=num_threads, device=device)
    else:
        with tempfile.TemporaryDirectory(prefix="moe-") as scratch:
            artifact = Path(scratch) / "module.moe"
            _run(compiler, text, path, arguments, artifact)
            return load(artifact.read_bytes(), num_threads=num_threads,
                        device=device)
    cached = _cache_directory() / f"{key}.moe" if cache else None
    if cached is not None and cached.exists():
        shutil.copyfile(cached, artifact)
    else:
        _run(compiler, text, path, arguments, artifact)
    return load(artifact, num_threads=num_threads, device=device)


def _classify(source: str | os.PathLike[str]) -> tuple[str | None, Path | None]:
    """MLIR text, or an existing path."""
    if isinstance(source, str) and ("\n" in source or "{" in source):
        return source, None
    path = Path(source)
    if not path.exists():
        raise MoEError(NOT_FOUND, f"no such file or directory: '{source}'")
    return None, path


def _key(compiler: Path, text: str | None, path: Path | None, arguments: Sequence[str],
         target: str | None) -> str:
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
        # The artifact names tensors, so the list of them counts too.
        for file in (config, path / "model.safetensors.index.json"):
            add(file.read_bytes() if file.exists() else b"")
        if not (path / "model.safetensors.index.json").exists():
            for file in sorted(path.glob("*.safetensors")):
                with open(file, "rb") as stream:
                    add(stream.read(int.from_bytes(stream.read(8), "little")))
    else:
        add(path.read_bytes())
    for argument in arguments:
        add(argument.encode())
    # The compiler, and the library beside it that may hold its code.
    for file in [compiler.resolve(), *sorted(compiler.resolve().parent.parent.glob("lib/libMoE*"))]:
        stat = file.stat()
        add(f"{file} {stat.st_size} {stat.st_mtime_ns}".encode())
    if target is None or "host" in target.split(","):
        add(platform.machine().encode())
        add(_cpu_flags())
    return digest.hexdigest()[:40]


def _cpu_flags() -> bytes:
    try:
        for line in open("/proc/cpuinfo", "rb"):
            if line.startswith((b"flags", b"Features")):
                return line
    except OSError:
        pass
    return platform.processor().encode()


def _cache_directory() -> Path:
    named = os.environ.get("MOE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "moe"
    candidates = [Path(named)] if named else [
        base, Path(tempfile.gettempdir()) / f"moe-cache-{os.getuid()}"]
    for directory in candidates:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        # An artifact is code: use no directory that others can write to.
        stat = directory.stat()
        if stat.st_uid == os.getuid() and not stat.st_mode & 0o022 and os.access(
                directory, os.W_OK):
            return directory
    raise MoEError(INVALID_ARGUMENT, "no cache directory of our own among "
                   + ", ".join(map(str, candidates)) + "; set MOE_CACHE_DIR")


def _run(compiler: Path, text: str | None, path: Path | None, arguments: Sequence[str],
         artifact: Path) -> None:
    """Compile to ``artifact``, which appears complete or not at all."""
    handle, scratch = tempfile.mkstemp(prefix=".moe-", suffix=".moe", dir=artifact.parent)
    os.close(handle)
    try:
        if path is None:
            source = "-"
        else:
            source = f"--hf={path}" if path.is_dir() else str(path)
        command = [str(compiler), source, "-o", scratch, *arguments]
        done = subprocess.run(command, input=text, text=True, capture_output=True)
        if done.returncode != 0:
            code = INVALID_ARGUMENT if done.returncode == 1 else INTERNAL
            raise MoEError(code, f"moe-compile failed (exit status {done.returncode})\n"
                           + (done.stderr or done.stdout).rstrip())
        os.chmod(scratch, 0o644)
        os.replace(scratch, artifact)
    finally:
        if os.path.exists(scratch):
            os.unlink(scratch)
