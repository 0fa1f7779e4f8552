"""Client: the queue of unsent bytes of one event stream, in the place of a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from enum import IntEnum
from typing import Any

from .loop import AsyncioLoop
from .sends import Message, Send


class ClientState(IntEnum):
    """The state of one client; its number never decreases.

    Attributes:
        OPEN: queued data is sent.
        FINISHING: the last data is queued, and no more is accepted.
        LAST: the last data is being sent.
        CLOSED: the request has ended, and no more data is sent.
    """

    OPEN = 0
    FINISHING = 1
    LAST = 2
    CLOSED = 3


# Module-level names, because looking up a member of an enum is slower.
OPEN, FINISHING, LAST, CLOSED = ClientState


class Client:
    """The sending side of one event stream; only the owner of the loop uses it.

    One send runs at a time. ASGI servers complete a send when the client has received enough, so
    the client is slow while a send is not complete.

    Args:
        loop: the loop of the stream.
        send: the ASGI ``send`` function of the request.
        context: the context variables of the request.
        send_timeout: the time in which a send must complete, in seconds; 0 for no limit.
        sent_all: a function that is called when a delayed send is complete, if ``notify_when_sent``
            is set.
        ended: a function that is called once at the end, with an error of the ASGI server or None.
        stuck: a function that is called before a client is disconnected because of
            ``send_timeout``.

    Attributes:
        out: the queued data.
        frames_out: the number of events sent.
        notify_when_sent: True to call ``sent_all`` once, when all data has been sent.
        sends: the number of sends.
    """

    __slots__ = (
        "_context",
        "_ended",
        "_function",
        "_loop",
        "_send_timeout",
        "_sending",
        "_sent_all",
        "_state",
        "_stuck",
        "_timer",
        "_unaccepted",
        "frames_out",
        "notify_when_sent",
        "out",
        "sends",
    )

    def __init__(
        self,
        loop: AsyncioLoop,
        send: Send,
        context: Context,
        send_timeout: float,
        *,
        sent_all: Callable[[], object],
        ended: Callable[[BaseException | None], object],
        stuck: Callable[[], object],
    ) -> None:
        self.out: list[bytes] = []
        self.frames_out: int = 0
        self.notify_when_sent: bool = False
        self.sends: int = 0
        self._loop = loop
        self._function = send
        self._context = context
        self._send_timeout = send_timeout
        self._sent_all, self._ended, self._stuck = sent_all, ended, stuck
        self._state = OPEN
        self._sending = False
        self._unaccepted = 0  # the number of bytes in the send that is not complete
        self._timer: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Any thread: True after the end of the stream."""
        return self._state is CLOSED

    @property
    def unsent(self) -> int:
        """Any thread: the number of bytes that the ASGI server has not accepted."""
        return self._unaccepted + sum(map(len, self.out.copy()))

    @property
    def send_closed(self) -> bool:
        """Loop owner: True if the client accepts no more data to send."""
        return self._state is not OPEN

    @property
    def has_unsent(self) -> bool:
        """Loop owner: True while a send is not complete."""
        return self._sending

    def sent_partly(self, items: Any, sent: int) -> None:
        """Loop owner: do nothing, because the ASGI server keeps the unsent part of a block."""

    def flush(self) -> None:
        """Loop owner: send the queued data, unless another send is not complete."""
        if self._sending or self._state >= LAST:
            return
        data = b"".join(self.out)
        self.frames_out += len(self.out)
        self.out.clear()
        if self._state is FINISHING:
            self._state = LAST
            if self._start(data, more=False):
                self._end(None)
        elif data:
            self._start(data, more=True)

    def send(self, data: bytes) -> bool:
        """Loop owner: send data, while no other send runs; return True if the send is complete."""
        return self._start(data, more=True)

    def finish(self, *last: bytes) -> None:
        """Loop owner: end the response after the queued data and the argument's bytes."""
        if self._state is OPEN:
            self.out.extend(last)
            self._state = FINISHING
            self.flush()

    def abort(self) -> None:
        """Loop owner: end the request at once, without the queued data."""
        self._end(None)

    def close(self) -> None:
        """The thread of the loop: stop sending, because the request ends."""
        self._state = CLOSED
        self.out.clear()
        self._stop_timer()

    def _start(self, data: bytes, *, more: bool) -> bool:
        self.sends += 1
        message: Message = {"type": "http.response.body", "body": data, "more_body": more}
        if self._loop.sends.start(self._function, message, self._context, self._sent):
            return True
        self._sending, self._unaccepted = True, len(data)
        if self._send_timeout:
            self._timer = self._loop.loop.call_later(self._send_timeout, self._overdue)
        return False

    def _sent(self, error: BaseException | None) -> None:
        """Continue after a delayed send, with its error or None."""
        self._sending, self._unaccepted = False, 0
        self._stop_timer()
        if self._state is LAST or error is not None:
            self._end(error)
            return
        self.flush()
        if self.notify_when_sent and not self._sending and self._state is OPEN:
            self.notify_when_sent = False
            self._sent_all()

    def _overdue(self) -> None:
        """End the request of a client that has accepted no data for ``send_timeout``."""
        self._timer = None
        self._stuck()
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        if self._state is not CLOSED:
            self.close()
            self._ended(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
