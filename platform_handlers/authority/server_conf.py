"""The nats-server configuration, the same for the demo, the tests and production. Pure."""

from dataclasses import dataclass

_TEMPLATE = """\
# Made by `byok init`; the reasons for each line stand in deploy/nats/README.md.
server_name: {name}
listen: "{host}:{port}"
max_payload: 69632            # 64 KiB of envelope and its headers
max_control_line: 4096
write_deadline: "5s"
ping_interval: "20s"
lame_duck_duration: "30s"

tls {{
  cert_file: "{folder}/tls/server.pem"
  key_file: "{folder}/tls/server.key"
  handshake_first: true       # nothing is said in the clear, not even INFO
  min_version: "1.2"
  timeout: 5
}}

operator: "{folder}/operator.jwt"
system_account: {system_account}
resolver {{
  type: full
  dir: "{folder}/accounts"
  allow_delete: false
  interval: "2m"
}}

jetstream {{
  store_dir: "{folder}/store"
  max_mem: 64MB
  max_file: 32GB
  sync_interval: always       # a single node's ledger must not lose an acknowledged fact
  cipher: aes
  include "jetstream-key.conf"
}}
"""


@dataclass(frozen=True)
class BusAddress:
    """Where the server listens; port -1 lets the kernel choose (tests, demo)."""

    host: str
    port: int
    name: str = "byok-1"


def server_configuration(folder: str, address: BusAddress, *, system_account: str) -> str:
    """Return the text of nats-server.conf for an installation whose NATS files are in *folder*."""
    return _TEMPLATE.format(
        name=address.name,
        host=address.host,
        port=address.port,
        folder=folder,
        system_account=system_account,
    )


def jetstream_key_configuration(key: str) -> str:
    """Return the text of the one file that holds the JetStream encryption key."""
    return f'key: "{key}"\n'
