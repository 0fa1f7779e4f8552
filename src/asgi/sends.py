"""Sends of ASGI, started without a task for each client.

A send usually completes at once, in the first step of its coroutine. So that step runs without a
switch of tasks, while a parked task is entered as the current one. If the send does not complete,
that task runs the other steps, and the next send uses another parked task. The number of tasks is
that of waiting sends, plus a few parked ones. Cancel scopes and time-outs work because the current
task is the same in all steps of a send.
"""

from __future__ import annotations

import asyncio

# these functions accept tasks of any class, not only asyncio.Task
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextvars import Context
from functools import partial
from types import CoroutineType, coroutine
from typing import Any, NamedTuple, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: The function that is called after a send that has waited, with its error or None.
Done: TypeAlias = Callable[[BaseException | None], object]


MAX_PARKED = 64  # the maximum number of idle tasks that are kept for later sends


class _Started(NamedTuple):
    """A send that is not complete.

    Attributes:
        steps: the coroutine of the send.
        awaited: the object that the coroutine waits for.
        context: the context in which it runs.
        done: the function that is called when the send is complete.
    """

    steps: Coroutine[Any, Any, None]
    awaited: object
    context: Context
    done: Done


class Sends:
    """The sends of one event loop; only callbacks of that loop call the methods.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_open: bool = True
        self._parked: list[_Worker] = []

    def start(self, send: Send, message: Message, context: Context, done: Done) -> bool:
        """Start a send.

        Args:
            send: the ASGI ``send`` function of the request.
            message: the ASGI message.
            context: the context variables of the request.
            done: the function that the event loop calls later, if the send is not complete.

        Returns:
            True if the send is complete.
        """
        worker = self._parked.pop() if self._parked else _Worker(self)
        started, failed = None, False
        _enter_task(self.loop, worker.task)
        try:
            started = context.run(_first_step, send, message)
        except (Exception, asyncio.CancelledError) as error:
            failed = True
            self.loop.call_soon(done, error)
        finally:
            _leave_task(self.loop, worker.task)
        if started is None:
            self._parked.append(worker)
            return not failed
        worker.take(_Started(*started, context, done))
        return False

    def park(self, worker: _Worker) -> bool:
        """Keep an idle task for later sends; return False if the task must end."""
        if not self.is_open or len(self._parked) >= MAX_PARKED:
            return False
        self._parked.append(worker)
        return True

    def close(self) -> None:
        """End the parked tasks; each other task ends after its send."""
        self.is_open = False
        parked, self._parked = self._parked, []
        if not self.loop.is_closed():  # a closed loop has no tasks
            for worker in parked:
                worker.task.cancel()


class _Worker:
    """A task that completes delayed sends. Attributes: task: the asyncio task."""

    def __init__(self, sends: Sends) -> None:
        self._sends = sends
        self._work: asyncio.Future[_Started] = sends.loop.create_future()
        self.task: asyncio.Task[None] = sends.loop.create_task(self._run(), name="wsframe-send")

    def take(self, started: _Started) -> None:
        """Run the remaining steps of a send."""
        self._work.set_result(started)

    async def _run(self) -> None:
        loop = self._sends.loop
        while True:
            started = await self._work
            error: BaseException | None = None
            try:
                await _rest(started)
            except Exception as raised:
                error = raised
            except asyncio.CancelledError as raised:  # cancelled, or raised by the server
                loop.call_soon(started.done, raised)
                raise
            self._work = loop.create_future()
            loop.call_soon(started.done, error)
            if not self._sends.park(self):
                return


def _first_step(send: Send, message: Message) -> tuple[Coroutine[Any, Any, None], object] | None:
    """Run the first step of a send; return None if it is complete."""
    awaitable = send(message)
    steps: Coroutine[Any, Any, None]
    steps = awaitable if type(awaitable) is CoroutineType else _as_coroutine(awaitable)
    try:
        return steps, steps.send(None)
    except StopIteration:
        return None


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


@coroutine
def _rest(started: _Started) -> Generator[Any, Any, None]:
    """Yield the objects that the remaining steps of a send wait for."""
    steps, awaited, context = started.steps, started.awaited, started.context
    while True:
        step: Callable[[], object]
        try:
            value = yield awaited
        except BaseException as error:
            step = partial(steps.throw, error)
        else:
            step = partial(steps.send, value)
        try:
            awaited = context.run(step)
        except StopIteration:
            return
