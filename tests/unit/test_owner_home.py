"""The owner's folder: a key that nobody else can read, and pins that stay."""

from pathlib import Path

import pytest

from bus_schemas.errors import Refused
from bus_schemas.orders import MAX_GAP
from platform_handlers.owner.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty folder."""
    return Home(tmp_path / "byok")


def test_the_owner_key_is_for_its_owner_only(home: Home) -> None:
    """0600 in a 0700 folder, and it is the same key when read back."""
    key = home.make_owner_key()
    assert home.key_file.stat().st_mode & 0o777 == 0o600
    assert home.folder.stat().st_mode & 0o777 == 0o700
    assert home.owner_key().private_bytes_raw() == key.private_bytes_raw()


def test_an_owner_key_is_never_replaced(home: Home) -> None:
    """Servers have pinned it; a second one would lock the owner out."""
    home.make_owner_key()
    before = home.key_file.read_bytes()
    with pytest.raises(Refused, match="owner_key_exists"):
        home.make_owner_key()
    assert home.key_file.read_bytes() == before


def test_a_key_that_others_may_read_is_not_used(home: Home) -> None:
    """The command that repairs it is named."""
    home.make_owner_key()
    home.key_file.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        home.owner_key()


@pytest.mark.parametrize("content", [b"", b"SECRET-CANARY", b"-----BEGIN PRIVATE KEY-----\nCANARY"])
def test_a_damaged_key_is_told_without_showing_it(home: Home, content: bytes) -> None:
    """Not a byte of the file is in the error."""
    home.make_owner_key()
    home.key_file.write_bytes(content)
    with pytest.raises(Refused, match="owner_key_damaged") as caught:
        home.owner_key()
    assert "CANARY" not in str(caught.value)


def test_a_missing_key_names_the_command_that_makes_one(home: Home) -> None:
    """A newcomer knows what to do."""
    with pytest.raises(Refused, match="byok owner keygen"):
        home.owner_key()


def test_pins_stay_until_they_are_forgotten(home: Home) -> None:
    """One server's pin does not touch another's."""
    assert home.pinned("acme-1") is None
    home.pin("acme-1", "A" * 20)
    home.pin("acme-2", "B" * 20)
    assert home.pinned("acme-1") == "A" * 20
    home.pin("acme-1", None)
    assert (home.pinned("acme-1"), home.pinned("acme-2")) == (None, "B" * 20)


def test_what_connect_keeps_is_found_again(home: Home) -> None:
    """The token lies in a 0600 file; the address says where."""
    with pytest.raises(Refused, match="byok owner connect"):
        home.address()
    home.connect("https://platform.example", b"CA", "TOKEN")
    address = home.address()
    assert (address.url, address.token()) == ("https://platform.example", "TOKEN")
    assert address.token_file.stat().st_mode & 0o777 == 0o600
    assert "TOKEN" not in repr(address)
    address.token_file.unlink()
    with pytest.raises(Refused, match="no_token"):
        address.token()


def test_damaged_settings_are_told(home: Home) -> None:
    """Never taken for "no pin": that would trust anybody."""
    home.folder.mkdir()
    (home.folder / "servers.toml").write_text("not toml")
    with pytest.raises(Refused, match="bad_settings"):
        home.pinned("acme-1")


def test_no_platform_makes_a_device_count_back(home: Home) -> None:
    """Else an order of today would come before one that was kept back yesterday."""
    numbers = [home.number_order("A" * 20, told) for told in (500, 600, 0, 601, 900)]
    assert numbers == [501, 601, 602, 603, 901]
    assert home.number_order("B" * 20, 0) == 1
    assert (home.folder / "orders.toml").stat().st_mode & 0o777 == 0o600


def test_no_platform_makes_a_device_count_out_of_reach(home: Home) -> None:
    """A server takes no number so far ahead; the owner is told what to do if it is true."""
    assert home.number_order("A" * 20, MAX_GAP) == MAX_GAP + 1
    with pytest.raises(Refused, match=r"number_too_high: .*orders\.toml"):
        home.number_order("A" * 20, 2 * MAX_GAP + 2)
    assert home.number_order("A" * 20, 0) == MAX_GAP + 2


@pytest.mark.parametrize("content", ["not toml", 'AAAAAAAAAAAAAAAAAAAA = "x"'])
def test_a_damaged_count_is_not_taken_for_none(home: Home, content: str) -> None:
    """Counting from 0 again is what it is there against."""
    home.folder.mkdir()
    (home.folder / "orders.toml").write_text(content)
    with pytest.raises(Refused, match="bad_settings"):
        home.number_order("A" * 20, 0)


def test_the_usual_place_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG Base Directory Specification."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert Home.default().folder == tmp_path / "byok"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert Home.default().folder == Path("~/.config/byok").expanduser()
