"""What OpenClaw is to be told, and what a running one's configuration shows."""

from pathlib import Path

from bus_schemas.finding import Grade
from bus_schemas.providers import load_providers
from vps_runtime.openclaw.config import (
    BUNDLED,
    ByExec,
    ByGateway,
    SlotToUse,
    name_of,
    needs_model,
    openclaw_config,
    secrets_plan,
)
from vps_runtime.openclaw.diagnosis import secrets_finding, slot_findings, version_finding

GATEWAY = ByGateway("http://127.0.0.1:8319", "byok-agent-made-up")
EXEC = ByExec(Path("/home/agent/bin/byok-resolver"), Path("/run/byok/resolver.sock"))
ANTHROPIC = SlotToUse("anthropic", "anthropic", "https://api.anthropic.com")
GROQ = SlotToUse("fast", "groq", "https://api.groq.com/openai/v1", ("llama",))


def test_a_provider_that_openclaw_knows_needs_an_address_and_a_token() -> None:
    """The rest it has itself, its models among it."""
    assert openclaw_config([ANTHROPIC], GATEWAY) == {
        "models": {
            "providers": {
                "anthropic": {
                    "baseUrl": "http://127.0.0.1:8319/anthropic",
                    "apiKey": "byok-agent-made-up",
                }
            }
        }
    }


def test_another_needs_a_dialect_and_models_as_well() -> None:
    """It has the provider's name if it is its only slot; the address names the slot."""
    assert openclaw_config([GROQ], GATEWAY)["models"]["providers"] == {
        "groq": {
            "baseUrl": "http://127.0.0.1:8319/fast",
            "apiKey": "byok-agent-made-up",
            "api": "openai-completions",
            "models": [{"id": "llama", "name": "llama"}],
        }
    }


def test_the_second_slot_of_a_provider_has_a_name_of_its_own_and_the_same_dialect() -> None:
    """OpenClaw knows one account of each provider by itself."""
    second = SlotToUse("anthropic-2", "anthropic", "https://api.anthropic.com")
    entries = openclaw_config([ANTHROPIC, second], GATEWAY)["models"]["providers"]
    assert set(entries) == {"anthropic", "anthropic-2"}
    assert entries["anthropic-2"]["api"] == "anthropic-messages"
    assert needs_model(second, [ANTHROPIC, second])
    assert not needs_model(ANTHROPIC, [ANTHROPIC, second])


def test_a_slot_never_takes_the_name_of_another_slot() -> None:
    """A slot may be called like a provider that it is not of."""
    confusing = SlotToUse("groq", "xai", "https://api.x.ai/v1")
    slots = [confusing, GROQ]
    assert name_of(GROQ, slots) == "fast"
    assert name_of(confusing, slots) == "xai"
    assert len({name_of(slot, slots) for slot in slots}) == 2


def test_by_exec_it_calls_the_provider_itself_with_the_key_of_a_profile() -> None:
    """No key stands in the configuration: a rotation would change it then."""
    config = openclaw_config([ANTHROPIC, GROQ], EXEC)
    entries = config["models"]["providers"]
    assert entries.keys() == {"groq"}  # OpenClaw knows the other one
    assert entries["groq"]["baseUrl"] == "https://api.groq.com/openai/v1"
    assert "apiKey" not in entries["groq"]
    assert config["auth"]["profiles"] == {
        "anthropic:byok": {"provider": "anthropic", "mode": "api_key"},
        "groq:byok": {"provider": "groq", "mode": "api_key"},
    }
    assert config["secrets"]["providers"]["byok"] == {
        "source": "exec",
        "command": "/home/agent/bin/byok-resolver",
        "trustedDirs": ["/home/agent/bin"],
        "timeoutMs": 5000,
        "jsonOnly": True,
        "env": {"BYOK_SOCKET": "/run/byok/resolver.sock"},
        "passEnv": ["BYOK_SETUP"],
    }


