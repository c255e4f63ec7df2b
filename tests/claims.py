"""docs/security.md says which test proves which claim: here that is held against what ran.

A pytest plugin. `--passed FILE` adds the tests that passed to FILE; with `--claims` the run fails
unless every test that the page names is among them. `make test` does both.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "security.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def claimed() -> Iterator[str]:
    """Yield each test that the page names, as `tests/file.py::test_name`."""
    for path, name in _NAMED.findall(PAGE.read_text("utf-8")):
        yield f"{path}::{name}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's two options."""
    group = parser.getgroup("claims")
    group.addoption("--passed", metavar="FILE", help="add the tests that passed to FILE")
    group.addoption("--claims", action="store_true", help="FILE must hold what security.md names")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run, in the process that hears of every test and not in its workers."""
    file = config.getoption("passed")
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Watch(Path(file), check=config.getoption("claims")))


class _Watch:
    """What passed in this run, and before it."""

    def __init__(self, file: Path, *, check: bool) -> None:
        self._file = file
        self._check = check
        self._ran: dict[str, bool] = {}
        self._missing: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        good = report.passed and self._ran.get(name, True)
        if report.when == "call" or not report.passed:
            self._ran[name] = good  # one bad case of many, and the test did not pass

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name, good in self._ran.items() if good)
        if self._check:
            passed = set(self._file.read_text("utf-8").split())
            self._missing = sorted(set(claimed()) - passed)
            if self._missing and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self._missing:
            terminalreporter.write_line(
                f"docs/security.md names {name}, which did not pass", red=True
            )
