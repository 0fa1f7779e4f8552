"""Decoding: from received bytes to the events of the application, and to answers."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config

from wsframe import Close, Failure, Ping, Pong

from .receiving import Receiving
from .states import ANSWERING, CLOSING, OPEN

# Compressed data is decoded in pieces of this size, because each byte may become a thousand.
COMPRESSED_PIECE = 4096


class Decoding(Receiving):
    """The decoding of one connection.

    Args:
        loop: the event loop.
        config: the settings of uvicorn.
    """

    __slots__ = ("_compressed", "_direct", "_limit", "_undecoded")

    def __init__(self, loop: asyncio.AbstractEventLoop, config: Config) -> None:
        super().__init__(loop, config.ws_max_queue, config.ws_ping_interval, config.ws_ping_timeout)
        self._limit = config.ws_max_size
        self._compressed = False
        # True while complete, uncompressed messages may be decoded without the codec.
        self._direct = False
        self._undecoded = b""  # data that is received before the 101, or compressed

    def _decode(self) -> None:
        """Decode the kept data until messages wait for the application."""
        assert self._codec is not None
        data, position = self._undecoded, 0
        size = COMPRESSED_PIECE if self._compressed else len(data)
        while position < len(data) and not self._messages and self._state is OPEN:
            self._process(self._codec.receive(data[position : position + size]))
            position += size
        self._undecoded = data[position:] if self._state is OPEN else b""
        is_open = self._state is OPEN and not self._compressed
        self._direct = is_open and not self._undecoded and self._codec.between_messages
        if self._undecoded or (self._messages and self.read_paused):
            self._pause()
        elif not self._messages:
            self._resume()

    def _receive(self, data: bytes) -> None:
        """Receive what the kernel does not decode: control frames, and incomplete messages."""
        assert self._codec is not None
        self._process(self._codec.receive(data))
        self._direct = self._state is OPEN and self._codec.between_messages

    def _process(self, events: list[Any]) -> None:
        """Process the events of received data."""
        messages: list[str | bytes] = []
        pings = []
        for event in events:
            if isinstance(event, (str, bytes)):
                messages.append(event)
            elif isinstance(event, Ping):
                pings.append(event.payload)
            elif isinstance(event, Pong):
                self._pong_received(event.payload)
            else:
                self._last_from_client = event
        if messages:
            self._put(messages)
        if pings:
            self._answer_pings(pings)
        if self._last_from_client is not None:
            self._client_has_closed(self._last_from_client)

    def _client_has_closed(self, last: Close | Failure) -> None:
        """Close, after the application has answered the messages that came before."""
        self._stop_keepalive()
        self._put_end(
            {"type": "websocket.disconnect", "code": int(last.code), "reason": last.reason}
        )
        self._state = ANSWERING
        if self._messages:
            self._await_close(self.close_timeout)
        else:
            self._reply_to_close()

    def _caught_up(self) -> None:
        """The application has taken the last message: decode or receive more."""
        if self._undecoded:
            self.loop.call_soon(self._decode_more)  # after the turns of other connections
        elif self._state is OPEN:
            self._resume()

    def _decode_more(self) -> None:
        if self._state is OPEN:
            self._decode()

    def _discard(self, data: bytes) -> None:
        """Discard data, in pieces, up to the client's answer to our close frame."""
        self._discarded = True
        ends = self._last_from_client is not None or self._abort_timer is not None
        if self._codec is None or ends or self._state is not CLOSING:
            return
        events = self._codec.receive(data[:COMPRESSED_PIECE])
        if any(isinstance(event, Close) for event in events):
            self._end_transport()
        elif rest := data[COMPRESSED_PIECE:]:
            self._pause()
            self.loop.call_soon(self._discard, rest)
        else:
            self._resume()

    def _end_taken(self) -> None:
        """The application takes the last event: it has answered all messages."""
        if self._state is ANSWERING:
            self._reply_to_close()

    def _send_close(self, code: int, reason: str) -> None:
        super()._send_close(code, reason)
        self._direct = False
        undecoded, self._undecoded = self._undecoded, b""
        self._forget_backlog()
        self._resume()
        if undecoded:  # the client's close frame follows it
            self._discard(undecoded)
