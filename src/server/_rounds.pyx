# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The system calls of one round of the loop, for many connections in one Python call.

``receive`` polls, receives and decodes. ``send`` and ``send_block`` send. Each handles the common
case. It returns everything else, errors included, to its Python caller, and ``pure_rounds.py``
has an equivalent of each in Python.

Only the owner of a loop calls these functions. They keep no state besides the fields of ``Wire``,
and write only to buffers of their caller.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_GetSlice
from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.math cimport ceil
from libc.string cimport memcpy, memset

from wsframe._kernels cimport head_size, take_from, write_head

cdef extern from "Python.h":
    int PyList_SetSlice(list target, Py_ssize_t low, Py_ssize_t high, PyObject *items) except -1
    unsigned char *PyUnicode_1BYTE_DATA(object text)
    bint PyUnicode_CheckExact(object o)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum: EPOLLIN
    int epoll_wait(int epoll, epoll_event *events, int maximum, int timeout)

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    cdef struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    Py_ssize_t recv(int fd, void *buffer, size_t size, int flags)
    Py_ssize_t send_bytes "send"(int fd, const void *data, size_t size, int flags)
    Py_ssize_t sendmsg(int fd, const msghdr *message, int flags)

cdef enum:
    MAX_READY = 64  # sockets in one round
    MAX_BYTES = 1 << 20  # bytes after which no more is received in a round
    MAX_PIECES = 128  # pieces of one sendmsg
    COPY_LIMIT = 4096  # a longer payload is sent from where it is
    LARGE = 1 << 16  # release the GIL to send more than this
    TEXT_FRAME = 0x81
    BINARY_FRAME = 0x82
    BROKEN_EVENT = 1 << 30
    DECLINED = -2
    MAX_FANOUT = 128  # connections in one release of the GIL

BROKEN = BROKEN_EVENT


cdef class Wire:
    """The fields of one connection; see ``pure_rounds.Wire``."""

    cdef public int fd
    cdef public object sock
    cdef public object session
    cdef public Py_ssize_t limit
    cdef readonly list out
    cdef public bint clear
    cdef public Py_ssize_t waiting
    cdef public Py_ssize_t large
    cdef public long long bytes_in
    cdef public long long messages_in
    cdef public long long bytes_out
    cdef public long long frames_out

    def __cinit__(self):
        self.fd = -1
        self.limit = -1
        self.out = []
        self.clear = True


def queue_message(list out not None, message):
    """Queue a message without its header; see ``pure_rounds.queue_message``."""
    cdef Py_ssize_t size
    if PyUnicode_CheckExact(message) and PyUnicode_IS_COMPACT_ASCII(message):
        out.append(message)
        size = PyUnicode_GET_LENGTH(message)
    elif PyBytes_CheckExact(message):
        out.append((message,))
        size = PyBytes_GET_SIZE(message)
    else:
        return -1
    return head_size(size) + size


def receive(files, list wires not None, bytearray buffer not None, timeout):
    """Wait, receive once from each ready socket, take messages; see ``pure_rounds.receive``."""
    cdef epoll_event events[MAX_READY]
    cdef unsigned char *start = <unsigned char *>PyByteArray_AS_STRING(buffer)
    cdef Py_ssize_t share = PyByteArray_GET_SIZE(buffer) // 2, used = 0, total = 0, size, left
    cdef int count, i, fd, epoll = files.fileno()
    cdef int milliseconds = -1 if timeout is None else <int>ceil(1000 * <double>timeout)
    cdef Wire wire
    cdef list messages, received = [], ready = []
    with nogil:
        count = epoll_wait(epoll, events, MAX_READY, milliseconds)
    for i in range(count):  # none after an error, which is EINTR
        fd = events[i].data.fd
        entry = None
        if events[i].events == EPOLLIN and fd < PyList_GET_SIZE(wires) \
                and used <= share and total < MAX_BYTES:
            entry = wires[fd]
        if entry is None or (<Wire?>entry).limit < 0:
            ready.append((fd, events[i].events))
            continue
        wire = <Wire>entry
        size = recv(fd, start + used, share, MSG_DONTWAIT)
        if size <= 0:
            if size == 0:
                ready.append((fd, EPOLLIN))
            elif errno != EAGAIN and errno != EINTR:
                ready.append((fd, BROKEN_EVENT))
            continue
        wire.bytes_in += size
        messages = []
        try:
            left = take_from(start + used, size, messages, wire.limit, True)
        except MemoryError:
            ready.append((fd, BROKEN_EVENT))
            continue
        wire.messages_in += PyList_GET_SIZE(messages)
        total += size
        if left:
            used += size  # the memory is needed until the caller has processed the rest
            received.append((wire.session, messages, memoryview(buffer)[used - left:used]))
        else:
            received.append((wire.session, messages, None))
    return received, ready


cdef struct Piece:
    int first  # the first byte of the header; 0 for bytes that are sent as they are, -1 if unknown
    const unsigned char *data
    Py_ssize_t size


