# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The kernels over raw pointers; argument errors are raised by their counterparts in ``_pure.py``.

They need no GIL: the only state that they keep between calls is a stock of masking keys per thread.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

import os

from . import _pure

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    unsigned char *PyUnicode_1BYTE_DATA(object text)
    bint PyUnicode_CheckExact(object o)
    bint PyLong_Check(object o)
    long PyLong_AsLongAndOverflow(object number, int *overflow)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "xor.h" nogil:
    int xor_bytes(unsigned char *dst, const unsigned char *src, size_t size, uint32_t key)
    const char *xor_instruction_set
    void xor_choose()
    uint32_t xor_load_key(const unsigned char *key)
    uint32_t xor_rotate_key(uint32_t key, size_t offset)

cdef extern from "accept_key.h":
    enum: KEY_SIZE
    enum: ACCEPT_SIZE
    void accept_key_choose()
    void accept_key_compute(char *accept, const char *key)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #define PER_THREAD __declspec(thread)
    #else
    #define PER_THREAD _Thread_local
    #endif
    enum { KEY_STOCK = 4096 };
    /* Masking keys cut from a block of os.urandom; one stock per thread, so none is used twice. */
    static PER_THREAD unsigned char key_stock[KEY_STOCK];
    static PER_THREAD int keys_left = 0;

    #if defined(Py_GIL_DISABLED)
    enum { GIL_ENABLED = 0 };
    #else
    enum { GIL_ENABLED = 1 };
    #endif
    """
    enum: GIL_ENABLED
    enum: KEY_STOCK
    unsigned char *key_stock
    int keys_left

xor_choose()
accept_key_choose()
INSTRUCTION_SET = xor_instruction_set.decode()

cdef enum:
    # The payload size from which the GIL is released while masking or copying. For smaller
    # payloads, reacquiring the GIL would cost more than the work.
    LARGE = 1 << 18
    COPY_FROM = 1 << 15  # the size from which memcpy is faster than the XOR with zeros

cdef enum:
    TEXT_FRAME = 0x81
    BINARY_FRAME = 0x82
    FIRST_CONTROL_OPCODE = 0x8


def forget_masking_keys():
    global keys_left
    keys_left = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_masking_keys)


cdef object ZERO = 0  # the default argument, recognized by identity at no cost

# Bytes, and views of anything else -------------------------------------------------------------

cdef struct Span:
    unsigned char *start
    Py_ssize_t size
    bint exported  # True if `view` must be released; bytes and str need no view
    Py_buffer view


cdef inline bint borrow(object data, Span *span, int flags) noexcept:
    """Store the object's memory in the span; return False, without an exception, on failure."""
    span.exported = False
    if PyBytes_CheckExact(data) and flags == PyBUF_SIMPLE:
        span.start = <unsigned char *>PyBytes_AS_STRING(data)
        span.size = PyBytes_GET_SIZE(data)
        return True
    if PyByteArray_CheckExact(data) and PyByteArray_GET_SIZE(data) < LARGE and GIL_ENABLED:
        # No export is required, because no other thread can resize the object while this one holds
        # the GIL.
        span.start = <unsigned char *>PyByteArray_AS_STRING(data)
        span.size = PyByteArray_GET_SIZE(data)
        return True
    return borrow_view(data, span, flags)


cdef bint borrow_view(object data, Span *span, int flags) noexcept:
    """Borrow any other object; separate, so that `borrow` is small enough to be inlined."""
    try:
        PyObject_GetBuffer(data, &span.view, flags)
    except Exception:
        return False
    span.exported = True
    span.start = <unsigned char *>span.view.buf
    span.size = span.view.len
    return True


cdef inline void give_back(Span *span) noexcept:
    if span.exported:
        PyBuffer_Release(&span.view)


