"""What both doctors print."""

import json

from bus_schemas.finding import Finding, Grade, report

FINDINGS = [
    Finding(Grade.OK, "bus", "answers"),
    Finding(Grade.BAD, "pins", "no owner key is obeyed"),
]


def test_people_get_a_line_for_each_finding() -> None:
    """Its grade comes first, so that the bad ones are seen."""
    assert [line.split()[0] for line in report(FINDINGS, as_json=False).splitlines()] == [
        "ok",
        "bad",
    ]


def test_machines_get_one_object() -> None:
    """Whether all is well stands apart from why."""
    told = json.loads(report(FINDINGS, as_json=True))
    assert told["well"] is False
    assert told["findings"][1] == {
        "grade": "bad",
        "check": "pins",
        "detail": "no owner key is obeyed",
    }