cdef inline Piece piece_of(object item):
    cdef Piece piece
    if PyUnicode_CheckExact(item):
        piece.first = TEXT_FRAME
        piece.data = PyUnicode_1BYTE_DATA(item)
        piece.size = PyUnicode_GET_LENGTH(item)
        return piece
    piece.first = 0
    if PyTuple_CheckExact(item):
        piece.first = BINARY_FRAME
        item = <object>PyTuple_GET_ITEM(item, 0)
    if not PyBytes_Check(item):
        piece.first = -1
        return piece
    piece.data = <const unsigned char *>PyBytes_AS_STRING(item)
    piece.size = PyBytes_GET_SIZE(item)
    return piece


cdef Py_ssize_t send_items(
    int fd, list items, unsigned char *scratch, Py_ssize_t room, Py_ssize_t *total
):
    """Send the items in one system call, and store their size.

    Short pieces are joined in the scratch; a long one is sent from its own memory.

    Returns:
        The number of bytes sent; -1 for an error; DECLINED if nothing was tried.
    """
    cdef iovec pieces[MAX_PIECES]
    cdef msghdr message
    cdef Piece piece
    cdef int count = 0
    cdef Py_ssize_t used = 0, begun = 0, i, sent
    total[0] = 0
    for i in range(PyList_GET_SIZE(items)):
        piece = piece_of(<object>PyList_GET_ITEM(items, i))
        if piece.first < 0 or used + 10 + COPY_LIMIT > room or count > MAX_PIECES - 3:
            return DECLINED
        if piece.first:
            write_head(scratch + used, piece.first, 0, piece.size)
            used += head_size(piece.size)
        if piece.size <= COPY_LIMIT:
            memcpy(scratch + used, piece.data, piece.size)
            used += piece.size
            continue
        if used > begun:
            pieces[count].iov_base = scratch + begun
            pieces[count].iov_len = used - begun
            total[0] += used - begun
            begun = used
            count += 1
        pieces[count].iov_base = <void *>piece.data
        pieces[count].iov_len = piece.size
        total[0] += piece.size
        count += 1
    total[0] += used - begun
    if count == 0:
        return send_bytes(fd, scratch, used, MSG_DONTWAIT | MSG_NOSIGNAL)
    if used > begun:
        pieces[count].iov_base = scratch + begun
        pieces[count].iov_len = used - begun
        count += 1
    memset(&message, 0, sizeof(message))
    message.msg_iov = pieces
    message.msg_iovlen = count
    if total[0] < LARGE:
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    with nogil:
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    return sent


def send(list connections not None, bytearray scratch not None):
    """Send the queued items of each connection; see ``pure_rounds.send``."""
    cdef unsigned char *memory = <unsigned char *>PyByteArray_AS_STRING(scratch)
    cdef Py_ssize_t room = PyByteArray_GET_SIZE(scratch), queued, sent, total = 0
    cdef list incomplete = [], items
    cdef Wire wire
    for connection in connections:
        wire = <Wire?>connection
        queued = PyList_GET_SIZE(wire.out)
        if queued == 0:
            continue
        if wire.fd < 0 or not wire.clear:
            incomplete.append((wire, None, 0))
            continue
        items = PyList_GetSlice(wire.out, 0, queued)
        sent = send_items(wire.fd, items, memory, room, &total)
        if sent == DECLINED:
            incomplete.append((wire, None, 0))
            continue
        PyList_SetSlice(wire.out, 0, queued, NULL)  # deletes them; other threads only append
        wire.frames_out += queued
        note_sent(wire, wire, items, sent, total, incomplete)
    return incomplete


cdef int note_sent(
    Wire wire, name, list items, Py_ssize_t sent, Py_ssize_t total, list incomplete
) except -1:
    """Count what was sent; append the name of a connection that the caller must serve."""
    wire.large = 0
    if sent > 0:
        wire.bytes_out += sent
    if sent < total:
        incomplete.append((name, items, max(sent, 0)))  # after an error, the caller sends again
    elif wire.waiting:
        incomplete.append((name, (), 0))
    return 0


def send_block(list connections not None, bytes block not None, Py_ssize_t count):
    """Send the same data to each connection; see ``pure_rounds.send_block``."""
    cdef int fds[MAX_FANOUT]
    cdef Py_ssize_t sent[MAX_FANOUT]
    cdef const char *data = PyBytes_AS_STRING(block)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(block), i, first, number
    cdef list incomplete = [], items = [block]
    cdef Wire wire
    for first in range(0, PyList_GET_SIZE(connections), MAX_FANOUT):
        number = min(PyList_GET_SIZE(connections) - first, <Py_ssize_t>MAX_FANOUT)
        for i in range(number):
            wire = <Wire?>connections[first + i]
            fds[i] = wire.fd if wire.clear and PyList_GET_SIZE(wire.out) == 0 else -1
        with nogil:  # only the owner, which waits here, closes these sockets
            for i in range(number):
                if fds[i] >= 0:
                    sent[i] = send_bytes(fds[i], data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        for i in range(number):
            wire = <Wire>connections[first + i]
            if fds[i] < 0:
                incomplete.append((first + i, None, 0))
                continue
            wire.frames_out += count
            note_sent(wire, first + i, items, sent[i], size, incomplete)
    return incomplete
