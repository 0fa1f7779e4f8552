"""Composed ids: the position of an event stream in several topics, as one id.

A client that reconnects sends one id, so the id of each event names a position in every topic of
the stream. A short id lists them: "?" and a query, as in "?a=...&b=...". An id must fit into a
request header, so a longer one is a token, as in "?TOKEN.NUMBER". Only this process can resolve the
token.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from secrets import token_urlsafe
from urllib.parse import parse_qsl, urlencode

from .sizes import DEFAULT_SIZES, Sizes

# The memory that is counted for a position in one topic, in bytes.
PLACE_COST = 256


class Places:
    """The streams whose ids are tokens. Any thread may call the methods.

    Attributes:
        sizes: the sizes of the app's topics.
    """

    def __init__(self, sizes: Sizes = DEFAULT_SIZES) -> None:
        self.sizes = sizes
        self._lock = threading.Lock()  # protects the streams, too
        self._streams: OrderedDict[str, _Stream] = OrderedDict()  # the streams by token
        self._cost = 0

    def find(self, last_id: str) -> Mapping[str, str] | None:
        """Return the ids by topic that a composed id names; None if it is unknown."""
        if "=" in last_id:
            return dict(parse_qsl(last_id[1:]))
        token, _, number = last_id[1:].rpartition(".")
        with self._lock:
            stream = self._streams.get(token)
            if stream is None or not (number.isascii() and number.isdecimal()):
                return None
            return stream.at(int(number)) if len(number) < 20 else None

    def begin(self, ids: Mapping[str, str]) -> _Stream:
        """Return a new stream with a token, at a place."""
        with self._lock:
            stream = _Stream(dict(ids), self.sizes.max_moves)
            self._keep(stream)
            return stream

    def move(self, stream: _Stream, topic: str, new: str) -> str:
        """Return the id of a stream's place after an event of one topic."""
        with self._lock:
            number = stream.move(topic, new)
            self._keep(stream)
            return f"?{stream.token}.{number}"

    def _keep(self, stream: _Stream) -> None:
        """Mark a stream as the most recently used one."""
        known = self._streams.pop(stream.token, None)
        self._cost += stream.cost() - (0 if known is None else stream.counted)
        stream.counted = stream.cost()
        self._streams[stream.token] = stream
        while self._cost > self.sizes.max_places_bytes and len(self._streams) > 1:
            _, oldest = self._streams.popitem(last=False)
            self._cost -= oldest.counted


class _Stream:
    """The kept places of one stream; the lock of :class:`Places` protects it."""

    __slots__ = ("_first", "_ids", "_max_moves", "_moves", "counted", "token")

    def __init__(self, ids: dict[str, str], max_moves: int) -> None:
        self.token: str = token_urlsafe(8)
        self.counted: int = 0
        self._ids = ids  # the ids at the oldest kept place
        self._max_moves = max_moves
        self._first = 0  # the number of the oldest kept place
        # The change from each place to the next: a topic, and the id of its latest event.
        self._moves: deque[tuple[str, str]] = deque()

    def cost(self) -> int:
        return PLACE_COST * (len(self._ids) + len(self._moves) + 4)

    def move(self, topic: str, new: str) -> int:
        """Add the next place, with a new id for one topic; return the place's number."""
        self._moves.append((topic, new))
        if len(self._moves) > self._max_moves:
            self._first += 1
            self._apply(self._ids, *self._moves.popleft())
        return self._first + len(self._moves)

    def at(self, number: int) -> dict[str, str] | None:
        """Return the ids at a place; None if the place is not kept."""
        if not 0 <= number - self._first <= len(self._moves):
            return None
        ids = dict(self._ids)
        for _, (topic, new) in zip(range(number - self._first), self._moves, strict=False):
            self._apply(ids, topic, new)
        return ids

    @staticmethod
    def _apply(ids: dict[str, str], topic: str, new: str) -> None:
        if new:
            ids[topic] = new
        else:  # a query cannot contain this id
            ids.pop(topic, None)


class Place:
    """The current place of one stream; it has one owner.

    Args:
        places: the places of the app.
        ids: the ids with which the client reconnected, by topic. The ids of the stream contain them
            until the stream is subscribed to these topics, so that a client that is disconnected
            before loses nothing.

    Attributes:
        id: the id of the place.
    """

    def __init__(self, places: Places, ids: Mapping[str, str] | None = None) -> None:
        self.id: str = ""
        self._places = places
        self._ids: dict[str, str] = dict(ids or {})
        self._expected = set(self._ids)  # the topics that the handler may subscribe to later
        self._listed: dict[str, str] = {}  # the ids as parts of a query
        self._stream: _Stream | None = None
        if sum(map(len, (*self._ids, *self._ids.values()))) > places.sizes.max_listed:
            self._begin_stream()
        for topic, event_id in self._ids.items():
            self._listed[topic] = urlencode({topic: event_id})

    def move(self, topic: str, new: str) -> str:
        """Set the position in one topic; return the id for the positions in all topics."""
        self._expected.discard(topic)
        if self._stream is None:
            self._ids[topic] = new
            self._listed[topic] = urlencode({topic: new})
            listed = "?" + "&".join(self._listed.values())
            if len(listed) <= self._places.sizes.max_listed:
                self.id = listed
                return listed
            self._begin_stream()
        assert self._stream is not None
        self.id = self._places.move(self._stream, topic, new)
        return self.id

    def _begin_stream(self) -> None:
        self._stream = self._places.begin(self._ids)
        self._ids, self._listed = {}, {}

    def expect_only(self, topics: Collection[str]) -> None:
        """Note that the stream will subscribe to no other topic of the client's last id."""
        for topic in self._expected.difference(topics):
            self.forget(topic)
        self._expected.intersection_update(topics)

    def forget(self, topic: str) -> None:
        """Remove a topic to which the stream is no longer subscribed."""
        if self._stream is not None:
            self.id = self._places.move(self._stream, topic, "")
        else:
            self._ids.pop(topic, None)
            self._listed.pop(topic, None)
