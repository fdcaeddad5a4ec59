"""./dev on machines where it installs no packages: what is missing, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UBUNTU = """\
PRETTY_NAME="Ubuntu 24.04.3 LTS"
ID=ubuntu
ID_LIKE=debian
VERSION_ID="24.04"
"""
# What ./dev itself needs to look around.
FEW = ["awk", "basename", "bash", "cut", "dirname", "env", "find", "getconf", "grep", "paste",
       "sed", "sort", "uname"]


@pytest.fixture
def dev(tmp_path):
    """Runs ./dev with few programs in PATH, on a system of another name."""
    (tmp_path / "os-release").write_text(UBUNTU)
    (tmp_path / "bin").mkdir()

    def run(command: str, *programs: str) -> subprocess.CompletedProcess[str]:
        for program in (*FEW, *programs):
            found = shutil.which(program)
            if found is None:
                pytest.skip(f"there is no {program}")
            (tmp_path / "bin" / program).symlink_to(found)
        environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path),
                       "MOE_OS_RELEASE": str(tmp_path / "os-release"),
                       "PYTHON": str(tmp_path / "none"), "CXX": os.environ.get("CXX", "c++")}
        return subprocess.run([ROOT / "dev", command], env=environment, text=True,
                              capture_output=True)

    return run


@pytest.mark.parametrize("command", ["demo", "test"])
def test_all_that_is_missing_is_named(dev, command):
    done = dev(command)
    assert done.returncode == 1
    assert "this is Ubuntu 24.04.3 LTS, and packages are only installed on Debian 12" in done.stderr
    missing = done.stderr.partition("missing here:\n")[2].splitlines()
    assert {"  cmake 3.22 or later", "  ninja", "  a C++17 compiler",
            "  Python 3.11 or later with venv and pip"} <= set(missing)
    assert "apt-get" not in done.stderr  # there is none


def test_the_packages_are_named(dev):
    done = dev("demo", "apt-get", "c++")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("  sudo apt-get install cmake ninja-build ")
    assert last.endswith(" python3 python3-venv")
    assert " g++" not in last


def test_doctor_says_the_same(dev):
    done = dev("doctor", "apt-get", "c++")
    assert done.returncode == 1
    assert "Ubuntu 24.04.3 LTS" in done.stdout
    assert "\nmissing:\n  cmake 3.22 or later\n  ninja\n" in done.stdout
    assert "\nto install it:\n" in done.stdout
    assert "\t" not in done.stdout


def test_headers_are_found_without_a_compiler(dev):
    if not Path("/usr/include/zstd.h").exists():
        pytest.skip("there is no zstd.h")
    missing = dev("demo").stderr.partition("missing here:\n")[2].splitlines()
    assert "  a C++17 compiler" in missing and "  zstd" not in missing


@pytest.mark.parametrize("version, found", [("3.16.3", False), ("3.22.1", True), ("4.0.2", True)])
def test_the_version_of_cmake_is_read(dev, tmp_path, version, found):
    cmake = tmp_path / "bin" / "cmake"
    cmake.write_text(f"#!{shutil.which('bash')}\necho 'cmake version {version}'\n")
    cmake.chmod(0o755)
    missing = dev("demo").stderr.partition("missing here:\n")[2].splitlines()
    assert ("  cmake 3.22 or later" not in missing) == found
