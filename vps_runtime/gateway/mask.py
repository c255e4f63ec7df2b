"""Takes the key out of what a provider says about it: a refusal is what agents log. Pure."""


class Mask:
    """Stars in place of a secret in a stream of bytes, whose length it keeps."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._stars = b"*" * len(self._secret)
        self._kept = b""

    def feed(self, part: bytes) -> bytes:
        """Return what can be passed on; what may be the beginning of the secret is kept back."""
        whole = (self._kept + part).replace(self._secret, self._stars)
        cut = len(whole) - self._beginning_at_the_end(whole)
        self._kept = whole[cut:]
        return whole[:cut]

    def rest(self) -> bytes:
        """Return what was kept back, once nothing more comes."""
        rest, self._kept = self._kept, b""
        return rest

    def _beginning_at_the_end(self, whole: bytes) -> int:
        longest = min(len(self._secret) - 1, len(whole))
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if whole.endswith(self._secret[:n])), 0)
