"""TLS for one client: the encryption and decryption of records in memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..pure_rounds import GAP, RECORD

__all__ = ["Records"]

# The header of a record: its type, the version, and the size of the rest (RFC 5246 section 6.2).
HEADER = 5
MAJOR_VERSION = 3
LONGEST = HEADER + RECORD + 2048
# The outer type of every encrypted record in TLS 1.3 (RFC 8446 section 5.2). In a handshake, the
# first such record of the server follows its key share.
APPLICATION_DATA = 23


class Records:
    """TLS for one client, as functions over bytes, without system calls.

    One thread at a time calls the methods: the owner of the loop, or the thread of the handshakes
    while it runs :meth:`shake_hands`.

    Args:
        context: the context that TLS uses.

    Attributes:
        secured: True after the handshake; only the owner writes it.
        more: True if :meth:`take` must be called before the next receive. Then decrypted data is
            left, TLS has ended, TLS has records of its own to send, or delayed data can now be
            encrypted.
        ended: True if no data follows, because the client has ended TLS or violated the protocol.
        aligned: True if the next received byte begins a record, and ``more`` is False.
        incoming, outgoing: the buffers of received records, and of records to send.
        read, write: the methods of the connection's ``ssl.SSLObject``.
        is_nearly_done: True if the rest of the handshake is fast to compute: the server's key share
            and signature were sent, and no client certificate must be verified.
    """

    __slots__ = (
        "_checks_client",
        "_cut",
        "_missing",
        "_part",
        "_tls",
        "_write_waits",
        "aligned",
        "ended",
        "incoming",
        "is_nearly_done",
        "more",
        "outgoing",
        "read",
        "secured",
        "write",
    )

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming: ssl.MemoryBIO = ssl.MemoryBIO()
        self.outgoing: ssl.MemoryBIO = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.read: Callable[..., Any] = self._tls.read
        self.write: Callable[[bytes | memoryview], int] = self._tls.write
        self._checks_client = context.verify_mode != ssl.CERT_NONE
        # The first bytes of a record's header, if the last read has ended within a header.
        self._cut = b""
        # The received and the missing bytes of a record, if the last read has ended within a
        # record.
        self._part = self._missing = 0
        self._write_waits = False  # True after seal() has failed, until data is received
        self.secured: bool = False
        self.more: bool = False
        self.ended: bool = False
        self.aligned: bool = False
        self.is_nearly_done: bool = False

    # The handshake ----------------------------------------------------------------------------

    def feed(self, memory: memoryview, size: int) -> bool:
        """Loop owner: add received bytes; return True if :meth:`shake_hands` can continue.

        Args:
            memory: the buffer with the received bytes, which begin at the index ``GAP``.
            size: the number of received bytes.
        """
        begin, end = self._complete_header(memory, GAP), GAP + size
        while begin < end:
            begin = self._pass_on(memory, begin, end)
        return self.incoming.pending > self._part

    def shake_hands(self) -> bool:
        """Loop owner, or the thread of the handshakes: continue the handshake; True at its end.

        Raises:
            OSError: the handshake has failed.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def answer(self) -> bytes:
        """The caller of :meth:`shake_hands`: return the records to send after it, if any."""
        records = self.outgoing.read()
        if not (self.is_nearly_done or self._checks_client):
            self.is_nearly_done = hides_types(records)
        return records

    def secure(self) -> None:
        """Loop owner: begin to exchange data, because the handshake is complete."""
        self.secured = True
        self.more = self.incoming.pending > self._part
        self._align()

    def client_certificate(self) -> dict[str, Any] | None:
        """Loop owner, after the handshake: return the client's verified certificate, if any."""
        return self._tls.getpeercert() or None  # {} if the context does not verify the certificate

    # Data -------------------------------------------------------------------------------------

    def decrypt(self, memory: memoryview, begin: int, end: int, count: int, most: int) -> int:
        """Loop owner: decrypt received records; may be called only while ``more`` is False.

        The records are passed to OpenSSL one by one, because the memory of its BIO never shrinks.

        Args:
            memory: the buffer with the records. The decrypted data is written to its beginning.
            begin: the index of the first received byte, at least ``GAP``.
            end: the index after the last received byte.
            count: the number of decrypted bytes at the beginning of the memory.
            most: the maximum number of bytes of decrypted data.

        Returns:
            The number of bytes of decrypted data; 0 if no record is complete, or see ``more``.
        """
        begin = self._complete_header(memory, begin)
        while begin < end:
            begin = self._pass_on(memory, begin, end)
            if self._missing or self._cut:
                break
            if count == most:
                self.more = True
                continue
            try:
                size = self.read(most - count, memory[count:])
            except OSError as error:
                if self.stops(error):
                    break
                continue
            if not size:
                self.stops(None)
                break
            count += size
            if count == most:
                self.more = True  # the record may contain more data
        if self._write_waits or self.outgoing.pending:
            self._write_waits = False
            self.more = True
        self._align()
        return count

    def take(self, memory: memoryview, most: int) -> int:
        """Loop owner: decrypt records that were received earlier; return the size of the data.

        Args:
            memory: the memory for the data.
            most: the maximum size of the data.
        """
        self.more = False
        size = 0
        try:
            if not self.ended:
                size = self.read(most, memory)
        except OSError as error:
            self.stops(error)
        else:
            if not size:
                self.stops(None)
            elif size == most or self.incoming.pending > self._part:
                self.more = True
        self._align()
        return size

    def stops(self, error: OSError | None) -> bool:
        """Loop owner: handle a read that returned no data; return True if no data follows.

        Args:
            error: the error of the read; None if the client has ended TLS.
        """
        # A WantRead error means a record without data.
        if not isinstance(error, ssl.SSLWantReadError):
            self.ended = self.more = True
            self.aligned = False
        return self.ended

    def _align(self) -> None:
        self.aligned = not (self._missing or self._cut or self.more)

    def _complete_header(self, memory: memoryview, begin: int) -> int:
        """Insert the kept first bytes of a header before the received bytes; return their index."""
        end, begin = begin, begin - len(self._cut)
        memory[begin:end] = self._cut
        self._cut = b""
        return begin

    def _pass_on(self, memory: memoryview, begin: int, end: int) -> int:
        """Pass the received bytes up to the end of a record to OpenSSL; return the end's index."""
        missing = self._missing
        if not missing:
            if end - begin < HEADER:
                self._cut = bytes(memory[begin:end])
                return end
            missing = HEADER + (memory[begin + 3] << 8) + memory[begin + 4]
            if missing > LONGEST or memory[begin + 1] != MAJOR_VERSION:
                missing = end - begin  # not a record's header: OpenSSL reports the error
        stop = min(begin + missing, end)
        self.incoming.write(memory[begin:stop])
        self._missing = begin + missing - stop
        self._part = self._part + stop - begin if self._missing else 0
        return stop

    def seal(self, data: memoryview) -> bytes:
        """Loop owner: return the records for this data.

        Raises:
            ssl.SSLWantReadError: a handshake must be completed first.
            OSError: TLS has ended.
        """
        if not self.secured:  # the thread of the handshakes may be using the SSLObject
            raise ssl.SSLWantReadError
        size = len(data)
        if size > RECORD:
            return b"".join([self.seal(data[at : at + RECORD]) for at in range(0, size, RECORD)])
        sent = 0
        try:
            while sent < size:
                sent += self.write(data[sent:] if sent else data)
        except ssl.SSLWantReadError:  # the client has begun a renegotiation, as TLS 1.2 allows
            self._write_waits = True
            raise
        return self.outgoing.read()

    def output(self) -> bytes:
        """Loop owner: return the records that TLS itself must send, such as alerts, or b""."""
        return self.outgoing.read() if self.outgoing.pending else b""

    def end(self) -> bytes:
        """Loop owner, after the handshake: return the last records, with close_notify.

        See RFC 8446 section 6.1.
        """
        with suppress(OSError, ValueError):
            # The client has not answered yet, or violates the protocol.
            self._tls.unwrap()
        return self.outgoing.read()


def hides_types(records: bytes) -> bool:
    """Return True if one of these records is encrypted, as in TLS 1.3."""
    begin = 0
    while begin < len(records):
        if records[begin] == APPLICATION_DATA:
            return True
        begin += HEADER + (records[begin + 3] << 8) + records[begin + 4]
    return False
