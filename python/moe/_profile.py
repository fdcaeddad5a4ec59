"""Times of the stages of a layer."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np

from ._library import Handle, RawStageProfile, check, library
from ._signature import Statistics

_WHOLE_CALL = ctypes.c_size_t(-1).value


@dataclass(frozen=True)
class StageTime:
    """What one stage of a layer took, in seconds: on a CPU what the code does for an operation, or
    for several in one loop (``matmul+gate``), on a GPU a kernel.

    ``calls`` ran the stage, each of them once or, in chunks of tokens, several times. The
    median is that of its time in a call, among the last 4096 ones. ``kernels`` are those that
    a stage on a CPU calls: ``f32_6x2x16`` computes tiles of 6 rows by 2 vectors of 16 columns.
    """

    name: str
    kernels: tuple[str, ...]
    calls: int
    runs: int
    total: float
    median: float


@dataclass
class Profile:
    """What the calls within ``with layer.profile()`` took; complete after its end.

    ``target`` is the one whose code ran, ``call`` the time of whole calls (on a GPU, from the
    first kernel to the last), ``stages`` those that ran, in the order of the code, and
    ``dispatches`` the counts of these calls, rows of each expert included.
    """

    target: str
    call: StageTime = StageTime("call", (), 0, 0, 0.0, 0.0)
    stages: tuple[StageTime, ...] = ()
    dispatches: list[Statistics] = field(default_factory=list)

    @property
    def other(self) -> float:
        """Return the seconds of the calls that no stage took."""
        return max(self.call.total - sum(stage.total for stage in self.stages), 0.0)

    def __str__(self) -> str:
        whole = self.call.total or 1.0
        lines = [f"{self.target}: {self.call.calls} calls, median {1e6 * self.call.median:.2f} us"]
        for stage in self.stages:
            kernels = " to ".join(dict.fromkeys((*stage.kernels[:1], *stage.kernels[-1:])))
            lines.append(f"  {stage.name:32} {1e6 * stage.median:10.2f} us "
                         f"{100 * stage.total / whole:5.1f} %  {kernels}".rstrip())
        if self.stages:
            lines.append(f"  {'other':32} {'':13} {100 * self.other / whole:5.1f} %")
        for i, counts in enumerate(self.dispatches):
            rows = counts.tokens_per_expert / max(counts.calls, 1)
            lines.append(f"  dispatch {i}: {rows.sum():.1f} rows a call, {rows.mean():.1f} an "
                         f"expert, at most {rows.max():.1f}; {(rows == 0).sum()} of {len(rows)} "
                         "experts have none")
        return "\n".join(lines)


def read(handle: Handle, profile: Profile) -> None:
    """Read the times of a layer."""
    lib = library()

    def stage(index: int) -> StageTime:
        raw = RawStageProfile()
        check(lib.moe_rt_layer_profile(handle.pointer, index, ctypes.byref(raw)))
        samples = raw.samples[:raw.sample_count] if raw.sample_count else [0]
        kernels = raw.kernels.decode(errors="replace")
        return StageTime(raw.name.decode(errors="replace"),
                         tuple(kernels.split(", ")) if kernels else (), raw.calls, raw.runs,
                         1e-9 * raw.total_nanoseconds, 1e-9 * float(np.median(samples)))

    count = lib.moe_rt_layer_stage_count(handle.pointer)
    profile.call = stage(_WHOLE_CALL)
    profile.stages = tuple(s for s in map(stage, range(count)) if s.calls)


def differences(before: list[Statistics], after: list[Statistics]) -> list[Statistics]:
    """Return what was counted between two readings."""
    return [Statistics(b.num_experts, b.top_k, b.tokens_per_expert - a.tokens_per_expert,
                       b.calls - a.calls, b.choices - a.choices, b.dropped - a.dropped,
                       b.padding - a.padding) for a, b in zip(before, after)]
