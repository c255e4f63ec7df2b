"""The units in deploy/systemd, by systemd's own judgement and by what the code needs."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from bus_schemas.exit_codes import ExitCode
from bus_schemas.flows import Role
from platform_handlers.authority.initialise import CORE_ROLES

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
WORST = 1.5
ENVIRONMENT = {**os.environ, "SYSTEMD_PAGER": "cat", "SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"}

units = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run systemd-analyze, which needs no running systemd for what is asked here."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )


def exposure(unit: Path) -> "subprocess.CompletedProcess[str]":
    """Have *unit* judged; the exit code says whether it is above what we allow."""
    allowed = f"--threshold={WORST * 10:.0f}"  # in tenths
    return analyze("security", "--offline=yes", allowed, str(unit))


def settings(unit: Path) -> dict[str, list[str]]:
    """Return the lines of *unit* by name, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@units
def test_a_unit_is_hardly_exposed(unit: Path) -> None:
    """`systemd-analyze security` must give it 1.5 or less, of ten."""
    judged = exposure(unit)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    [score] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
    assert float(score) <= WORST


def test_a_softer_unit_would_be_noticed(tmp_path: Path) -> None:
    """The judgement is worth something: without its system call filter the agent's unit fails."""
    lines = (FOLDER / "byok-vps.service").read_text().splitlines()
    softer = tmp_path / "byok-vps.service"
    softer.write_text("\n".join(line for line in lines if "SystemCallFilter" not in line))
    assert exposure(softer).returncode == 1


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing: no misspelt name, no value that is passed over."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("byok", "byok-vps"):
        (commands / name).touch(0o755)
    for unit in UNITS:  # the commands are where they are installed, which is not here
        text = unit.read_text().replace("/opt/byok/.venv/bin", str(commands))
        (tmp_path / unit.name).write_text(text)
    judged = analyze("verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS))
    assert (judged.returncode, judged.stdout + judged.stderr) == (0, "")


@units
def test_keys_stay_out_of_files(unit: Path) -> None:
    """No core file, no swap, and memory that is hidden from the kernel for who holds a root key."""
    found = settings(unit)
    assert found["LimitCORE"] == ["0"]
    assert found["MemorySwapMax"] == ["0"]
    if unit.stem == "byok-vps":
        assert "memfd_secret" in found["SystemCallFilter"][0].split()
        assert found["LimitMEMLOCK"] == ["1M"]


@units
def test_work_that_stands_still_is_started_anew(unit: Path) -> None:
    """Whoever pings out of its work has a watchdog; all say themselves when they are ready."""
    found = settings(unit)
    assert found["Type"] == ["notify"]
    assert found["NotifyAccess"] == ["main"]
    assert ("WatchdogSec" in found) == (unit.stem != "byok-nats")
    assert found["Restart"] == ["on-failure"]


@units
def test_what_a_person_must_mend_is_not_tried_for_ever(unit: Path) -> None:
    """The exit codes are those of docs/commands.md; a bus that is away (69) is none of them."""
    person = {ExitCode.USAGE, ExitCode.DENIED, ExitCode.CONFIG}
    [codes] = settings(unit)["RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} <= person


@units
def test_each_process_has_a_uid_of_its_own(unit: Path) -> None:
    """No unit shares its user, and the users are made by the files beside the units."""
    made = re.findall(
        r"^u (\S+)", "".join(p.read_text() for p in FOLDER.glob("*.sysusers.conf")), re.MULTILINE
    )
    assert settings(unit)["User"] == settings(unit)["Group"] == [unit.stem]
    assert unit.stem in made


def test_a_credential_is_handed_to_its_one_user() -> None:
    """Each role goes to the process that plays it, and the operators' role to none."""
    handed = {
        unit.stem: {line.partition(".creds:")[0] for line in settings(unit)["LoadCredential"]}
        for unit in UNITS
        if "LoadCredential" in settings(unit)
    }
    roles = {role.value for role in CORE_ROLES}
    others = {Role.EVALUATOR.value, Role.SETUP.value, Role.OPS.value}
    assert handed == {
        "byok-platform": (roles - others) | {"system"},
        "byok-evaluator": {Role.EVALUATOR.value},
        "byok-nats": {Role.SETUP.value},
    }


def test_systemd_understands_the_users(tmp_path: Path) -> None:
    """`systemd-sysusers` takes the files as they are and makes each of their users."""
    for path in FOLDER.glob("*.sysusers.conf"):
        made = subprocess.run(
            ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", "-"],
            input=path.read_text(),
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = re.findall(r"^u (\S+)", path.read_text(), re.MULTILINE)
        assert re.findall(r"Creating user '?([\w-]+)", made.stderr + made.stdout) == wanted


def test_the_page_names_every_file_and_no_other() -> None:
    """Whoever follows README.md installs what is there, and all of it."""
    page = (FOLDER / "README.md").read_text()
    named = set(re.findall(r"byok-[a-z]+\.(?:service|sysusers\.conf|tmpfiles\.conf)", page))
    assert named == {path.name for path in FOLDER.iterdir() if path.suffix != ".md"}
