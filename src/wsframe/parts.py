"""Messages that are sent in parts: each part becomes one frame (RFC 6455 section 5.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from .arguments import wrong_type
from .buffers import octets
from .errors import StateError
from .frames import BINARY, CONTINUATION, TEXT
from .kernels import encode_frame

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .deflate import Deflater

__all__ = [
    "MESSAGE_TYPES",
    "Encoder",
    "OutgoingMessage",
    "each_frame",
    "encode_masked",
    "refuse_message",
    "unfinished",
]

#: A function from an opcode and a payload to a frame.
Encoder: TypeAlias = "Callable[[int, Buffer | str], bytes]"

MESSAGE_TYPES = "str or a C-contiguous bytes-like object"


class OutgoingMessage:
    """A message that is sent in parts; its first part decides between text and binary.

    Only one thread at a time may use it.

    Args:
        owner: the generator that sends the message, or None for a caller of ``encode_part``.
        text: True for a text message.
        masked: True if the frames must be masked, as a client's.
        encoders: the connection's functions for whole messages: the encoder, and the compressor or
            None.
        compress: False to send the message uncompressed.

    Attributes:
        owner: the argument of this name.
        encoders: the argument of this name; the connection restores the encoders after the last
            part.
    """

    __slots__ = ("_deflater", "_masking_key", "_opcode", "_text", "_window", "encoders", "owner")

    def __init__(
        self,
        owner: object,
        *,
        text: bool,
        masked: bool,
        encoders: tuple[Encoder, Deflater | None],
        compress: bool | None,
    ) -> None:
        self.owner: object = owner
        self.encoders: tuple[Encoder, Deflater | None] = encoders
        self._text = text
        self._opcode = TEXT if text else BINARY
        self._masking_key = True if masked else None
        self._deflater = None if compress is False else encoders[1]
        self._window = [] if self._deflater is None else self._deflater.window()

    def encode(self, part: str | Buffer, *, final: bool) -> bytes:
        """Return the frame of a part; b"" for an empty part that requires no frame.

        Raises:
            TypeError: the part has another type than the first one.
            ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        payload = self._payload(part)
        opcode = self._opcode
        if not payload and not final and opcode == CONTINUATION:
            return b""
        if self._deflater is None:
            frame = encode_frame(opcode, payload, fin=final, masking_key=self._masking_key)
        else:
            frame = self._deflater.encode_part(self._window, opcode, payload, final)
        self._opcode = CONTINUATION
        return frame

    def _payload(self, part: str | Buffer) -> memoryview:
        if isinstance(part, str):
            if self._text:
                return memoryview(part.encode())
        elif not self._text:
            return octets(part, "part")
        kind = "str, as the first part" if self._text else "a bytes-like object, as the first part"
        raise wrong_type("part", kind, part)


def each_frame(
    parts: Iterable[str | Buffer], encode: Callable[[str | Buffer, bool], bytes]
) -> Iterator[bytes]:
    """Yield the frames of a message: one for each part, and an empty one.

    Args:
        parts: the parts.
        encode: a function from a part, and from True for the last part, to a frame.

    Raises:
        ValueError: there is no part.
    """
    empty: str | bytes | None = None
    for part in parts:
        if frame := encode(part, False):
            yield frame
        empty = "" if isinstance(part, str) else b""
    if empty is None:
        raise ValueError("parts must have at least one item, which decides the type of message")
    yield encode(empty, True)


def encode_masked(opcode: int, payload: Buffer | str) -> bytes:
    """Return a complete, masked frame of a client."""
    return encode_frame(opcode, payload, masking_key=True)


def refuse_message(opcode: int, payload: Buffer | str) -> NoReturn:
    """Refuse a message; :class:`wsframe.Connection` uses this encoder until the last part."""
    raise unfinished()


def unfinished() -> StateError:
    """Return the error for a message that begins before the last part of another one."""
    return StateError("a message is being sent in parts; no other may begin before its last part")
