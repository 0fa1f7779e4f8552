"""Decoding: from received bytes to events for the application, and answers to the client."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config

from wsframe import Close, Failure, Ping, Pong

from .receiving import Receiving
from .states import ANSWERING, CLOSING, OPEN

# The size of the pieces in which compressed data is decoded. Each byte can expand to a thousand.
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
        # True while the kernel may decode complete, uncompressed messages without the codec.
        self._direct = False
        self._undecoded = b""  # data received before the 101, or compressed data

    def _decode(self) -> None:
        """Decode the kept data until a message is ready for the application."""
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
        """Decode the data that the kernel leaves: control frames, and incomplete messages."""
        assert self._codec is not None
        self._process(self._codec.receive(data))
        self._direct = self._state is OPEN and self._codec.between_messages

    def _process(self, events: list[Any]) -> None:
        """Process the codec's events."""
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
        """Close after the application has answered all earlier messages."""
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
        """Decode or receive more, because the application has taken the last message."""
        if self._undecoded:
            self.loop.call_soon(self._decode_more)  # other connections run first
        elif self._state is OPEN:
            self._resume()

    def _decode_more(self) -> None:
        if self._state is OPEN:
            self._decode()

    def _discard(self, data: bytes) -> None:
        """Discard data, in pieces, up to the client's answer to the server's close frame."""
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
        """Send the close frame, because the application has answered all messages."""
        if self._state is ANSWERING:
            self._reply_to_close()

    def _send_close(self, code: int, reason: str) -> None:
        super()._send_close(code, reason)
        self._direct = False
        undecoded, self._undecoded = self._undecoded, b""
        self._forget_backlog()
        self._resume()
        if undecoded:  # the client's close frame follows the undecoded data
            self._discard(undecoded)
