"""Where an owner signs in."""

from bus_schemas.api import sign_in_link


def test_the_secret_stands_at_the_end_of_the_platforms_address() -> None:
    """Printed by a command, shown by the demo, opened by a browser: one address for all."""
    assert sign_in_link("https://byok.example", "abc") == "https://byok.example/login/abc"
