"""Sends of ASGI, started without a task for each client.

A client is usually sent data at once: the awaitable that ``send`` returns completes in its first
step. So the first step is run where the data is, in the name of a task that is parked. If it
completes, the task does not notice. Otherwise that task runs the other steps, and the next send
uses another parked task. So there are as many tasks as sends that wait, and a few parked ones. In
all steps of a send the current task is the same, on which cancel scopes and time-outs depend.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task  # for other implementations of tasks
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextvars import Context
from functools import partial
from types import CoroutineType, coroutine
from typing import Any, NamedTuple, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: The function that is called after a send that has waited, with its error or None.
Done: TypeAlias = Callable[[BaseException | None], object]


MAX_PARKED = 64  # tasks that are kept for later sends


class _Started(NamedTuple):
    """A send that waits.

    Attributes:
        steps: its coroutine.
        awaited: the object that the coroutine waits for.
        context: the context in which it runs.
        done: is called after its end.
    """

    steps: Coroutine[Any, Any, None]
    awaited: object
    context: Context
    done: Done


class Sends:
    """The sends of one event loop; all methods are for its thread, outside of tasks.

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
            send: the function of the client.
            message: the message.
            context: the context of the client's request.
            done: is called later, outside of tasks, if the send is not complete.

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
        """Keep a task for later sends; return False if it must end."""
        if not self.is_open or len(self._parked) >= MAX_PARKED:
            return False
        self._parked.append(worker)
        return True

    def close(self) -> None:
        """End the parked tasks; the others end after their sends."""
        self.is_open = False
        parked, self._parked = self._parked, []
        if not self.loop.is_closed():  # otherwise its tasks have ended
            for worker in parked:
                worker.task.cancel()


class _Worker:
    """A task that completes sends.

    Attributes:
        task: the task.
    """

    def __init__(self, sends: Sends) -> None:
        self._sends = sends
        self._work: asyncio.Future[_Started] = sends.loop.create_future()
        self.task: asyncio.Task[None] = sends.loop.create_task(self._run(), name="wsframe-send")

    def take(self, started: _Started) -> None:
        """Complete this send."""
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
            except asyncio.CancelledError as raised:  # the loop ends, or the server has raised it
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
    """The other steps of a send."""
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
