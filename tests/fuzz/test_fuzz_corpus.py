"""Every fuzz target in the suite: its seeds, what was ever found, and hypothesis' own mutations."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import CORPUS, PAGE, RESULT, shown
from tests.fuzz.targets import TARGETS, Target

each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_seeds_and_old_findings_pass(target: Target) -> None:
    """A seed is good, and what once broke a parser never breaks it again."""
    for seed in target.seeds():
        target.run(seed)
    for finding in sorted((CORPUS / target.name).glob("*")):
        target.run(finding.read_bytes())


@each_target
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutations_are_refused_or_mean_the_same(target: Target, data: st.DataObject) -> None:
    """Bytes changed, cut, doubled or made up: refused in the contract's words, or harmless."""
    seed = data.draw(st.sampled_from(sorted(target.seeds())))
    at = data.draw(st.integers(0, len(seed)))
    gone = data.draw(st.integers(0, 40))
    target.run(seed[:at] + data.draw(st.binary(max_size=40)) + seed[at + gone :])


def test_the_last_long_run_covered_every_target() -> None:
    """`make fuzz` ran all of today's targets, ten million inputs in all, with no finding."""
    rows = json.loads(RESULT.read_text())["targets"]
    assert [row["target"] for row in rows] == [target.name for target in TARGETS]
    assert sum(row["inputs"] for row in rows) >= 10_000_000
    assert not any(row["findings"] for row in rows)


def test_the_security_page_shows_the_last_long_run() -> None:
    """Nobody edits the figures by hand."""
    page = PAGE.read_text("utf-8")
    assert f"{json.loads(RESULT.read_text())['day']}," in page
    assert shown(page) == page