cdef inline int xor_span(
    unsigned char *dst, const unsigned char *src, Py_ssize_t size, uint32_t key
) noexcept:
    cdef int high
    if size < LARGE:
        return xor_bytes(dst, src, size, key)
    with nogil:
        high = xor_bytes(dst, src, size, key)
    return high


cdef inline void copy_span(
    unsigned char *dst, const unsigned char *src, Py_ssize_t size
) noexcept:
    """Copy by XOR with zeros, or by memcpy where that is faster.

    memcpy is faster for a large block, unless the target is a few bytes past the source modulo
    4 KiB, where the string copy of some CPUs is slow. A header before the payload in a new block
    often leads to this distance.
    """
    if size < COPY_FROM or (<size_t>dst - <size_t>src) % 4096 < 64:
        xor_span(dst, src, size, 0)
    elif size < LARGE:
        memcpy(dst, src, size)
    else:
        with nogil:
            memcpy(dst, src, size)


cdef inline int small_number(object number) noexcept:
    """Return an integer of 0-255, or -1 for any other number or type."""
    cdef int overflow
    cdef long value
    if not PyLong_Check(number):
        return -1
    value = PyLong_AsLongAndOverflow(number, &overflow)
    return <int>value if 0 <= value <= 255 else -1


cdef inline bint is_key(object masking_key) noexcept:
    return PyBytes_CheckExact(masking_key) and PyBytes_GET_SIZE(masking_key) == 4


cdef inline uint32_t load_key(object masking_key) noexcept:
    return xor_load_key(<const unsigned char *>PyBytes_AS_STRING(masking_key))


cdef uint32_t random_key() except? 0:
    global keys_left
    if keys_left == 0:
        block = bytes(os.urandom(KEY_STOCK))
        if len(block) != KEY_STOCK:
            raise RuntimeError(f"os.urandom returned {len(block)} bytes, not {KEY_STOCK}")
        memcpy(key_stock, PyBytes_AS_STRING(block), KEY_STOCK)
        keys_left = KEY_STOCK // 4
    keys_left -= 1
    return xor_load_key(key_stock + 4 * keys_left)


# The kernels --------------------------------------------------------------------------------------

