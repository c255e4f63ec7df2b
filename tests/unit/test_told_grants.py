"""Which tags of a sign-in with several refresh tokens are still to be told."""

from bus_schemas.fields import Basis, CredentialKind
from vps_runtime.facts.told import TagKey, missing_tags, outgrown_tags, settled, short_tag
from vps_runtime.vault.credentials import Held

ROTATION = "01890000-0000-7000-8000-000000000001"
BASES = (Basis.OAUTH_GRANT, Basis.OAUTH_ACCOUNT)


def sign_in(*grants: int, slot: str = "openai", revision: int = 1) -> Held:
    """Return a held sign-in."""
    kind = CredentialKind.OAUTH
    return Held(slot, revision, "openai", kind, ROTATION, 9, BASES, grants)


def told_of(held: Held, *epochs: str) -> dict[str, str]:
    """Return the memory once all its tags are told: each the number of its grant."""
    return {tag.key: f"{tag.grant:08x}" for tag in missing_tags([held], epochs, {})}


def test_every_refresh_token_has_a_tag_of_its_own() -> None:
    """Oldest first, so that the platform takes the newest for the one in use; one account."""
    tags = missing_tags([sign_in(3, 4, 5)], ["e1"], {})
    assert [(tag.basis, tag.grant) for tag in tags] == [
        (Basis.OAUTH_GRANT, 3),
        (Basis.OAUTH_GRANT, 4),
        (Basis.OAUTH_GRANT, 5),
        (Basis.OAUTH_ACCOUNT, 0),
    ]
    assert len({tag.key for tag in tags}) == 4


def test_after_a_refresh_only_the_new_tag_is_missing() -> None:
    """Under each epoch; until it is told the sign-in is not settled."""
    told = told_of(sign_in(0, 1), "e1")
    after = sign_in(0, 1, 2)
    assert [tag.grant for tag in missing_tags([after], ["e1"], told)] == [2]
    assert settled([after], "e1", told) == []
    told |= told_of(after, "e1")
    assert settled([after], "e1", told) == [after]
    assert [tag.grant for tag in missing_tags([after], ["e2"], told)] == [0, 1, 2, 0]


def test_what_the_vault_forgot_the_memory_forgets() -> None:
    """Else it would grow by a line an hour; accounts, other slots and other keys stay."""
    told = told_of(sign_in(0, 1, 2), "e1", "e2") | told_of(sign_in(0, slot="xai"), "e1")
    told |= {"pins": "", "last/openai": "1", TagKey("a", 1, "e1", Basis.API_KEY).key: "1"}
    assert outgrown_tags([sign_in(0, 1, 2), sign_in(0, slot="xai")], told) == []
    gone = outgrown_tags([sign_in(2, 3), sign_in(0, slot="xai")], told)
    assert sorted(gone) == sorted(
        TagKey("openai", 1, epoch, Basis.OAUTH_GRANT, grant).key
        for epoch in ("e1", "e2")
        for grant in (0, 1)
    )


def test_the_short_tag_is_of_the_token_in_use() -> None:
    """None until it is told: an earlier one would name a token that is gone."""
    held = sign_in(0, 1)
    told = told_of(held, "e1")
    assert short_tag(held, told) == "00000001"
    assert short_tag(sign_in(0, 1, 2), told) is None
    assert short_tag(held, {}) is None
    assert short_tag(sign_in(0, revision=2), told) is None
    assert short_tag(held, told | {TagKey("openai", 1, "e2", BASES[0], 1).key: "ffffffff"}) == (
        "ffffffff"
    )


def test_an_api_key_goes_by_its_own_tag() -> None:
    """A memory of before tags were kept has none to show."""
    held = Held("a", 1, "a", CredentialKind.API_KEY, ROTATION, 9, (Basis.API_KEY,))
    key = TagKey("a", 1, "e1", Basis.API_KEY).key
    assert short_tag(held, {key: "0123abcd"}) == "0123abcd"
    assert short_tag(held, {key: "1"}) is None
