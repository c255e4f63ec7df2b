"""ristretto255 (RFC 9496), slow and plain: a second implementation for the tests only.

Edwards points in extended coordinates (X : Y : Z : T). Nothing here runs in constant time, so
nothing here may ever see a real secret.
"""

from dataclasses import dataclass
from typing import Final, Self

P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Of the group, RFC 9496 section 4."""

_D: Final = -121665 * pow(121666, -1, P) % P
_SQRT_M1: Final = pow(2, (P - 1) // 4, P)


def _is_negative(value: int) -> bool:
    return value % P % 2 == 1


def _absolute(value: int) -> int:
    return -value % P if _is_negative(value) else value % P


def _sqrt_ratio(u: int, v: int) -> tuple[bool, int]:
    """Return whether u/v is a square, and the root of u/v or of i*u/v (section 4.2)."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check = v * r * r % P
    flipped = check == -u % P
    if flipped or check == -u * _SQRT_M1 % P:
        r = r * _SQRT_M1 % P
    return check == u % P or flipped, _absolute(r)


_SQRT_AD_MINUS_ONE: Final = (
    25063068953384623474111414158702152701244531502492656460079210482610430750235
)
_INVSQRT_A_MINUS_D: Final = _sqrt_ratio(1, (-1 - _D) % P)[1]


@dataclass(frozen=True)
class Element:
    """One element of the group."""

    x: int
    y: int
    z: int
    t: int

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the element of 32 bytes (section 4.3.1). Raises ValueError."""
        s = int.from_bytes(raw, "little")
        if len(raw) != 32 or s >= P or _is_negative(s):
            raise ValueError("not canonical")
        u1, u2 = (1 - s * s) % P, (1 + s * s) % P
        v = (-_D * u1 * u1 - u2 * u2) % P
        square, inverse = _sqrt_ratio(1, v * u2 * u2 % P)
        dx = inverse * u2 % P
        x = _absolute(2 * s * dx)
        y = u1 * inverse * dx * v % P
        if not square or _is_negative(x * y) or y == 0:
            raise ValueError("no element")
        return cls(x, y, 1, x * y % P)

    def encode(self) -> bytes:
        """Return its 32 bytes (section 4.3.2)."""
        u1 = (self.z + self.y) * (self.z - self.y) % P
        u2 = self.x * self.y % P
        _, inverse = _sqrt_ratio(1, u1 * u2 * u2 % P)
        d1, d2 = u1 * inverse % P, u2 * inverse % P
        z_inverse = d1 * d2 * self.t % P
        x, y, d = self.x, self.y, d2
        if _is_negative(self.t * z_inverse):
            x, y = self.y * _SQRT_M1 % P, self.x * _SQRT_M1 % P
            d = d1 * _INVSQRT_A_MINUS_D % P
        if _is_negative(x * z_inverse):
            y = -y
        return _absolute(d * (self.z - y)).to_bytes(32, "little")

    def __add__(self, other: "Element") -> "Element":
        a = (self.y - self.x) * (other.y - other.x) % P
        b = (self.y + self.x) * (other.y + other.x) % P
        c = 2 * self.t * other.t * _D % P
        d = 2 * self.z * other.z % P
        e, f, g, h = b - a, d - c, d + c, b + a
        return Element(e * f % P, g * h % P, f * g % P, e * h % P)

    def __mul__(self, scalar: int) -> "Element":
        total, power = IDENTITY, self
        for bit in range((scalar % ORDER).bit_length()):
            if scalar % ORDER >> bit & 1:
                total += power
            power += power
        return total


IDENTITY: Final = Element(0, 1, 1, 0)


def from_uniform(raw: bytes) -> Element:
    """Return the element of 64 uniform bytes (section 4.3.4)."""
    return _map(raw[:32]) + _map(raw[32:])


def _map(half: bytes) -> Element:
    t = int.from_bytes(half, "little") % 2**255 % P
    r = _SQRT_M1 * t * t % P
    u = (r + 1) * (1 - _D * _D) % P
    v = (-1 - r * _D) * (r + _D) % P
    square, s = _sqrt_ratio(u, v)
    c = -1 % P
    if not square:
        s, c = -_absolute(s * t) % P, r
    n = (c * (r - 1) * (_D - 1) ** 2 - v) % P
    w0, w1 = 2 * s * v % P, n * _SQRT_AD_MINUS_ONE % P
    w2, w3 = (1 - s * s) % P, (1 + s * s) % P
    return Element(w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P)


GENERATOR: Final = Element.decode(
    bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76")
)
