"""The runbooks name tests that are there: a runbook nobody plays is a hope."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "runbooks.md").read_text("utf-8"), flags=re.MULTILINE)
TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("section", SECTIONS[1:], ids=lambda section: section.partition("\n")[0])
def test_each_runbook_names_tests_that_exist(section: str) -> None:
    """A test that is renamed or removed takes its runbook's promise with it."""
    named = set(re.findall(r"`(test_\w+)`", section))
    assert named
    assert named <= TESTS
