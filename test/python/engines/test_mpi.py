"""Layers over ranks of MPI: the bits of one rank, and errors where ranks disagree, die or do not
come.

`./dev check mpi` installs each MPI into an environment of its own and runs this. The engine is
built twice: for the standard ABI, which MPICH and Intel MPI share, and for Open MPI.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("MOE_BUILD_DIR", ROOT / "build"))
RANKS = BUILD / "bin" / "moe_rt_mpi_ranks"

# The environment whose compiler builds the engine, its name, and how ranks start. Open MPI binds
# each of two ranks to a core, and refuses root and more ranks than cores unless it is told.
OPEN_MPI = ("openmpi", "mpicc", ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"])
ABI = ("mpich", "mpicc_abi", [])
LIBRARIES = {"openmpi": OPEN_MPI, "openmpi4": OPEN_MPI, "mpich": ABI, "impi": ABI}
MPIS = [name for name, (built, _, _) in LIBRARIES.items()
        if RANKS.exists() and all((ROOT / f".venv-mpi-{each}" / "bin" / "mpirun").exists()
                                  for each in (name, built))]
pytestmark = pytest.mark.skipif(not MPIS, reason="there is no MPI; ./dev check mpi installs some")

LINE = re.compile(r"code (\d+) after ([\d.]+) s: (.*)")


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """The library of each compiler."""
    folder = tmp_path_factory.mktemp("mpi")
    made = {}
    for built, compiler, _ in {LIBRARIES[name][0]: LIBRARIES[name] for name in MPIS}.values():
        made[built] = folder / f"libmoe_mpi_{built}.so"
        subprocess.run([ROOT / f".venv-mpi-{built}" / "bin" / compiler, "-shared", "-fPIC", "-O2",
                        "-Wall", "-Wextra", "-Werror", "-I", ROOT / "runtime" / "include",
                        ROOT / "runtime" / "mpi" / "moe_mpi.c", "-o", made[built], "-ldl"],
                       check=True)
    return made


def launch(mpi, ranks, program, options=(), reports="."):
    """What the ranks of a program print, and the exit status of the launcher."""
    home = ROOT / f".venv-mpi-{mpi}"
    environment = dict(os.environ, LD_LIBRARY_PATH=str(home / "lib"),
                       PATH=f"{home / 'bin'}:{os.environ['PATH']}", MOE_RT_REPORTS=str(reports))
    if mpi == "impi":
        environment |= {"I_MPI_ROOT": str(home), "I_MPI_FABRICS": "shm", "I_MPI_PIN": "0",
                        "FI_PROVIDER_PATH": str(home / "lib" / "libfabric")}
    done = subprocess.run([home / "bin" / "mpirun", *LIBRARIES[mpi][2], *options, "-n", str(ranks),
                           *program], env=environment, capture_output=True, text=True,
                          timeout=120, check=False)
    return done.stdout + done.stderr, done.returncode


def run(engines, mpi, ranks, case, options=(), reports="."):
    return launch(mpi, ranks, [RANKS, engines[LIBRARIES[mpi][0]], case], options, reports)


def run_reports(engines, mpi, case, folder, options=()):
    """For each of three ranks, the code, seconds and message of each of its calls, and the exit
    status of the launcher."""
    folder.mkdir()
    output, status = run(engines, mpi, 3, case, options, folder)
    found = {int(path.name[4:]): [(int(code), float(seconds), message) for code, seconds, message
                                  in LINE.findall(path.read_text())]
             for path in folder.glob("rank*")}
    return found, status, output


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("mpi", MPIS)
def test_bits_of_one_rank(engines, mpi, ranks):
    output, status = run(engines, mpi, ranks, "results")
    for rank in range(ranks):
        assert f"rank {rank} of {ranks}, node of {ranks}: 48 of 48 right" in output, output
    assert status == 0, output


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A layer for one rank and for several, and what moe-run writes for one."""
    folder = tmp_path_factory.mktemp("programs")
    tools = BUILD / "bin"
    for name, options in (("one", []), ("ranks", ["--parallel=ranks=3"])):
        subprocess.run([tools / "moe-compile", ROOT / "test/Integration/CPU/mixtral.mlir",
                        *options, "-o", folder / f"{name}.moe"], check=True)
    subprocess.run([tools / "moe-run", folder / "one.moe", "--weights", "random:3", "--tokens",
                    "37", "--output", folder / "one.npy"], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("mpi", MPIS)
def test_moe_run(engines, programs, mpi, tmp_path):
    """``mpirun -n 4 moe-run layer.moe --ep``: the file of one rank, also in chunks."""
    command = [BUILD / "bin" / "moe-run", programs / "ranks.moe",
               f"--ep={engines[LIBRARIES[mpi][0]]}", "--weights", "random:3"]
    for chunks in (1, 2):
        output, status = launch(mpi, 4, [*command, "--tokens", "37", "--chunks", str(chunks),
                                         "--output", tmp_path / "y.npy"])
        assert status == 0 and output.count("rank 0 of 4: ") == output.count("y: ") == 1, output
        assert f", {chunks} round" in output
        assert (tmp_path / "y.npy").read_bytes() == (programs / "one.npy").read_bytes()
    output, status = launch(mpi, 2, [*command, "--input", tmp_path / "none{rank}.npy"])
    assert status != 0 and "moe-run: error: rank 1: " in output, output


def test_moe_run_with_another_mpi(engines, programs):
    """Ranks that the library does not see are no ranks of one."""
    if not {"openmpi", "mpich"} <= set(MPIS):
        pytest.skip("needs Open MPI and MPICH")
    output, status = launch("mpich", 2, [
        "env", f"LD_LIBRARY_PATH={ROOT / '.venv-mpi-openmpi' / 'lib'}", BUILD / "bin" / "moe-run",
        programs / "ranks.moe", f"--ep={engines['openmpi']}", "--weights", "random", "--tokens",
        "4"])
    assert status != 0 and "the launcher has started 2 ranks and MPI knows of one" in output


@pytest.mark.parametrize("mpi", MPIS)
def test_ranks_that_disagree(engines, mpi, tmp_path):
    found, status, output = run_reports(engines, mpi, "disagree", tmp_path / "reports")
    assert status == 0 and sorted(found) == [0, 1, 2], output
    for rank, calls in found.items():
        assert [code for code, _, _ in calls] == [3, 0, 3, 0], calls
        assert calls[0][2].startswith("rank 1 has a greatest T of 999, rank 0 has 1000")
        assert calls[2][2].startswith("rank 1: input 'ids': element 0 is 99" if rank == 1 else
                                      "rank 1 failed with code 3, INVALID_ARGUMENT")


@pytest.mark.parametrize("mpi", MPIS)
def test_a_rank_that_is_late(engines, mpi, tmp_path):
    """Two seconds of deadline; the last of three ranks sleeps for four."""
    found, _, output = run_reports(engines, mpi, "late", tmp_path / "reports")
    assert sorted(found) == [0, 1, 2], output
    for rank, calls in found.items():
        assert [code for code, _, _ in calls] in ([4, 4], [14, 14]), calls
        assert calls[0][2].endswith("; the group is dead"), calls
        if rank < 2:
            assert calls[0][0] == 4 and 1.9 < calls[0][1] < 2.5, calls
        assert calls[1][1] < 0.1 and calls[1][2].startswith("the group is dead: "), calls


@pytest.mark.parametrize("mpi", MPIS)
def test_a_rank_that_dies(engines, mpi, tmp_path):
    """The launcher ends the job, unless it is told to go on."""
    _, status, output = run_reports(engines, mpi, "kill", tmp_path / "ended")
    assert status != 0, output
    options = {"openmpi": ["--with-ft", "ulfm"], "mpich": ["-disable-auto-cleanup"]}.get(mpi)
    if not options:
        return
    for attempt in range(8):
        found, _, output = run_reports(engines, mpi, "kill", tmp_path / f"{attempt}", options)
        # In some runs MPICH's launcher fails to write to the rank that died, and ends the job.
        if "unable to forward PMI response" not in output and (found or mpi == "openmpi"):
            break
    else:
        pytest.skip("the launcher ended the job each time")
    assert sorted(found) == [0, 1], output
    for calls in found.values():
        code, seconds, message = calls[0]
        assert message.endswith("; the group is dead"), calls
        if mpi == "openmpi":
            assert code == 14 and seconds < 1, calls
            assert "MPI_ERR_PROC_FAILED" in message or "MPI_ERR_REVOKED" in message
        else:
            assert code == 4 and 1.9 < seconds < 2.5, calls
        assert calls[1][1] < 0.1 and calls[1][2].startswith("the group is dead: "), calls
