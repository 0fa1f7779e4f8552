"""The kernels in Python: functions over bytes, without protocol state.

The compiled kernels in ``_kernels.pyx`` pass every unusual argument to these functions, so that
only these raise argument errors.
"""

from __future__ import annotations

import os
from base64 import b64encode
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from .arguments import check_integer, check_text, wrong_type
from .buffers import octets

if TYPE_CHECKING:
    from typing_extensions import Buffer

INSTRUCTION_SET = "pure Python"

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT_FRAME, BINARY_FRAME = 0x81, 0x82  # the first bytes of unfragmented frames: FIN and the opcode
FIRST_CONTROL_OPCODE = 0x8

# The size up to which one XOR of big integers is fastest. For longer payloads, bytes.translate on
# every fourth byte is faster.
TRANSLATE_FROM = 1024

# Unused masking keys, which are parts of a block of os.urandom. A system call for each frame would
# cost more than the frame. list.pop is atomic, so two threads never receive the same key.
_keys: list[bytes] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keys.clear)


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    check_text(key=key)
    return b64encode(sha1(key.encode("ascii") + GUID).digest()).decode("ascii")


def random_masking_key() -> bytes:
    """Return four unpredictable bytes (RFC 6455 section 5.3)."""
    while True:
        try:
            return _keys.pop()
        except IndexError:
            block = os.urandom(4096)
            _keys.extend(block[i : i + 4] for i in range(0, len(block), 4))


@cache
def _xor_table(byte: int) -> bytes:
    return bytes(byte ^ other for other in range(256))


def _four_bytes(masking_key: Buffer) -> bytes:
    try:
        key = memoryview(masking_key).tobytes()
    except TypeError:
        raise wrong_type("masking_key", "a bytes-like object", masking_key) from None
    if len(key) != 4:
        raise ValueError(f"masking_key must have 4 bytes, not {len(key)}")
    return key


