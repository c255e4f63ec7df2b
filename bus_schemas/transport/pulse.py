"""The watchdog's ping comes out of the work itself, so it stops when the work stops.

There is no task that pings. Each essential task is `watched`: whenever it takes a step, it marks
its progress, and if the others have marked theirs in time, too, that very step sends the ping. A
blocked event loop, a task that waits for what never comes, a loop that has returned and a disk that
hangs all end alike: no ping, and systemd starts the process anew.

A task that needs the bus is excused while the bus is away: waiting is its work then, and a restart
would cost a server its unlocked vault just when it cannot be unlocked anew.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog

from bus_schemas.transport.service_manager import ServiceManager

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

_PINGS_A_PERIOD = 4


class Work(NamedTuple):
    """An essential task that goes on for ever."""

    name: str
    work: Coroutine[Any, Any, None]
    within: float
    """Seconds in which it takes a step at least."""


class Connection(Protocol):
    """What a task may have to wait for."""

    @property
    def connected(self) -> bool:
        """Whether it is there."""


@dataclass(eq=False)
class _Task:
    name: str
    within: float
    needs: Connection | None
    ends: bool
    last: float = 0.0

    def overdue(self, now: float) -> bool:
        if self.needs is not None and not self.needs.connected:
            self.last = now  # its time begins anew when the connection is back
        return now - self.last > self.within


class Pulse:
    """The essential tasks of one process, and when each last took a step."""

    def __init__(
        self, manager: ServiceManager, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """*clock* is in seconds and never goes back."""
        self.manager = manager
        self._clock = clock
        self._tasks: set[_Task] = set()
        self._ended: set[str] = set()
        """What was to go on for ever and has returned."""
        self._pinged = -1e9
        self._reported: tuple[str, ...] = ()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Let `watched`, here and in every task started in here, belong to this pulse."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def stuck(self) -> tuple[str, ...]:
        """Return the names of the tasks that are overdue, or that returned and may not."""
        now = self._clock()
        overdue = {task.name for task in self._tasks if task.overdue(now)}
        return tuple(sorted(overdue | self._ended))

    @contextlib.contextmanager
    def _keeping(self, task: _Task) -> Iterator[None]:
        task.last = self._clock()
        self._tasks.add(task)
        try:
            yield
            if not task.ends:
                _log.critical("work_ended", task=task.name)
                self._ended.add(task.name)
        finally:
            self._tasks.discard(task)

    def _stepped(self, task: _Task) -> None:
        task.last = now = self._clock()
        period = self.manager.watchdog_seconds
        if period is None or now - self._pinged < period / _PINGS_A_PERIOD:
            return
        stuck = self.stuck()
        if stuck != self._reported:
            self._reported = stuck
            if stuck:
                _log.critical("work_stands_still", tasks=stuck)
        if not stuck:
            self._pinged = now
            self.manager.ping()


_current: ContextVar[Pulse | None] = ContextVar("pulse", default=None)


def watched(
    name: str,
    work: Coroutine[Any, Any, _T],
    *,
    within: float,
    needs: Connection | None = None,
    ends: bool = False,
) -> Coroutine[Any, Any, _T]:
    """Return *work* as an essential task, which takes a step at least every *within* seconds.

    *needs* is what it may wait for without end. Work that returns counts as stuck from then on,
    unless it *ends* by its nature; what it raises is for whoever awaits it. Outside a `Pulse` it is
    *work* itself.
    """
    pulse = _current.get()
    if pulse is None:
        return work
    return _drive(pulse, _Task(name, within, needs, ends), work)


def begin(
    tasks: asyncio.TaskGroup, works: Iterable[Work], needs: Connection | None = None
) -> list[asyncio.Task[None]]:
    """Start *works* in *tasks*, each `watched` and under its name; return what was started."""
    return [
        tasks.create_task(watched(name, work, within=within, needs=needs), name=name)
        for name, work, within in works
    ]


def tell_ready(status: str) -> None:
    """Tell this process's service manager, if there is one, that it serves, and in a line how."""
    if pulse := _current.get():
        pulse.manager.ready(status)


def tell_status(status: str) -> None:
    """Tell it in a line what goes on: ids and numbers, never a secret."""
    if pulse := _current.get():
        pulse.manager.status(status)


async def _drive(pulse: Pulse, task: _Task, work: Coroutine[Any, Any, _T]) -> _T:
    with pulse._keeping(task):  # noqa: SLF001 (one module)
        result: _T = await _Steps(pulse, task, work)
        return result


class _Steps:
    """Awaits *work* and hears of every step that it takes."""

    def __init__(self, pulse: Pulse, task: _Task, work: Coroutine[Any, Any, Any]) -> None:
        self._pulse = pulse
        self._task = task
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._work.send, None)
        while True:
            try:
                waited_for = step()
            except StopIteration as done:
                return done.value
            self._pulse._stepped(self._task)  # noqa: SLF001 (one module)
            try:
                step = partial(self._work.send, (yield waited_for))
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # noqa: BLE001 (a cancellation, as a rule)
                step = partial(self._work.throw, error)
