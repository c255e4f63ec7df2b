"""Files of a service, written by itself or by root beside it."""

import os
from pathlib import Path

import pytest

from bus_schemas.flows import Role
from bus_schemas.transport.database import open_database
from bus_schemas.transport.private_files import PUBLIC, write_private
from platform_handlers.authority.installation import Installation


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """A private file is 0600 and a public one 0644, under any umask."""
    before = os.umask(0o077)
    try:
        write_private(tmp_path / "private", b"x")
        write_private(tmp_path / "public", b"x", PUBLIC)
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


async def test_what_root_writes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """A command run by root must leave no file that the service's uid cannot read.

    Run by anybody else, the folder's owner and the file's are one and the same.
    """
    service = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, service, -1)
    write_private(tmp_path / "file", b"x")
    database = await open_database(tmp_path / "some.db", "CREATE TABLE t (a TEXT) STRICT;")
    await database.close()
    assert owners(tmp_path) == {service}


def owners(folder: Path) -> set[int]:
    """Return whom the files in *folder* belong to."""
    return {path.stat().st_uid for path in folder.iterdir()}


def test_a_credential_handed_over_by_systemd_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit reads its own copy, which it alone was given, and never needs the folder of all."""
    installation = Installation(tmp_path / "byok")
    own = installation.root / "roles" / "issuer.creds"
    assert installation.credentials(Role.ISSUER) == own
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert installation.credentials(Role.ISSUER) == own
    (tmp_path / "issuer.creds").touch()
    (tmp_path / "system.creds").touch()
    assert installation.credentials(Role.ISSUER) == tmp_path / "issuer.creds"
    assert installation.system_credentials == tmp_path / "system.creds"
    assert installation.credentials(Role.EVALUATOR).parent == own.parent
