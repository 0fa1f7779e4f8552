"""The connection of a client that uses TLS: its handshake, its records and its end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..forks import disconnect
from ..handoff.loop import READ
from ..pure_rounds import GAP, MAX_PIECES, RECORD, SEAL_AT_ONCE, send_pieces
from ..reports.loggers import log
from .output import first_of, without_first
from .peer import Peer
from .records import Records
from .states import FINISHING, SHUT

if TYPE_CHECKING:
    from ..handoff.task import Task
    from ..pure_rounds import Item
    from .handshakes import Handshakes
    from .peer import Connections
    from .session import Session


# The value of ``_step`` while no handshake step runs: a shared list that stays empty.
NO_STEP: list[None] = []


class TLSPeer(Peer):
    """A client of a server with TLS. ``handshake_timeout`` includes the TLS handshake.

    The queue of unsent data begins with encrypted records; data that is not yet encrypted follows.
    Only the owner calls its methods.

    Args:
        clients: the connections of its loop.
        sock: the client's socket.
        address: the client's address, as the socket module returns it.
        context: the context that TLS uses.
        handshakes: the thread that computes the handshake.
        answer_plain_http: a function that the owner calls to refuse a client that sends plain HTTP.
    """

    scheme = "https"

    __slots__ = (
        "_answer_plain_http",
        "_awaited",
        "_context",
        "_ended",
        "_handshakes",
        "_returns",
        "_sealed_to",
        "_step",
    )

    tls: Records | None
    bytes_in: int
    bytes_out: int

    def __init__(
        self,
        clients: Connections,
        sock: socket.socket,
        address: object,
        context: ssl.SSLContext,
        handshakes: Handshakes,
        answer_plain_http: Callable[[Peer], object],
    ) -> None:
        super().__init__(clients, sock, address)
        self._answer_plain_http = answer_plain_http
        self._context = context
        self._handshakes = handshakes
        # One item while a step of the handshake runs. The thread that pops the item continues with
        # the socket: the handshake's thread after the step, or the owner after the connection's
        # end.
        self._step = NO_STEP
        self._returns = False  # True if the owner must end the step
        # True if data has arrived during the step, so that the socket is not polled.
        self._awaited = False
        self._sealed_to = 0  # the value of ``bytes_out`` at the end of the encrypted records
        self._ended = False  # True if close_notify is among the records to send

    def open(self, session: Session, timeout: float) -> None:
        """Loop owner: start to serve the client, with the TLS handshake if the session needs it."""
        if not session.precedes_tls:
            self.tls = Records(self._context)
        super().open(session, timeout)

    def proceed(self, session: Session, received: memoryview) -> Task | None:
        """Loop owner: use another session, and begin the TLS handshake with this data."""
        self.session: Session = session
        self.tls = tls = Records(self._context)
        size = len(received)
        memory = self.loop.buffer
        memory[GAP : GAP + size] = received
        self._feed(tls, memory, size)
        return None

    def client_certificate(self) -> dict[str, Any] | None:
        """Loop owner: return the client's verified certificate; None without one."""
        return None if self.tls is None else self.tls.client_certificate()

    # The handshake ----------------------------------------------------------------------------

    def ready(self, events: int) -> Task | None:
        """Loop owner: read and send as far as the socket is ready; the events are a hint."""
        tls = self.tls
        if tls is None:
            return super().ready(events)
        if not tls.secured:
            self._continue_handshake(tls, events)
            return None
        task = super().ready(events)
        if tls.more:
            self._update_interest()
        return task

    def _continue_handshake(self, tls: Records, events: int) -> None:
        """Receive a part of the handshake, and begin the next step."""
        if self._step or self._returns:
            self._await_step(True)
            self.loop.call_soon(self._resume)  # the step may have ended in the meantime
            return
        if events != READ and not self._may_read(events):
            return
        memory = self.loop.buffer
        try:
            size = self.sock.recv_into(memory[GAP:], RECORD)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self.abort()
            return
        self.bytes_in += size
        self._feed(tls, memory, size)

    def _feed(self, tls: Records, memory: memoryview, size: int) -> None:
        """Add received bytes, and begin the next step if one is due."""
        if not tls.feed(memory, size):
            return
        if tls.is_nearly_done:
            self._end_step(tls, *attempt(tls))
        else:
            self._step = [None]
            self._handshakes.run(partial(self._take_step, tls, self._step))

    def _await_step(self, awaited: bool) -> None:
        """Stop polling the socket until the step has ended, or resume polling."""
        self._awaited = awaited
        self._update_interest()

    def _take_step(self, tls: Records, step: list[None]) -> None:
        """The thread of the handshakes: compute a step, and send its answer."""
        done, failure, records = False, None, b""
        if step:  # an empty list means that the connection has ended
            done, failure, records = attempt(tls)
        if records and not (done or failure or self._unsent):
            with suppress(OSError):  # the owner sends the rest
                sent = send_pieces(self.sock, [records])
                self.bytes_out += sent
                records = records[sent:]
        self._returns = bool(done or failure or records)
        try:
            step.pop()
        except IndexError:  # the connection has ended in the meantime
            disconnect(self.sock)
            return
        if self._returns:
            self.loop.call_soon(partial(self._return_step, tls, done, failure, records))
        elif self._awaited:
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Resume polling the socket, unless a step runs or waits for the owner."""
        if self._awaited and not (self._step or self._returns):
            self._await_step(False)

    def _return_step(
        self, tls: Records, done: bool, failure: Exception | None, records: bytes
    ) -> None:
        """End a handshake step that its thread could not end."""
        self._returns = False
        self._end_step(tls, done, failure, records)
        self._await_step(False)

    def _end_step(
        self, tls: Records, done: bool, failure: Exception | None, records: bytes
    ) -> None:
        """Send the answer of a step; after the last step, read the data that follows."""
        self._keep_records(records)
        if failure is not None:
            self._fail(failure)
            return
        if done:
            tls.secure()
            self._read_more()  # the request often arrives together with the end of the handshake
        self._flush_slowly()

    def _fail(self, failure: Exception) -> None:
        """End a connection whose handshake has failed, after the TLS alert."""
        if not isinstance(failure, OSError):
            self.loop.report_error(failure, self)
            return
        log.debug("%s: the TLS handshake failed: %s", self.address, failure)
        if getattr(failure, "reason", None) == "HTTP_REQUEST":
            # The client could not decrypt an answer.
            self.tls = None
            self._answer_plain_http(self)
        else:
            self._flush_slowly()
            self.abort()

    def _disconnect(self, both_ended: bool) -> None:
        """Close the socket; during a step of the handshake, the handshake's thread does that."""
        try:
            self._step.pop()
        except IndexError:
            super()._disconnect(both_ended)

    # Reading ----------------------------------------------------------------------------------

    def _receive(self, memory: memoryview) -> int:
        tls = self.tls
        if tls is None or self.state is SHUT:  # data that the client still sends is discarded
            return super()._receive(memory)
        most = self.read_size or len(memory)
        if tls.more:
            size = tls.take(memory, most)
        else:
            received = self.sock.recv_into(memory[GAP:], self.read_size)
            if not received:
                return 0
            self.bytes_in += received
            size = tls.decrypt(memory, GAP, GAP + received, 0, most)
        self._send_records(tls.output())
        if not size and not tls.ended:
            raise BlockingIOError
        return size

    def _wanted(self) -> int:
        return 0 if self._awaited else super()._wanted()

    def _update_interest(self) -> None:
        super()._update_interest()
        # The poller does not report data that has already been received.
        if self._has_more():
            self.loop.call_soon(self._read_more)

    def _read_more(self) -> None:
        if self._has_more() and (task := self.ready(READ)) is not None:
            task.schedule()

    def _has_more(self) -> bool:
        tls = self.tls
        if tls is None or not tls.more or self.state >= SHUT:
            return False
        return self._reading == READ and not self.congested

    # Sending ----------------------------------------------------------------------------------

    def sent_partly(self, items: Sequence[Item] | bytes | None, sent: int) -> None:
        """Loop owner: process the result of a call that has sent queued items as records."""
        if isinstance(items, bytes):
            self._sealed_to = self.bytes_out + len(items) - sent
        super().sent_partly(items, sent)

    def _send_records(self, records: bytes) -> None:
        """Send records of TLS itself before the data that is not yet encrypted."""
        self._keep_records(records)
        if self._unsent:
            self._flush_slowly()

    def _keep_records(self, records: bytes) -> None:
        """Append records of TLS itself to the unsent records."""
        if records and not self.closed:
            sealed = self._sealed_size
            before = first_of(self._unsent, sealed)
            self._unsent = (b"".join((*before, records)), *without_first(self._unsent, sealed))
            self._note_sealed(sealed + len(records), len(records))

    @property
    def _sealed_size(self) -> int:
        """The number of unsent bytes in encrypted records."""
        return max(0, self._sealed_to - self.bytes_out)

    def _note_sealed(self, size: int, growth: int) -> None:
        self._sealed_to = self.bytes_out + size
        self._unsent_size += growth
        self.clear = False

    def _send(self) -> None:
        tls = self.tls
        if tls is not None and not self._sealed_size:
            try:
                self._seal(tls)
            except ssl.SSLWantReadError:
                return  # a renegotiation must be completed first
            except OSError:
                self.abort()
                return
        super()._send()

    def _seal(self, tls: Records) -> None:
        """Encrypt the first unencrypted data, at most ``SEAL_AT_ONCE`` bytes."""
        data = b"".join(first_of(self._unsent, SEAL_AT_ONCE))
        records = tls.seal(memoryview(data))
        rest = without_first(self._unsent, len(data))
        if not rest and self.state is FINISHING:
            records += self._close_notify(tls)
        self._unsent = (records, *rest)
        self._note_sealed(len(records), len(records) - len(data))

    def _pieces_to_send(self) -> Sequence[bytes | memoryview]:
        if self.tls is None:
            return super()._pieces_to_send()
        return first_of(self._unsent[:MAX_PIECES], self._sealed_size)

    # The end ----------------------------------------------------------------------------------

    def _end_of_input(self) -> None:
        if self.tls is not None and not (self._unsent or self.closed):
            self._send_records(self._close_notify(self.tls))
        super()._end_of_input()

    def _shut_write(self) -> None:
        if self.tls is not None and (records := self._close_notify(self.tls)):
            self._send_records(records)  # _send_records calls this method again
        else:
            super()._shut_write()

    def _close_notify(self, tls: Records) -> bytes:
        """Return the last records with close_notify on the first call, and b"" later."""
        ended, self._ended = self._ended, True
        return tls.end() if tls.secured and not ended else b""


def attempt(tls: Records) -> tuple[bool, Exception | None, bytes]:
    """Compute a step of a handshake.

    Returns:
        True if the handshake is complete; the error if it has failed; and the records to send.
    """
    try:
        return tls.shake_hands(), None, tls.answer()
    except OSError as error:
        # A traceback would form a reference cycle.
        return False, error.with_traceback(None), tls.answer()
    except Exception as error:  # any error, because other connections use this thread
        return False, error.with_traceback(None), b""
