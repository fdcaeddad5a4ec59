"""``moe.compile``: its arguments, the compiler as a process, and the cache."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

import moe

TEXT = """\
func.func @same(%x: tensor<?x1xf32> {moe.role = "input", moe.name = "x"}) -> tensor<?x1xf32> {
  return %x : tensor<?x1xf32>
}
"""
VERSION = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo moe-compile 0, ABI 4; exit; fi\n"


class Compiler:
    """A moe-compile in shell; ``$output`` is where the artifact goes."""

    def __init__(self, folder: Path):
        self.path, self.log = folder / "moe-compile", folder / "log"

    def is_now(self, script: str, version: str = VERSION) -> None:
        self.path.write_text(f'{version}echo "$*" >> {self.log}\nall="$*"\n'
                             'while [ "$1" != -o ]; do shift; done\noutput="$2"\n' + script + "\n")
        self.path.chmod(0o755)

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """One that fails and says what it was given."""
    monkeypatch.setenv("MOE_COMPILE", str(tmp_path / "moe-compile"))
    monkeypatch.setenv("MOE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("MOE_CACHE_LIMIT", raising=False)
    made = Compiler(tmp_path)
    made.is_now('echo "layer.mlir:3:7: error: got $all" >&2\nexit 1')
    return made


@pytest.fixture
def artifact(compiled, tmp_path_factory):
    """A true one, which the compiler may copy."""
    path = tmp_path_factory.mktemp("artifact") / "same.moe"
    moe.compile(TEXT, output=path)
    return path


@pytest.fixture
def cache(artifact, compiler, tmp_path):
    """The cache of a compiler that works."""
    compiler.is_now(f'cp {artifact} "$output"')
    return tmp_path / "cache"


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)


# -- the compiler as a process ------------------------------------------------


def test_diagnostics_are_in_the_error(compiler, tmp_path):
    with pytest.raises(moe.MoEError, match=r"layer.mlir:3:7: error: got - -o .* --dtype=bf16"):
        moe.compile("module {}\n", dtype="bf16")
    assert not list((tmp_path / "cache").iterdir())


def test_a_directory_is_a_checkpoint(compiler, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    # A damaged one: the compiler says so.
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\xff" * 9)
    with pytest.raises(moe.MoEError, match=r"got --hf=\S*model -o .* --layer=3"):
        moe.compile(tmp_path / "model", layer=3)
    with pytest.raises(moe.MoEError, match="needs layer=N"):
        moe.compile(tmp_path / "model")
    with pytest.raises(moe.MoEError, match="needs layer=N"):
        moe.compile("module {}\n", layer=3)


def test_a_compiler_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("MOE_COMPILE", str(tmp_path / "none"))
    with pytest.raises(moe.MoEError, match="MOE_COMPILE") as caught:
        moe.compile("module {}\n")
    assert caught.value.code == moe.NOT_FOUND


@pytest.mark.parametrize("version, what", [
    ("#!/bin/sh\necho no libLLVM >&2; exit 127\n", "does not run .exit status 127.\nno libLLVM"),
    ("#!/bin/sh\necho moe-compile 0, ABI 2; exit\n", "makes artifacts of ABI 2, expected ABI 4"),
    ("#!/bin/sh\necho moe-compile 0; exit\n", "makes artifacts of an older ABI, expected ABI 4"),
    ("\x7fELF", "cannot run|does not run")])
def test_a_compiler_that_does_not_fit(compiler, version, what):
    compiler.is_now("", version)
    with pytest.raises(moe.MoEError, match=what) as caught:
        moe.compile("module {}\n")
    assert caught.value.code == moe.FAILED_PRECONDITION and compiler.runs == 0


def test_temporary_files_go_with_the_compiler(compiler, monkeypatch, tmp_path):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for end in ("exit 1", "kill -9 $$"):
        compiler.is_now(f"touch $TMPDIR/moe-1.o\nprintf half > $output\n{end}")
        with pytest.raises(moe.MoEError, match="moe-compile failed"):
            moe.compile("module {}\n")
    assert not list((tmp_path / "tmp").iterdir()) and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("arguments, what", [
    (dict(source=3), "source: expected MLIR text or a path, got int"),
    (dict(source="absent.mlir"), "no such file"),
    (dict(options="--tokens=1:8"), "expected a sequence of strings"),
    (dict(options=3), "expected a sequence of strings"),
    (dict(options=["--emit=asm"]), "'--emit=asm' is moe-compile's alone"),
    (dict(options=["-o", "x"]), "'-o' is moe-compile's alone"),
    (dict(target=3), "target is 3, expected a string"),
    (dict(dtype=3), "dtype is 3, expected a string"),
    (dict(layer=-1), "layer is -1, expected the number of a layer"),
    (dict(num_threads=-1), "num_threads is -1, expected 0 to"),
    (dict(num_threads="2"), "num_threads is '2', expected an integer"),
    (dict(device="gpu"), "expected the device 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
    (dict(device="cuda:99999999999"), "expected the device"),
    (dict(device="cuda", target="host"), "'host' has no code for the device 'cuda'"),
    (dict(target="sm_90a,sm_80"), "'sm_90a,sm_80' has no code for the device 'cpu'")])
def test_arguments_are_checked_before_the_work(compiler, compiled, arguments, what):
    with pytest.raises(moe.MoEError, match=what):
        moe.compile(**{"source": "module {}\n", **arguments})
    assert compiler.runs == 0


def test_a_device_that_is_not_there(compiler, compiled, monkeypatch):
    monkeypatch.setenv("MOE_CUDA_LIBRARY", "/nowhere/libcuda.so")
    with pytest.raises(moe.MoEError, match="/nowhere/libcuda.so") as caught:
        moe.compile("module {}\n", device="cuda")
    assert caught.value.code == moe.FAILED_PRECONDITION and compiler.runs == 0


# -- the cache ------------------------------------------------------------------


@pytest.mark.parametrize("damage", [
    lambda path: os.truncate(path, path.stat().st_size // 2),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:100] + b"?" + path.read_bytes()[101:]),
    lambda path: path.write_text("no artifact\n" * 99)])
def test_a_damaged_entry_is_compiled_anew(cache, compiler, damage):
    moe.compile(TEXT)
    entry, = entries(cache)
    damage(entry)
    for _ in range(2):
        assert moe.compile(TEXT).functions == ("same",)
    assert compiler.runs == 2 and entries(cache) == [entry]


def test_nothing_is_kept_without_the_cache(cache, compiler, tmp_path):
    """Neither with an output nor without: then the artifact is in memory alone."""
    for output in (None, None, tmp_path / "x.moe"):
        module = moe.compile(TEXT, output=output, cache=False)
        assert module.functions == ("same",) and module.path == output
    assert compiler.runs == 3 and not cache.exists()


def test_what_is_no_artifact_is_not_kept(cache, compiler, tmp_path):
    compiler.is_now('echo .text > "$output"')
    for output in (None, tmp_path / "x.moe"):
        with pytest.raises(moe.MoEError, match="not an artifact"):
            moe.compile(TEXT, output=output)
    assert not entries(cache) and not (tmp_path / "x.moe").exists()


def test_a_full_disk_leaves_nothing(cache, monkeypatch, tmp_path):
    moe.compile(TEXT)
    (tmp_path / "out").mkdir()

    def copy(source, to):
        Path(to).write_bytes(Path(source).read_bytes()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", copy)
    with pytest.raises(moe.MoEError, match="cannot write '.*x.moe': No space left") as caught:
        moe.compile(TEXT, output=tmp_path / "out" / "x.moe")
    assert caught.value.code == moe.RESOURCE_EXHAUSTED
    assert not list((tmp_path / "out").iterdir())


def test_an_output_without_a_folder(cache, tmp_path):
    with pytest.raises(moe.MoEError, match="cannot write to '.*none': No such file"):
        moe.compile(TEXT, output=tmp_path / "none" / "x.moe")


def test_what_was_not_used_goes_first(cache, compiler, artifact, monkeypatch):
    size = artifact.stat().st_size
    monkeypatch.setenv("MOE_CACHE_LIMIT", f"{2 * size + 1}B")
    texts = [TEXT + f"// {i}\n" for i in range(3)]
    for text in (texts[0], texts[1], texts[0], texts[2]):
        moe.compile(text)
        time.sleep(0.02)  # the clock of the file system
    assert compiler.runs == 3 and len(entries(cache)) == 2
    moe.compile(texts[0])
    assert compiler.runs == 3
    moe.compile(texts[1])
    assert compiler.runs == 4 and len(entries(cache)) == 2
    monkeypatch.setenv("MOE_CACHE_LIMIT", "0")
    assert moe.compile(texts[2] + "// 3\n").functions == ("same",)
    assert not entries(cache)


def test_scratch_files_of_the_dead_go(cache):
    cache.mkdir(mode=0o700)
    old, new = cache / ".moe-old.moe", cache / ".moe-new.moe"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    moe.compile(TEXT)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("wrong", ["much", "-1", "1.5GiB", "2 XB"])
def test_a_limit_that_is_none(cache, compiler, monkeypatch, wrong):
    monkeypatch.setenv("MOE_CACHE_LIMIT", wrong)
    with pytest.raises(moe.MoEError, match="MOE_CACHE_LIMIT is '.*', expected bytes"):
        moe.compile(TEXT)
    assert compiler.runs == 0


def test_files_that_options_name_count(cache, compiler, tmp_path):
    histogram = tmp_path / "histogram.json"
    for content, runs in (("[1]", 1), ("[1]", 1), ("[2]", 2)):
        histogram.write_text(content)
        moe.compile(TEXT, options=[f"--imbalance=histogram:{histogram}"])
        assert compiler.runs == runs
