"""The vault on a real disk: whole files or none."""

import errno
import os
import stat
from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from vps_runtime.vault.record import RecordName
from vps_runtime.vault.root_file import RootFile, read_root_file, write_root_file
from vps_runtime.vault.store import DiskFull, Vault, write_atomically

NAME = RecordName("server-1", "anthropic", 7)
STATE = RootFile(server_id="server-1", g=41, share=b"\x05" * 32, wrapped_root=b"\x06" * 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the vault will be."""
    return tmp_path / "vault"


@pytest.fixture
def vault(folder: Path) -> Vault:
    """An empty vault."""
    return Vault(folder, "server-1")


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_is_read(vault: Vault, folder: Path) -> None:
    """A record must come back as it was written, and replace the one before."""
    vault.write(NAME, b"old")
    vault.write(NAME, b"new")
    assert vault.read(NAME) == b"new"
    assert [path.name for path in folder.iterdir()] == ["anthropic.7.vault"]


def test_only_the_runtime_may_look(vault: Vault, folder: Path) -> None:
    """Files are 0600 in a 0700 folder, whatever the umask."""
    before = os.umask(0)
    try:
        vault.write(NAME, b"x")
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert mode(folder / "anthropic.7.vault") == 0o600


def test_names_lists_records_only(vault: Vault, folder: Path) -> None:
    """Temporary and foreign files are no records; the order is by slot, then by number."""
    names = [NAME, RecordName("server-1", "anthropic", 10), RecordName("server-1", "_tags", 1)]
    for name in names:
        vault.write(name, b"x")
    for other in ("notes.txt", ".anthropic.8.vault.0.tmp", "anthropic.07.vault", "a.b.1.vault"):
        (folder / other).write_bytes(b"x")
    assert vault.names() == [names[2], names[0], names[1]]


def test_removing_is_final_and_repeatable(vault: Vault) -> None:
    """A removed record is gone, and removing it again is fine."""
    vault.write(NAME, b"x")
    vault.remove(NAME)
    vault.remove(NAME)
    assert vault.names() == []
    with pytest.raises(FileNotFoundError):
        vault.read(NAME)


def test_another_servers_record_has_no_place(vault: Vault) -> None:
    """A vault belongs to one server."""
    with pytest.raises(ValueError, match="server-2"):
        vault.read(RecordName("server-2", "anthropic", 7))


def test_sweep_takes_half_written_files_only(vault: Vault, folder: Path) -> None:
    """What a crash left behind goes away; records stay."""
    vault.write(NAME, b"x")
    (folder / ".anthropic.8.vault.0.tmp").write_bytes(b"half")
    vault.sweep()
    assert [path.name for path in folder.iterdir()] == ["anthropic.7.vault"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_record(
    vault: Vault, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Without space the old record is whole, nothing half-written stays, and the error says so."""
    vault.write(NAME, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match=r"disk full: anthropic\.7\.vault .* retry"):
            vault.write(NAME, b"new")
    assert vault.read(NAME) == b"old"
    assert [path.name for path in folder.iterdir()] == ["anthropic.7.vault"]


def test_the_kernels_own_full_disk_is_recognised(
    vault: Vault, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a real full device must be the one the vault knows."""
    real_open = os.open

    def open_full(path: Path, flags: int, mode: int = 0o777) -> int:
        return real_open("/dev/full", os.O_WRONLY) if flags & os.O_CREAT else real_open(path, flags)

    monkeypatch.setattr(os, "open", open_full)
    with pytest.raises(DiskFull):
        vault.write(NAME, b"new")
    assert list(folder.iterdir()) == []


def test_other_trouble_is_passed_on(folder: Path, vault: Vault) -> None:
    """An error that is not about space stays what it is, and leaves no temporary file."""
    (folder / "anthropic.7.vault").mkdir()
    with pytest.raises(IsADirectoryError):
        vault.write(NAME, b"new")
    assert [path.name for path in folder.iterdir()] == ["anthropic.7.vault"]


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the rename the old file is the file."""
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def crash(_self: Path, _target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_the_root_file_comes_back(tmp_path: Path) -> None:
    """Share, generation and wrapped root key must come back as written, for the runtime only."""
    path = tmp_path / "root.json"
    write_root_file(path, STATE)
    assert read_root_file(path) == STATE
    assert mode(path) == 0o600


def test_the_share_is_not_shown() -> None:
    """The share is half of a key: it stays out of logs."""
    assert "share" not in repr(STATE)


@pytest.mark.parametrize("raw", [b"", b"{}", STATE.model_dump_json().encode()[:-2]])
def test_a_damaged_root_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    """A damaged state is said to be damaged, without a byte of it."""
    path = tmp_path / "root.json"
    path.write_bytes(raw)
    with pytest.raises(Refused, match=r"root_file_damaged: root\.json") as caught:
        read_root_file(path)
    assert caught.value.__context__ is None


def test_a_missing_root_file_is_missing(tmp_path: Path) -> None:
    """A server that was never unlocked has no state; that is not damage."""
    with pytest.raises(FileNotFoundError):
        read_root_file(tmp_path / "root.json")
