#!/usr/bin/env python3
"""Add up the test cases of every suite after a run of ctest.

    count_results.py BUILD_DIR

reads BUILD_DIR/test-results: ctest.xml (ctest --output-junit) says which suites
ran and how they ended; NAME.xml, or gtest/PROGRAM.xml for a gtest program that
was told through GTEST_OUTPUT, says what happened to each case of one. A suite
without such a file counts as one case. Prints the cases that did not pass, the ten
slowest ones, a line for each suite with its seconds and, last and alone, the sum.
Exits with 1 where a case failed, or none ran.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def __iadd__(self, other: Count) -> Count:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        self.seconds |= other.seconds
        for reason, times in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + times
        return self

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def fail(self, name: str) -> None:
        self.failed += 1
        self.failures.append(name)

    def skip(self, reason: str) -> None:
        self.skipped += 1
        reason = " ".join(reason.split()) or "no reason given"
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


def cases(path: Path) -> Count:
    """What a JUnit file of gtest, lit or pytest says."""
    count = Count()
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}".strip(":")
        count.seconds[name] = float(case.get("time") or 0)
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            count.fail(name)
        elif skipped is not None:
            count.skip(skipped.get("message") or skipped.text or "")
        elif case.get("status") == "notrun" or case.get("result") in ("suppressed", "skipped"):
            count.skip("disabled")
        else:
            count.passed += 1
    return count


def programs(build: Path) -> dict[str, list[str]]:
    """The command of every entry of ctest."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                             capture_output=True, text=True, check=True).stdout
    return {test["name"]: test.get("command", []) for test in json.loads(listing)["tests"]}


def result_file(results: Path, name: str, command: list[str]) -> Path | None:
    own = results / f"{name}.xml"
    if own.exists():
        return own
    # An entry for a single case counts as it is.
    if command and not any(word.startswith("--gtest_filter") for word in command):
        told = results / "gtest" / f"{Path(command[0]).name}.xml"
        if told.exists():
            return told
    return None


def suite(case: ElementTree.Element, path: Path | None) -> Count:
    """The cases of one entry of ctest."""
    name, ended = case.get("name", ""), case.get("status")
    count = Count()
    if ended in ("notrun", "disabled"):
        skipped = case.find("skipped")
        reason = skipped.get("message", "") if skipped is not None else ""
        if "not found" in reason.lower() or "unable to find" in reason.lower():
            count.fail(f"{name}: {reason}")
        else:
            output = (case.findtext("system-out") or "").strip().splitlines()
            count.skip(output[-1] if output else reason)
        return count
    if path is not None:
        try:
            count = cases(path)
        except ElementTree.ParseError as error:
            count.fail(f"{name}: {path.name}: {error}")
        if ended == "fail" and not count.failed:
            count.fail(f"{name}: ended early")
    elif ended == "fail":
        count.fail(name)
    else:
        count.passed += 1
    return count


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    build = Path(sys.argv[1])
    results = build / "test-results"
    commands = programs(build)
    total = Count()
    lines = []
    for case in ElementTree.parse(results / "ctest.xml").iter("testcase"):
        name = case.get("name", "")
        count = suite(case, result_file(results, name, commands.get(name, [])))
        lines.append((name, f"{count}, {float(case.get('time') or 0):.0f} s"))
        total += count

    if total.reasons:
        print("\nSkipped:")
        for reason, times in sorted(total.reasons.items(), key=lambda item: -item[1]):
            print(f"  {times:5d}  {reason}")
    if total.failures:
        print("\nFailed:")
        for name in total.failures:
            print(f"  {name}")
    print("\nSlowest:")
    for name, seconds in sorted(total.seconds.items(), key=lambda item: -item[1])[:10]:
        print(f"  {seconds:5.1f} s  {name}")
    print()
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"{name:{width}}  {text}")
    print(total)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