def test_the_plan_has_each_profile_ask_for_its_slot() -> None:
    """A SecretRef has exactly three keys. What is exchanged first is a token to OpenClaw."""
    copilot = SlotToUse("github-copilot", "github-copilot", "https://api.githubcopilot.com")
    asks, exchanged = secrets_plan([GROQ, copilot])["targets"]
    assert asks == {
        "type": "auth-profiles.api_key.key",
        "path": "profiles.groq:byok.key",
        "agentId": "main",
        "authProfileProvider": "groq",
        "ref": {"source": "exec", "provider": "byok", "id": "providers/fast/apiKey"},
    }
    assert exchanged["type"] == "auth-profiles.token.token"
    assert exchanged["path"] == "profiles.github-copilot:byok.token"
    told = openclaw_config([copilot], EXEC)["auth"]["profiles"]["github-copilot:byok"]
    assert told["mode"] == "token"


def test_every_provider_of_the_catalogue_can_be_told() -> None:
    """The names that OpenClaw knows are names of ours."""
    catalogue = load_providers()
    assert catalogue.keys() >= BUNDLED
    slots = [SlotToUse(name, name, one.base_url, ("m",)) for name, one in catalogue.items()]
    assert len(openclaw_config(slots, GATEWAY)["models"]["providers"]) == len(catalogue)


def test_the_token_shows_in_no_repr() -> None:
    """It is printed on purpose only."""
    assert "made-up" not in repr(GATEWAY)


def test_a_version_that_was_never_tried_is_a_warning() -> None:
    """Its rules have changed several times in a year."""
    assert version_finding("2026.9.6").grade is Grade.OK
    assert version_finding("2027.1.0").grade is Grade.WARN
    assert "unknown" in version_finding("").detail


def test_a_secret_that_openclaw_lacks_is_named() -> None:
    """Neither its readiness nor its health show it."""
    owner = {"ownerKind": "provider", "ownerId": "groq", "degradationState": "stale"}
    found = secrets_finding({"degradedSecretOwners": [owner]})
    assert found.grade is Grade.WARN
    assert "provider groq (stale)" in found.detail
    assert secrets_finding({}).grade is Grade.OK


def details(config: dict[str, object]) -> dict[str, Grade]:
    """Return what is found for the two slots above."""
    found = slot_findings(config, [ANTHROPIC, GROQ], GATEWAY.url)
    return {finding.detail: finding.grade for finding in found}


def test_a_configuration_as_it_was_printed_is_well() -> None:
    """By the gateway and by exec."""
    for way in (GATEWAY, EXEC):
        found = details({"parsed": openclaw_config([ANTHROPIC, GROQ], way)})
        assert set(found.values()) == {Grade.OK}
        assert len(found) == 2


def test_a_slot_that_nobody_uses_is_told() -> None:
    """Saved is not in use."""
    found = details({"parsed": {"models": {"providers": {"xai": {"apiKey": "x"}}}}})
    assert set(found.values()) == {Grade.WARN}
    assert any("fast is held and not used" in detail for detail in found)


def test_a_key_beside_ours_is_told() -> None:
    """Rotating here would not reach it."""
    parsed = openclaw_config([ANTHROPIC, GROQ], GATEWAY)
    parsed["models"]["providers"]["anthropic"] = {"apiKey": "__OPENCLAW_REDACTED__"}
    found = details({"parsed": parsed})
    assert list(found.values()).count(Grade.WARN) == 2
    assert any("has a key of its own" in detail for detail in found)


def test_an_address_that_only_begins_alike_is_not_ours() -> None:
    """`/fast-2` is not `/fast`."""
    parsed = openclaw_config([ANTHROPIC, GROQ], GATEWAY)
    parsed["models"]["providers"]["groq"]["baseUrl"] += "-2"
    assert any("fast is held and not used" in detail for detail in details({"parsed": parsed}))
