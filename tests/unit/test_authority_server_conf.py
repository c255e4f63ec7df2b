"""The nats-server configuration as text; that it starts is shown by every integration test."""

from platform_handlers.authority.server_conf import (
    BusAddress,
    jetstream_key_configuration,
    server_configuration,
)

TEXT = server_configuration(
    "/srv/byok/nats",
    BusAddress("192.0.2.1", 4222, "byok-2"),
    system_account="ASYS",
)


def test_tls_comes_before_everything() -> None:
    """Not even the server's greeting is sent in the clear."""
    assert "handshake_first: true" in TEXT
    assert 'min_version: "1.2"' in TEXT
    assert 'cert_file: "/srv/byok/nats/tls/server.pem"' in TEXT
    assert "verify: false" not in TEXT
    assert "no_tls" not in TEXT


def test_accounts_come_from_jwts_only() -> None:
    """No user, password or default account stands in the file."""
    assert 'operator: "/srv/byok/nats/operator.jwt"' in TEXT
    assert "system_account: ASYS" in TEXT
    assert "type: full" in TEXT
    for word in ("no_auth_user", "password", "authorization", "users"):
        assert word not in TEXT


def test_the_store_is_encrypted_with_a_key_from_another_file() -> None:
    """So that the configuration may be read and copied."""
    assert "cipher: aes" in TEXT
    assert 'include "jetstream-key.conf"' in TEXT
    assert "sync_interval: always" in TEXT
    assert jetstream_key_configuration("secret") == 'key: "secret"\n'


def test_the_address_and_name_are_the_given_ones() -> None:
    """Port -1 lets the kernel choose."""
    assert 'listen: "192.0.2.1:4222"' in TEXT
    assert "server_name: byok-2" in TEXT
    free = server_configuration("/x", BusAddress("127.0.0.1", -1), system_account="A")
    assert 'listen: "127.0.0.1:-1"' in free


def test_no_monitoring_port_is_open() -> None:
    """It would tell names and subjects to anybody, without TLS."""
    assert "http" not in TEXT
    assert "max_payload: 69632" in TEXT