def mask(payload: Buffer, masking_key: Buffer) -> bytes:
    """Return the payload XORed with the masking key (RFC 6455 section 5.3).

    Masking twice with the same key restores the payload.

    Args:
        payload: any C-contiguous bytes-like object.
        masking_key: 4 bytes.

    Raises:
        ValueError: the masking key does not have 4 bytes.
    """
    key = _four_bytes(masking_key)
    view = octets(payload, "payload")
    size = len(view)
    if size < TRANSLATE_FROM:
        stretched = (key * (size // 4 + 1))[:size]
        return (int.from_bytes(view, "little") ^ int.from_bytes(stretched, "little")).to_bytes(
            size, "little"
        )
    masked = bytearray(view)
    for i in range(4):
        masked[i::4] = masked[i::4].translate(_xor_table(key[i]))
    return bytes(masked)


def mask_into(buffer: Buffer, masking_key: Buffer, offset: int = 0) -> None:
    """XOR the buffer with the masking key, in place.

    Args:
        buffer: any writable C-contiguous bytes-like object.
        masking_key: 4 bytes.
        offset: the position of the buffer in the payload, in bytes, if the payload comes in chunks.

    Raises:
        ValueError: the masking key does not have 4 bytes, or the offset is negative.
        TypeError: the buffer is read-only.
    """
    key = _four_bytes(masking_key)
    check_integer("offset", offset, 0)
    turn = offset % 4
    view = octets(buffer, "buffer")
    if view.readonly:
        raise wrong_type("buffer", "writable", buffer)
    view[:] = mask(view, key[turn:] + key[:turn])


def encode_frame(
    opcode: int,
    payload: Buffer | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masking_key: Buffer | bool | None = None,
) -> bytes:
    """Return one frame in wire format (RFC 6455 section 5.2).

    Args:
        opcode: 0-15.
        payload: any C-contiguous bytes-like object, or text, which is encoded as UTF-8.
        fin: True if this is the last frame of its message.
        rsv: the three reserved bits as a number; RSV1, which compression uses, is 4.
        masking_key: None for no mask (a server), True for a random key (a client), or 4 bytes.

    Raises:
        ValueError: a number is out of range, or a control frame is fragmented or has a payload of
            more than 125 bytes (RFC 6455 section 5.5).
        UnicodeEncodeError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
    """
    try:
        if not (0 <= opcode <= 15 and 0 <= rsv <= 7):
            raise ValueError
        first = bool(fin) << 7 | rsv << 4 | opcode
    except (TypeError, ValueError):
        check_integer("opcode", opcode, 0, 15)
        check_integer("rsv", rsv, 0, 7)
        raise
    if isinstance(payload, str):
        payload = payload.encode()
    view = octets(payload, "payload")
    size = len(view)
    if opcode >= FIRST_CONTROL_OPCODE and not fin:
        raise ValueError("a control frame must not be fragmented")
    if opcode >= FIRST_CONTROL_OPCODE and size > 125:
        raise ValueError(f"payload must have at most 125 bytes in a control frame, not {size}")

    if masking_key is None:
        mask_bit, key, body = 0, b"", bytes(view)
    elif masking_key is False:
        raise TypeError("masking_key must be None, True or 4 bytes, not False")
    else:
        key = random_masking_key() if masking_key is True else _four_bytes(masking_key)
        mask_bit, body = 0x80, mask(view, key)

    return frame_head(first, mask_bit, size) + key + body


def frame_head(first: int, mask_bit: int, size: int) -> bytes:
    """Return the header of a frame without the masking key.

    Args:
        first: the first byte.
        mask_bit: 0x80 for a masked frame, otherwise 0.
        size: the size of the payload.
    """
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 65536:
        return bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")


def parse_frame(data: Buffer, start: int) -> tuple[int, int, int, int] | None:
    """Parse the header of the frame that begins at ``start``, without validating it.

    Returns:
        The first byte, the second byte, the length of the payload, and the position after the
        length, where the masking key or the payload begins. The length is -1 if its bytes are
        incomplete. None if fewer than two bytes are available.

    Raises:
        ValueError: the start is negative.
    """
    if start < 0:
        raise ValueError(f"start must not be negative: {start}")
    view = octets(data)
    if len(view) - start < 2:
        return None
    first, second = view[start], view[start + 1]
    length, position = second & 0x7F, start + 2
    if length > 125:
        extended = 2 if length == 126 else 8
        if len(view) - position < extended:
            return first, second, -1, position
        length = int.from_bytes(view[position : position + extended], "big")
        position += extended
    return first, second, length, position


def take_messages(data: Buffer, start: int, messages: list[Any], limit: int, masked: bool) -> int:
    """Decode the leading unfragmented messages, and stop at any other frame without judging it.

    A frame is decoded if it is complete, final, text or binary, and without reserved bits. Its
    masking must match ``masked``, its length must be in the shortest form and within the limit, and
    text must be valid UTF-8. Its payload is appended to ``messages``, as ``str`` or ``bytes``.

    Returns:
        The number of bytes at the end of the data that were not decoded.

    Raises:
        ValueError: the start is negative.
    """
    view = octets(data)
    size = len(view)
    while (head := parse_frame(view, start)) is not None:
        first, second, length, position = head
        if first not in (TEXT_FRAME, BINARY_FRAME) or second >> 7 != masked:
            break
        if length > limit or not _is_minimal(second & 0x7F, length):
            break
        payload_at = position + 4 * masked
        end = payload_at + length
        if end > size:
            break
        payload = bytes(view[payload_at:end])
        if masked:
            payload = mask(payload, view[position:payload_at])
        if first == TEXT_FRAME:
            try:
                messages.append(payload.decode())
            except UnicodeDecodeError:
                break
        else:
            messages.append(payload)
        start = end
    return size - start


def take_frame(data: Buffer, start: int, limit: int, masked: bool) -> tuple[int, bytes, int] | None:
    """Decode the frame of any type that begins at ``start``.

    A frame is decoded if it is complete, its masking matches ``masked``, and its length is in the
    shortest form and within the limit.

    Returns:
        The first byte, the unmasked payload, and the end of the frame; None if it is not decoded.

    Raises:
        ValueError: the start is negative.
    """
    view = octets(data)
    head = parse_frame(view, start)
    if head is None:
        return None
    first, second, length, position = head
    if second >> 7 != masked or length > limit or not _is_minimal(second & 0x7F, length):
        return None
    payload_at = position + 4 * masked
    end = payload_at + length
    if end > len(view):
        return None
    payload = bytes(view[payload_at:end])
    return first, mask(payload, view[position:payload_at]) if masked else payload, end


def _is_minimal(length_field: int, length: int) -> bool:
    """Return True if the length is complete and in its shortest form (RFC 6455 section 5.2)."""
    return length_field < 126 or length > (125 if length_field == 126 else 65535)
