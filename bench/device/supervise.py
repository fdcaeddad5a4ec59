"""Runs tasks in their own process, which may hang, or crash with the CUDA context.

The process (``python -m MODULE``) reads its tasks as JSON from stdin and appends events, one
JSON object per line, to a file. The parent kills it if it is silent for too long.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..common import machine

Event = dict[str, Any]
Emit = Callable[..., None]
POLL_SECONDS = 0.1


def events(module: str, task: dict[str, Any], silence: float, end: float,
           tool: Sequence[str] = ()) -> Iterator[Event]:
    """Yield the events of one process; the last one is ``ended``, with the reason, or ``out of
    time``. ``silence`` is the time limit without an event, in seconds, which an event may change
    until the next one; ``end`` is the deadline of the process (time.monotonic). ``tool`` is a
    command that runs the process."""
    with tempfile.TemporaryDirectory(prefix="moe-gpu-") as directory:
        path, errors = Path(directory) / "events", Path(directory) / "errors"
        path.touch()
        with errors.open("w") as stderr, path.open() as file:
            process = subprocess.Popen(
                [*tool, sys.executable, "-m", module], text=True, stdin=subprocess.PIPE,
                stdout=stderr, stderr=stderr)
            process.stdin.write(json.dumps(task | {"events": str(path)}))
            process.stdin.close()
            try:
                running, rest, last, allowed = True, "", time.monotonic(), silence
                while running:
                    running = process.poll() is None
                    *lines, rest = (rest + file.read()).split("\n")
                    for event in map(json.loads, lines):
                        last, allowed = time.monotonic(), event.get("silence", silence)
                        yield event
                    now = time.monotonic()
                    if running and now > end:
                        yield {"event": "out of time"}
                        return
                    if running and now > last + allowed:
                        yield {"event": "ended", "ok": False,
                               "how": f"nothing happened for {allowed:.0f} s"}
                        return
                    time.sleep(POLL_SECONDS if running else 0)
            finally:
                process.kill()
                process.wait()
        yield _how_it_ended(process.returncode, errors.read_text(errors="replace"))


def _how_it_ended(code: int, output: str) -> Event:
    if code == 0:
        return {"event": "ended", "ok": True, "how": "done", "output": output[-4000:]}
    how = (f"the process ended by {signal.Signals(-code).name}" if code < 0 else
           f"the process ended with status {code}")
    if lines := output.strip().splitlines():
        how += f": {lines[-1][:500]}"
    return {"event": "ended", "ok": False, "how": how, "output": output[-4000:]}


def serve(work: Callable[[dict[str, Any], Emit], None]) -> None:
    """Run ``work`` on the task in the process, with a function that emits events."""
    machine.end_with_parent()
    task = json.load(sys.stdin)
    with open(task["events"], "ab", buffering=0) as file:
        def emit(kind: str, **values: Any) -> None:
            # Whole lines, so that readers never see a partial event.
            file.write(json.dumps({"event": kind, **values}).encode() + b"\n")

        work(task, emit)