def accept_key(key):
    """Return the Sec-WebSocket-Accept value for a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    if not (PyUnicode_CheckExact(key) and PyUnicode_IS_COMPACT_ASCII(key)
            and PyUnicode_GET_LENGTH(key) == KEY_SIZE):
        return _pure.accept_key(key)
    accept = PyUnicode_New(ACCEPT_SIZE, 127)
    accept_key_compute(<char *>PyUnicode_1BYTE_DATA(accept), <char *>PyUnicode_1BYTE_DATA(key))
    return accept


def mask(payload, masking_key):
    """Return the payload XORed with the masking key (RFC 6455 section 5.3).

    Masking twice with the same key restores the payload.

    Args:
        payload: any C-contiguous bytes-like object.
        masking_key: 4 bytes.

    Raises:
        ValueError: the masking key does not have 4 bytes.
    """
    cdef Span source
    if not is_key(masking_key) or not borrow(payload, &source, PyBUF_SIMPLE):
        return _pure.mask(payload, masking_key)
    try:
        masked = PyBytes_FromStringAndSize(NULL, source.size)
        xor_span(<unsigned char *>PyBytes_AS_STRING(masked), source.start, source.size,
                 load_key(masking_key))
        return masked
    finally:
        give_back(&source)


def mask_into(buffer, masking_key, offset=0):
    """XOR the buffer with the masking key, in place.

    Args:
        buffer: any writable C-contiguous bytes-like object.
        masking_key: 4 bytes.
        offset: the position of the buffer in the payload, in bytes, if the payload comes in chunks.

    Raises:
        ValueError: the masking key does not have 4 bytes, or the offset is negative.
        TypeError: the buffer is read-only.
    """
    cdef Span target
    cdef int turn = 0
    if offset is not ZERO:
        turn = offset & 3 if PyLong_Check(offset) and offset >= 0 else -1
    if turn < 0 or not is_key(masking_key) or not borrow(buffer, &target, PyBUF_WRITABLE):
        _pure.mask_into(buffer, masking_key, offset)
        return
    xor_span(target.start, target.start, target.size, xor_rotate_key(load_key(masking_key), turn))
    give_back(&target)


def encode_frame(opcode, payload=b"", *, fin=True, rsv=0, masking_key=None):
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
    cdef Span source
    cdef int code = small_number(opcode)
    cdef int reserved = 0 if rsv is ZERO else small_number(rsv)
    cdef bint final = fin
    cdef uint32_t key = 0
    cdef bint masked = masking_key is not None
    cdef Py_ssize_t head
    cdef unsigned char *out
    if code < 0 or code > 15 or reserved < 0 or reserved > 7:
        return _pure.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=masking_key)
    # The key is chosen before the payload is borrowed, because os.urandom may let other threads
    # run.
    if masking_key is True:
        key = random_key()
    elif masked and is_key(masking_key):
        key = load_key(masking_key)
    elif masked:
        return _pure.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=masking_key)
    if isinstance(payload, str) and PyUnicode_IS_COMPACT_ASCII(payload):
        source.exported = False
        source.start = PyUnicode_1BYTE_DATA(payload)
        source.size = PyUnicode_GET_LENGTH(payload)
    else:
        if isinstance(payload, str):
            payload = payload.encode()
        if not borrow(payload, &source, PyBUF_SIMPLE):
            return _pure.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=masking_key)
    try:
        if code >= FIRST_CONTROL_OPCODE and (source.size > 125 or not final):
            return _pure.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=masking_key)
        head = head_size(source.size) + 4 * masked
        frame = PyBytes_FromStringAndSize(NULL, head + source.size)
        out = <unsigned char *>PyBytes_AS_STRING(frame)
        write_head(out, final << 7 | reserved << 4 | code, masked << 7, source.size)
        if masked:
            memcpy(out + head - 4, &key, 4)
            xor_span(out + head, source.start, source.size, key)
        else:
            copy_span(out + head, source.start, source.size)
        return frame
    finally:
        give_back(&source)


cdef Py_ssize_t head_size(Py_ssize_t payload_size) noexcept nogil:
    """Return the size of a frame's header without the masking key (RFC 6455 section 5.2)."""
    return 2 if payload_size < 126 else 4 if payload_size < 65536 else 10


cdef void write_head(unsigned char *out, int first, int mask_bit, Py_ssize_t size) noexcept nogil:
    cdef int i
    out[0] = <unsigned char>first
    if size < 126:
        out[1] = <unsigned char>(mask_bit | size)
    elif size < 65536:
        out[1] = <unsigned char>(mask_bit | 126)
        out[2] = <unsigned char>(size >> 8)
        out[3] = <unsigned char>(size & 0xFF)
    else:
        out[1] = <unsigned char>(mask_bit | 127)
        for i in range(8):
            out[2 + i] = <unsigned char>(<uint64_t>size >> (56 - 8 * i) & 0xFF)


cdef struct Head:
    int first
    int second
    uint64_t length
    Py_ssize_t size  # the header's size without the masking key; 0 if incomplete


cdef inline bint read_head(const unsigned char *p, Py_ssize_t available, Head *head) noexcept:
    """Parse the header of a frame; return False if fewer than two bytes are available."""
    cdef int i
    if available < 2:
        return False
    head.first = p[0]
    head.second = p[1]
    head.length = p[1] & 0x7F
    head.size = 2
    if head.length == 126:
        head.size = 4 if available >= 4 else 0
        if head.size:
            head.length = p[2] << 8 | p[3]
    elif head.length == 127:
        head.size = 10 if available >= 10 else 0
        if head.size:
            head.length = 0
            for i in range(8):
                head.length = head.length << 8 | p[2 + i]
    return True


