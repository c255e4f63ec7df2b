"""One supervised TLS connection to the bus.

nats-py closes a client for good when its JWT expires or is revoked, so the client is rebuilt
here, with fresh credentials, jittered back-off and the same subscriptions. Plain connections do
not exist: the address must be `tls://` and the handshake comes before the first byte.
"""

import asyncio
import base64
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from bus_schemas.transport.back_off import BackOff
from bus_schemas.transport.credentials import Credentials
from bus_schemas.transport.nats_manners import (
    FIRST_DELAY,
    LONGEST_DELAY,
    LONGEST_REFUSED_DELAY,
    SturdyClient,
    ended,
    is_useful,
    jittered,
    shut,
)
from bus_schemas.transport.pulse import watched
from bus_schemas.transport.retiring import Retiring
from bus_schemas.transport.target import (
    BusDenied,
    BusTarget,
    BusUnavailable,
    TokenRefused,
    explained,
    tls_context,
)
from bus_schemas.transport.wake import woken

_log = structlog.get_logger(__name__)

_CONNECT_SECONDS = 10
_FLUSH_SECONDS = 5

_STUCK_SECONDS = 120.0
"""A listener that took no step for so long is stuck (`pulse`), and holds up what comes after."""

Listener = Callable[[Msg], Coroutine[Any, Any, None]]
_T = TypeVar("_T")


