"""Virtual environments of participants whose packages are not those of the others."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..common import machine
from ..common.participants import Unavailable
from .participants import PARTICIPANTS

INSTALL_SECONDS = 1800


def directory(requirements: Path) -> Path:
    return machine.ROOT / f".venv-bench-{requirements.stem}"


def python(requirements: Path) -> Path:
    """Return the Python of the environment with these requirements, made if it is not there."""
    venv = directory(requirements)
    found, stamp, text = venv / "bin" / "python", venv / ".installed", requirements.read_text()
    if stamp.exists() and stamp.read_text() == text:
        return found
    print(f"installing {requirements.name} into {venv.name}", flush=True)
    for command in (
            [sys.executable, "-m", "venv", "--clear", venv],
            [found, "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
             "--only-binary", ":all:", "-r", requirements]):
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           check=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
            raise Unavailable(f"{requirements.name} was not installed: {last[:300]}") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{requirements.name} was not installed: {error}") from error
    stamp.write_text(text)
    return found


def versions(participants: Sequence[str]) -> dict[str, str]:
    """Return the versions of the packages in environments of participants, as they are required:
    ``{"iree: jax": "0.10.2"}``."""
    found = {}
    for name in participants:
        if requirements := PARTICIPANTS[name].requirements:
            for package, version in re.findall(r"^([\w.-]+)==(\S+)", requirements.read_text(),
                                               re.MULTILINE):
                found[f"{name}: {package}"] = version
    return found
