"""Subject templates: ids in, subjects out, and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from bus_schemas.catalog import catalog
from bus_schemas.codec import decode
from bus_schemas.errors import ContractError
from bus_schemas.fields import EpochId, OwnerId, ProviderId, ServerId, SlotId
from bus_schemas.subjects import SubjectTemplate

TWO = SubjectTemplate("byok.v1.sealed.{server_id}.{slot_id}")
BANNER = SubjectTemplate("byok.v1.banner.{owner_id}.{banner_id}")
TEMPLATES = sorted({event.template for event in catalog().values()}, key=lambda t: t.pattern)
IDS = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
KINDS: dict[str, Any] = {
    "owner": OwnerId,
    "server": ServerId,
    "slot": SlotId,
    "provider": ProviderId,
    "epoch": EpochId,
}
FORGED = (
    "",
    "*",
    ">",
    ".",
    "a.b",
    "a.>",
    "a b",
    "a\tb",
    "a\n",
    "\n",
    "a\0",
    "A",
    "a/b",
    "$JS",
    "{server_id}",
    "{{name()}}",
    "a" * 64,
    "a" * 300,
    "\u0430",  # Cyrillic
    "\uff41",  # full width
    "\u0131",  # dotless i
    "\u212a",  # Kelvin sign, which lower-cases to k
    "\u0661",  # Arabic digit
    "\u2010",  # hyphen
    "a\u200b",  # zero width space
    "a\u0301",  # combining accent
    "\U0001d41a",  # mathematical bold
)


def test_a_template_knows_its_holes_and_its_wildcard() -> None:
    """Streams and permissions are made from them."""
    assert TWO.names == ("server_id", "slot_id")
    assert TWO.wildcard == "byok.v1.sealed.*.*"
    assert SubjectTemplate("byok.v1.clock").names == ()


@given(data=st.data(), template=st.sampled_from(TEMPLATES))
def test_parsing_gives_back_what_was_filled_in(
    data: st.DataObject, template: SubjectTemplate
) -> None:
    """No two lists of ids share a subject."""
    ids = {name: data.draw(IDS) for name in template.names}
    subject = template.fill(ids)
    assert template.parse(subject) == ids
    assert subject.count(".") == template.pattern.count(".")


@given(text=st.text(), template=st.sampled_from(TEMPLATES))
def test_a_subject_that_parses_fills_to_itself(text: str, template: SubjectTemplate) -> None:
    """And whatever does not fit is refused as a contract error, nothing else."""
    subject = template.pattern.partition("{")[0] + text
    try:
        ids = template.parse(subject)
    except ContractError as error:
        assert error.reason == "wrong_subject"  # noqa: PT017 (either way is fine)
    else:
        assert template.fill(ids) == subject


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_id_never_becomes_part_of_a_subject(forged: str) -> None:
    """A wildcard, a dot or a look-alike would reach another server's subject."""
    for name in TWO.names:
        with pytest.raises(ContractError) as caught:
            TWO.fill({"server_id": "acme-1", "slot_id": "anthropic", name: forged})
        assert caught.value.reason == "bad_subject_id"
        assert str(caught.value) == f"bad_subject_id: an id does not fit {TWO.pattern}"


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_id_is_never_parsed_out_of_a_subject(forged: str) -> None:
    """Readers take ids from subjects, so a subject is checked as strictly as data."""
    for subject in (f"byok.v1.sealed.{forged}.anthropic", f"byok.v1.sealed.acme-1.{forged}"):
        with pytest.raises(ContractError, match=r"^wrong_subject: expected byok\.v1\.sealed"):
            TWO.parse(subject)


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_id_is_refused_in_every_field(kind: str, forged: str) -> None:
    """The same rule where ids are stored as where they become subjects."""
    with pytest.raises(ValidationError):
        TypeAdapter(KINDS[kind]).validate_python(forged)


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_subject_is_refused_by_the_codec(forged: str) -> None:
    """What stands in the subject never reaches a handler unchecked."""
    with pytest.raises(ContractError):
        decode(b"{}", f"byok.v1.fingerprint.{forged}")


def test_a_banner_id_may_hold_underscores_and_other_ids_not() -> None:
    """It joins a server, a slot and a code; only its own token is that wide."""
    banner = {"owner_id": "acme", "banner_id": "acme-1__server_silent"}
    assert BANNER.parse(BANNER.fill(banner)) == banner
    with pytest.raises(ContractError):
        BANNER.fill({"owner_id": "ac_me", "banner_id": "x"})
    with pytest.raises(ContractError):
        BANNER.fill({"owner_id": "acme", "banner_id": "x" * 161})


def test_a_missing_id_is_a_bug_of_the_caller() -> None:
    """It is no message's fault, so it must not be parked."""
    with pytest.raises(KeyError):
        TWO.fill({"server_id": "acme-1"})


def test_permissions_get_tokens_unchecked_and_stars_elsewhere() -> None:
    """NATS puts the user's own name in the place of the template's word."""
    assert TWO.rewrite(server_id="{{name()}}") == "byok.v1.sealed.{{name()}}.*"