class Bus:
    """A connection that outlives servers, tokens and networks until it is closed."""

    def __init__(
        self,
        target: BusTarget,
        name: str,
        credentials: Callable[[], Credentials],
        *,
        api: str = "$JS.API",
    ) -> None:
        """*name* is the NATS user's name: its inboxes are `_INBOX.<name>.>` and no other's.

        *api* is the prefix under which its account reaches JetStream (`flows.Role.api`).
        """
        self.api = api
        self._target = target
        self.name = name
        self._credentials = credentials
        self._client: Client | None = None
        self._building = asyncio.Lock()
        self._retiring = Retiring()
        self._listeners: list[tuple[str, str, Listener]] = []
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._hurry = asyncio.Event()
        self._closing = False
        self._rebuilding: asyncio.Task[None] | None = None
        self._on_ready: list[Callable[[], None]] = []
        self._said = ""
        self.trouble: BusUnavailable | BusDenied | None = None
        """Why the last attempt to connect failed; None since one succeeded."""
        logging.getLogger("asyncio").addFilter(is_useful)

    @property
    def target(self) -> BusTarget:
        """Where the bus is and whom to trust there."""
        return self._target

    @property
    def connected(self) -> bool:
        """Whether a request could be sent right now."""
        return self._ready.is_set()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call *callback* whenever the connection is (again) usable."""
        self._on_ready.append(callback)

    async def open(self) -> "Bus":
        """Connect once. Raises BusUnavailable or BusDenied with one clear sentence."""
        await self._adopt(await self._build())
        return self

    def open_in_background(self) -> "Bus":
        """Keep trying to connect; use `request` at once, it waits."""
        self._rebuilding = asyncio.create_task(self._rebuild(), name=f"bus {self.name}")
        return self

    async def close(self) -> None:
        """Send what is still buffered, then close for good."""
        self._closing = True
        if self._rebuilding:
            self._rebuilding.cancel()
            await asyncio.wait({self._rebuilding})
        client, self._client = self._client, None
        self._became_lost()
        await self._retiring.close()
        if client:
            await shut(client)

    async def request(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, wait: float
    ) -> Msg:
        """Send a request and return its reply, all within *wait* seconds.

        Raises BusUnavailable: nobody answered in time. The request may still have been heard.
        """
        try:
            async with asyncio.timeout(wait):
                client = await self.client()
                asking = client.request(subject, payload, timeout=wait, headers=headers)
                with self._retiring.in_flight(client):
                    return await self.while_connected(asking)
        except (TimeoutError, nats.errors.Error, ConnectionError, OSError) as error:
            raise BusUnavailable(f"no answer on {subject}: {type(error).__name__}") from error

    async def while_connected(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what *work* returns. Raises BusUnavailable as soon as the connection is lost.

        What was asked before an outage is never answered after it; else one would wait in vain.
        A task of its own, since `asyncio.wait_for` of Python 3.11, which nats-py uses, forgets a
        cancellation that comes in the same moment as the result.
        """
        asking, losing = asyncio.create_task(work), asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait({asking, losing}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise BusUnavailable(f"the connection to {self._target.url} was lost")
        finally:
            asking.cancel()
            losing.cancel()

    async def client(self) -> Client:
        """Return the live client, waiting until there is one."""
        while True:
            await self._ready.wait()
            if self._client is not None:
                return self._client

    async def listen(self, subject: str, listener: Listener, *, queue: str = "") -> None:
        """Subscribe now and after every rebuild; on return the server knows, if it is there."""

        async def heard(message: Msg) -> None:
            work, name = listener(message), f"listener on {subject}"
            await watched(name, work, within=_STUCK_SECONDS, needs=self, ends=True)

        self._listeners.append((subject, queue, heard))
        if self._client is not None:
            await self._client.subscribe(subject, queue=queue, cb=heard)
            await _heard(self._client)

    async def renew(self) -> None:
        """Sign in anew with the current credentials, without losing a message.

        The new connection is there before the old one goes, which stays until its requests are
        answered; for that moment a listener may hear a message twice, and what was sent without
        waiting for an answer may arrive out of order. Raises BusUnavailable or BusDenied: then
        what there was goes on. While there is no client, the next attempt to build one comes at
        once.
        """
        self._hurry.set()
        async with self._building:
            old = self._client
            if old is None or self._closing:
                return
            client = await self._build()
            if self._closing:
                await shut(client)
                return
            await self._adopt(client)
        self._retiring.retire(old)

    async def _build(self) -> Client:
        if not self._target.url.startswith("tls://"):
            raise BusDenied(f"refusing {self._target.url}: the bus is spoken over tls:// only")
        context = tls_context(self._target.ca_file)
        client = SturdyClient(lambda: tls_context(self._target.ca_file))
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not failed.done():  # whoever connects is told, in a sentence
                failed.set_exception(error)
            elif self._client is client:
                self._say("bus_error", _gist(error))

        connecting = asyncio.create_task(self._connect(client, context, on_error))
        try:
            await asyncio.wait(
                {connecting, failed}, timeout=_CONNECT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if connecting.done() and not connecting.exception():
                failed.cancel()
                if client.is_closed:  # too early for `closed` to know the client as ours
                    raise BusUnavailable(f"{self._target.url} ended the connection at once")
                return client
            error = _first_error(connecting, failed)
        finally:
            await ended(connecting)
            if failed.done() and not failed.cancelled():
                failed.exception()  # heard, also where we were cancelled and do not raise it
        await shut(client)
        raise explained(error, self._target) from error

    async def _connect(
        self, client: Client, context: ssl.SSLContext, on_error: Callable[[Exception], Any]
    ) -> None:
        credentials = self._credentials  # asked at every sign-in: tokens are renewed

        # Each only as long as *client* is ours: one that comes back while it is being closed
        # must not make us ready without a client.
        async def disconnected() -> None:
            if self._client is client:
                self._became_lost()

        async def reconnected() -> None:
            if self._client is client:
                self._became_ready()

        async def closed() -> None:
            if self._client is client:
                self._client = None
                self._became_lost()
                self._rebuilding = asyncio.create_task(self._rebuild())

        await client.connect(
            self._target.url,
            name=self.name,
            tls=context,
            tls_handshake_first=True,
            user_jwt_cb=lambda: bytearray(credentials().jwt.encode()),
            signature_cb=lambda nonce: _b64_signature(credentials(), nonce),
            inbox_prefix=f"_INBOX.{self.name}",
            error_cb=on_error,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            closed_cb=closed,
            max_reconnect_attempts=-1,
            reconnect_to_server_handler=jittered,
            connect_timeout=_CONNECT_SECONDS // 2,
            ping_interval=20,
            max_outstanding_pings=2,
        )

    async def _adopt(self, client: Client) -> None:
        """Make *client* ours and give it all subscriptions.

        Who listens from now on subscribes by himself: the list is read in the same moment in
        which the client becomes ours, so no listener is missed and none is subscribed twice.
        """
        self._client, listeners = client, tuple(self._listeners)
        try:
            for subject, queue, listener in listeners:
                await client.subscribe(subject, queue=queue, cb=listener)
            if listeners:
                await _heard(client)
        except nats.errors.Error as error:  # it closed again, and `closed` builds the next one
            _log.warning("bus_lost_early", user=self.name, error=_gist(error))
        if self._client is client and client.is_connected:
            self._became_ready()

    async def _rebuild(self) -> None:
        back_off = BackOff(first=FIRST_DELAY, longest=LONGEST_DELAY)
        refused = BackOff(first=FIRST_DELAY, longest=LONGEST_REFUSED_DELAY)
        while not self._closing:
            self._hurry.clear()
            try:
                async with self._building:
                    if self._client is None:
                        await self._adopt(await self._build())
                    return
            except (BusUnavailable, BusDenied) as error:
                self.trouble = error
                self._say("bus_rebuild", str(error))
                # The same token will be refused the next time, too; a new one comes by `renew`.
                pause = (refused if isinstance(error, TokenRefused) else back_off).pause()
                await woken(self._hurry, pause)

    def _say(self, event: str, trouble: str) -> None:
        """Log *trouble*, once: an outage of a night is one line, not thousands."""
        if self.connected or trouble != self._said:
            self._said = trouble
            _log.warning(event, user=self.name, error=trouble)

    def _became_lost(self) -> None:
        self._ready.clear()
        self._lost.set()

    def _became_ready(self) -> None:
        self._lost.clear()
        self._ready.set()
        self.trouble, self._said = None, ""
        for callback in self._on_ready:
            callback()


async def _heard(client: Client) -> None:
    """Wait until the server has taken our subscriptions in, or is gone.

    nats-py sends a PING before what is still buffered, so the buffer gets its turn first; and a
    flush that is cancelled would make it drop the connection at the PONG, so it goes on alone.
    """
    await asyncio.sleep(0)
    with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
        await asyncio.shield(asyncio.create_task(client.flush(_FLUSH_SECONDS)))


def _b64_signature(credentials: Credentials, nonce: str) -> bytes:
    return base64.b64encode(credentials.sign(nonce.encode()))


def _first_error(connecting: asyncio.Task[None], failed: "asyncio.Future[None]") -> BaseException:
    for done in (failed, connecting):
        if done.done() and not done.cancelled() and (error := done.exception()):
            return error
    return TimeoutError()


def _gist(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
