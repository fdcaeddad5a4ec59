"""``python -m moe``: what is installed, and the command line tools.

    python -m moe                     # versions, and where compiler and runtime are
    python -m moe compile ARGUMENTS   # moe-compile; also: opt, run
    python -m moe compile MODEL.onnx [--node=NAME] ARGUMENTS   # a node of experts
    python -m moe plan ARGUMENTS      # a layer over several ranks, before it runs
"""

from __future__ import annotations

import subprocess
import sys

from . import MoEError, __version__, find_compiler, runtime_version
from ._library import library
from ._tools import run_tool

TOOLS = ("compile", "opt", "run")


def describe() -> int:
    """Print versions and paths; return 1 if something is missing."""
    print(f"package   {__version__}, {__file__.rpartition('/')[0]}")
    status = 0
    try:
        print(f"runtime   {runtime_version()}, {library()._name}")
    except MoEError as error:
        print(f"runtime   missing: {error}")
        status = 1
    try:
        compiler = find_compiler()
        version = subprocess.run([compiler, "--version"], capture_output=True, text=True,
                                 check=True).stdout.strip()
        print(f"compiler  {version.removeprefix('moe-compile ')}, {compiler}")
    except (MoEError, OSError, subprocess.SubprocessError) as error:
        print(f"compiler  missing: {error}")
        status = 1
    return status


def compile_onnx(path: str, arguments: list[str]) -> int:
    """Run moe-compile on a node of an ONNX model, whose weights are bound when it is loaded."""
    from .integrations.onnx import from_onnx

    node, rest = None, []
    for each in arguments:
        if each.startswith("--node="):
            node = each.removeprefix("--node=")
        else:
            rest.append(each)
    return subprocess.run([find_compiler(), "-", *rest], input=from_onnx(path, node=node).mlir,
                          text=True).returncode


def main(arguments: list[str]) -> int:
    if not arguments:
        return describe()
    models = [each for each in arguments[1:] if each.endswith(".onnx")]
    if arguments[0] == "compile" and len(models) == 1:
        return compile_onnx(models[0], [each for each in arguments[1:] if each != models[0]])
    if arguments[0] == "plan":
        from .parallel_plan.__main__ import main as plan

        return plan(arguments[1:])
    if arguments[0] in TOOLS:
        run_tool(f"moe-{arguments[0]}", arguments[1:])
    print(__doc__.strip().replace("``", ""),
          file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
    return 0 if arguments[0] in ("-h", "--help") else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MoEError as error:
        sys.exit(f"moe: error: {error}")