def parse_frame(data, Py_ssize_t start):
    cdef Span source
    cdef Head head
    if start < 0 or not borrow(data, &source, PyBUF_SIMPLE):
        return _pure.parse_frame(data, start)
    try:
        if not read_head(source.start + start, source.size - start, &head):
            return None
        if head.size == 0:
            return head.first, head.second, -1, start + 2
        return head.first, head.second, head.length, start + head.size
    finally:
        give_back(&source)


cdef inline bint read_whole_head(
    const unsigned char *p, Py_ssize_t available, Py_ssize_t limit, bint masked, Head *head
) noexcept:
    """Parse the header of a complete frame; return False if the frame cannot be decoded here.

    On success the size of the header includes the masking key.
    """
    if not read_head(p, available, head):
        return False
    if head.second >> 7 != masked or head.size == 0 or head.length > <uint64_t>limit:
        return False
    if head.size > 2 and head.length < <uint64_t>(126 if head.size == 4 else 65536):
        return False
    head.size += 4 * masked
    # A subtraction cannot overflow, although the length may be close to the largest number.
    return available >= head.size and available - head.size >= <Py_ssize_t>head.length


def take_frame(data, Py_ssize_t start, Py_ssize_t limit, bint masked):
    cdef Span source
    cdef Head head
    cdef const unsigned char *p
    cdef Py_ssize_t size
    if start < 0 or limit < 0 or not borrow(data, &source, PyBUF_SIMPLE):
        return _pure.take_frame(data, start, limit, masked)
    try:
        p = source.start + start
        if not read_whole_head(p, source.size - start, limit, masked, &head):
            return None
        size = <Py_ssize_t>head.length
        payload = PyBytes_FromStringAndSize(NULL, size)
        xor_span(
            <unsigned char *>PyBytes_AS_STRING(payload), p + head.size, size,
            xor_load_key(p + head.size - 4) if masked else 0,
        )
        return head.first, payload, start + head.size + size
    finally:
        give_back(&source)


def take_messages(data, Py_ssize_t start, list messages not None, Py_ssize_t limit, bint masked):
    cdef Span source
    if start < 0 or limit < 0 or not borrow(data, &source, PyBUF_SIMPLE):
        return _pure.take_messages(data, start, messages, limit, masked)
    try:
        if start >= source.size:
            return source.size - start
        return take_from(source.start + start, source.size - start, messages, limit, masked)
    finally:
        give_back(&source)


cdef Py_ssize_t take_from(
    const unsigned char *p, Py_ssize_t left, list messages, Py_ssize_t limit, bint masked
) except -1:
    """Append the complete, uncompressed messages at the beginning; return the rest of the data."""
    cdef Head head
    cdef Py_ssize_t size
    cdef uint32_t key = 0
    while read_whole_head(p, left, limit, masked, &head):
        if head.first != TEXT_FRAME and head.first != BINARY_FRAME:
            break
        if masked:
            key = xor_load_key(p + head.size - 4)
        size = <Py_ssize_t>head.length
        if head.first == BINARY_FRAME:
            message = PyBytes_FromStringAndSize(NULL, size)
            xor_span(<unsigned char *>PyBytes_AS_STRING(message), p + head.size, size, key)
        else:
            message = take_text(p + head.size, size, key)
            if message is None:
                break
        messages.append(message)
        p += head.size + size
        left -= head.size + size
    return left


cdef inline object take_text(const unsigned char *payload, Py_ssize_t size, uint32_t key):
    """Unmask into a new str, which is the result if all bytes are ASCII; None for invalid UTF-8."""
    text = PyUnicode_New(size, 127)
    if size == 0 or not xor_span(PyUnicode_1BYTE_DATA(text), payload, size, key):
        return text
    try:
        return PyUnicode_DecodeUTF8(<char *>PyUnicode_1BYTE_DATA(text), size, NULL)
    except UnicodeDecodeError:
        return None
