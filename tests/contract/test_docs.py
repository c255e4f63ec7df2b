"""The documents against what they speak of: commands, targets, links, decisions, sections.

Run as a program it writes the command reference in docs/commands.md anew.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from platform_handlers.cli import root as byok
from vps_runtime.commands import cli as byok_vps

ROOT = Path(__file__).parents[2]
COMMANDS = ROOT / "docs" / "commands.md"
DECISIONS = ROOT / "docs" / "decisions"
MARK = "<!-- reference -->\n"
WIDTH = 80
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
SOURCES = sorted(
    path
    for folder in ("bus_schemas", "platform_handlers", "vps_runtime", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)


def commands() -> Iterator[tuple[str, click.Context]]:
    """Yield every command's whole name and the context its help is made in."""
    for name, command in (("byok", byok), ("byok-vps", byok_vps)):
        yield from below(name, command, None)


def below(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Context]]:
    """Yield *command* and what hangs under it."""
    context = click.Context(
        command,
        parent=parent,
        info_name=name.rpartition(" ")[2],
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )
    yield name, context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from below(f"{name} {child}", found, context)


def reference() -> str:
    """Return the command reference as docs/commands.md must have it."""
    sections = (
        f"### `{name}`\n\n```text\n{context.command.get_help(context).rstrip()}\n```\n"
        for name, context in commands()
    )
    return "\n" + "\n".join(sections)


NAMES = frozenset(name for name, _ in commands())
REFERENCE = reference()  # now: click keeps what a command's help is called by its first caller


def code_in(page: Path) -> str:
    """Return what *page* sets as code, fenced or not, joined by line breaks."""
    text = page.read_text("utf-8").partition(MARK)[0]
    inline = re.findall(r"`([^`]+)`", FENCED.sub("", text))
    return "\n".join([*FENCED.findall(text), *(" ".join(piece.split()) for piece in inline)])


def anchors(page: Path) -> set[str]:
    """Return the anchors of *page*'s headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def page_name(page: Path) -> str:
    """Return *page*'s path in the repository."""
    return page.relative_to(ROOT).as_posix()


def test_the_command_reference_is_what_the_commands_say() -> None:
    """Every command is documented with its own help, and none is invented."""
    assert COMMANDS.read_text("utf-8").partition(MARK)[2] == REFERENCE, (
        "run: .venv/bin/python tests/contract/test_docs.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_named_in_a_page_exist(page: Path) -> None:
    """A reader who copies a command must not be told that there is none."""
    for line in code_in(page).splitlines():
        found = re.match(r"(?:\.venv/bin/)?(byok(?:-vps)?)((?: +[^\s|#…]+)*)", line)
        if not found or line[found.end(1) : found.end(1) + 1] not in {"", " "}:
            continue  # `byok-bus`, `byok.v1.…`, `byok/seal/v1`
        name = found[1]
        for word in words_of_command(found[2].split()):
            group = any(known.startswith(f"{name} ") for known in NAMES)
            if not group:
                break
            if name == "byok-vps trust" and not word.islower():
                break  # `trust FP` is short for `trust add FP`
            name = f"{name} {word}"
            assert name in NAMES, f"{page_name(page)}: `{line.strip()}`"


def words_of_command(words: list[str]) -> Iterator[str]:
    """Yield the words that could name a command: options before them, with a value, left out."""
    rest = iter(words)
    for word in rest:
        if word in {"--state", "--bus"}:
            next(rest, None)
        elif not word.startswith("-"):
            yield word


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_make_targets_named_in_a_page_exist(page: Path) -> None:
    """The README's two commands are the first thing anybody tries."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for line in code_in(page).splitlines():
        found = re.match(r"make ([a-z]+)", line)
        assert found is None or found[1] in targets, f"{page_name(page)}: `{line}`"


def test_every_setting_is_in_the_table() -> None:
    """An environment variable that changes what a command does must be known."""
    real = {
        variable
        for _, context in commands()
        for option in context.command.params
        for variable in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or [])
    }
    real |= {
        variable
        for package in ("bus_schemas", "platform_handlers", "vps_runtime")
        for file in (ROOT / package).rglob("*.py")
        for variable in re.findall(r'environ\.get\("(BYOK_\w+)"', file.read_text("utf-8"))
    }
    documented = set(re.findall(r"^\| `(BYOK_\w+)`", COMMANDS.read_text("utf-8"), re.MULTILINE))
    assert documented == real


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_resolve(page: Path) -> None:
    """Every link within the repository leads to a file that is there, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page_name(page)}: {target}"
        assert ROOT in file.parents, f"{page_name(page)}: {target} leaves the repository"
        assert not anchor or anchor in anchors(file), f"{page_name(page)}: {target}"


def test_decisions_named_anywhere_exist() -> None:
    """`ADR-n` in a comment is worth something only if the page is there."""
    pages = {int(path.name[:4]) for path in DECISIONS.glob("[0-9]*.md")}
    assert pages == set(range(1, len(pages) + 1))
    for path in [*SOURCES, *PAGES]:
        # NATS numbers its own decisions the same way; those are named as NATS's.
        cited = re.findall(r"ADR-(\d+)\b(?! of NATS)", path.read_text("utf-8"))
        assert {int(number) for number in cited} <= pages, page_name(path)


def test_every_decision_is_in_the_index_under_its_own_title() -> None:
    """The index is how a stranger finds them."""
    index = (DECISIONS / "README.md").read_text("utf-8")
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        number = int(path.name[:4])
        title = path.read_text("utf-8").partition("\n")[0].removeprefix(f"# {number}. ")
        assert f"| {number} | [{title}]({path.name}) |" in index


@pytest.mark.parametrize("path", sorted(DECISIONS.glob("[0-9]*.md")), ids=page_name)
def test_a_decision_has_its_four_parts(path: Path) -> None:
    """A decision without its cost, or without a way to be proved wrong, is an opinion."""
    headings = re.findall(r"^## (.+)$", path.read_text("utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Cost", "How we would notice"]


def test_sections_cited_in_code_exist() -> None:
    """`docs/design.md, section 3` and `docs/protocol.md, "Unlock"` must lead somewhere."""
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    numbers = set(re.findall(r"^##+ ([0-9.]+?)\.? ", design, re.MULTILINE))
    protocol = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    headings = set(re.findall(r"^## (.+)$", protocol, re.MULTILINE))
    for path in [*SOURCES, *PAGES]:
        text = path.read_text("utf-8")
        cited = set(re.findall(r"docs/design\.md, section ([0-9]+(?:\.[0-9]+)?)", text))
        assert cited <= numbers, page_name(path)
        named = set(re.findall(r'docs/protocol\.md, "([^"]+)"', text))
        assert named <= headings, page_name(path)


if __name__ == "__main__":
    head = COMMANDS.read_text("utf-8").partition(MARK)[0]
    COMMANDS.write_text(head + MARK + reference(), "utf-8")
    sys.stdout.write(f"{COMMANDS} is written\n")
