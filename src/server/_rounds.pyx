# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The work of one round of the loop, for many connections in one Python call.

``receive`` polls, receives and decodes. ``run_turns`` resumes generators with the messages.
``send`` and ``send_block`` send. Each function handles the common case, and returns all other
cases, also errors, to its Python caller. ``pure_rounds.py`` has an equivalent of each function in
Python.

Only the owner of a loop calls these functions. They keep no state besides the fields of ``Wire``
and ``Resumable``, and write only to buffers of their caller. Any thread uses a ``Signal``.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_GetSlice
from cpython.ref cimport Py_DECREF, PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.math cimport ceil
from libc.string cimport memcpy, memset

from wsframe._kernels cimport head_size, take_from, write_head

cdef extern from "Python.h":
    enum: PyBUF_READ
    enum: PyBUF_WRITE
    object PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags)
    int PyList_SetSlice(list target, Py_ssize_t low, Py_ssize_t high, PyObject *items) except -1
    unsigned char *PyUnicode_1BYTE_DATA(object text)
    bint PyUnicode_CheckExact(object o)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object generator, object value, PyObject **result) except PYGEN_ERROR
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef extern from "pythread.h" nogil:
    ctypedef void *PyThread_type_lock
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long us, int interrupt)
    void PyThread_release_lock(PyThread_type_lock lock)

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
    MAX_READY = 64  # the maximum number of sockets in one round
    MAX_BYTES = 1 << 20  # the number of bytes after which a round receives no more
    MAX_PIECES = 128  # the maximum number of pieces of one sendmsg
    COPY_LIMIT = 4096  # a longer payload is sent without a copy
    LARGE_FRAME = 4096  # the size from which a frame counts towards the limit of a turn
    RECORD = 1 << 14  # the maximum data of a TLS record (RFC 8446 section 5.1)
    HEADER = 5  # the size of a TLS record's header
    LONGEST = HEADER + RECORD + 2048
    MAJOR_VERSION = 3
    SEAL_AT_ONCE = 1 << 17  # the maximum of bytes encrypted at once for one client
    GAP = (1 << 14) + 2048  # the distance of records from their data
    LARGE = 1 << 16  # the size from which the GIL is released to send
    TEXT_FRAME = 0x81
    BINARY_FRAME = 0x82
    BROKEN_EVENT = 1 << 30
    DECLINED = -2
    MAX_FANOUT = 128  # the maximum of connections in one release of the GIL

    # The results of ``run_turns``.
    OVER = 0
    UNTOUCHED = 1
    FINISHED = 2
    LOST = 3
    FAILED = 4

BROKEN = BROKEN_EVENT


cdef class Wire:
    """The fields of one connection; see ``pure_rounds.Wire``."""

    # The small fields are neighbours, so an idle connection takes less memory.
    cdef public int fd
    cdef public bint clear
    cdef public bint in_turn
    cdef public bint stop_turn
    cdef public object sock
    cdef public object tls
    cdef public object session
    cdef public Py_ssize_t limit
    cdef readonly list out
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

    def queue_message(self, message):
        """Queue a message without its header; see ``pure_rounds.Wire``."""
        cdef Py_ssize_t size
        if PyUnicode_CheckExact(message) and PyUnicode_IS_COMPACT_ASCII(message):
            self.out.append(message)
            size = PyUnicode_GET_LENGTH(message)
        elif PyBytes_CheckExact(message):
            self.out.append((message,))
            size = PyBytes_GET_SIZE(message)
        else:
            return -1
        size += head_size(size)
        return 0 if self.in_turn and size <= LARGE_FRAME else size


cdef class Resumable:
    """The fields of one task; see ``pure_rounds.Resumable``."""

    cdef public object peer
    cdef public object profile
    cdef public object context
    cdef public object generator
    cdef public object state
    cdef public bint needs_thread
    cdef public bint needs_finish


cdef class Signal:
    """A signal for which one thread waits; see ``pure_rounds.Signal``."""

    cdef PyThread_type_lock lock  # locked while this Signal is not set; wait() acquires it
    cdef readonly bint is_set

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError
        PyThread_acquire_lock_timed(self.lock, 0, 0)

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

    def set(self):
        """End the current or the next wait."""
        if not self.is_set:
            self.is_set = True
            PyThread_release_lock(self.lock)

    def wait(self, timeout, Signal following=None):
        """Set the following signal, and wait for this one; see ``pure_rounds.Signal``."""
        cdef PyThread_type_lock other = NULL
        cdef PyLockStatus status
        cdef long long us = -1 if timeout is None else <long long>ceil(1e6 * <double>timeout)
        if following is not None and not following.is_set:
            following.is_set = True
            other = following.lock
        with nogil:
            if other is not NULL:
                PyThread_release_lock(other)
            status = PyThread_acquire_lock_timed(self.lock, us, 0)
        if status != PY_LOCK_ACQUIRED:
            return False
        self.is_set = False
        return True


cdef Py_ssize_t decrypt(
    tls, bytearray buffer, Py_ssize_t used, Py_ssize_t share, Py_ssize_t size
) except -1:
    """Decrypt records that were received at ``GAP`` behind the used bytes; return the data's size.

    The data replaces the records. Whole records are handled here, and the others by the caller's
    object: see ``Records.decrypt``.
    """
    cdef unsigned char *memory = <unsigned char *>PyByteArray_AS_STRING(buffer) + used
    cdef Py_ssize_t begin = GAP, end = GAP + size, count = 0, got
    if tls.aligned:
        write, read = tls.incoming.write, tls.read
        while end - begin >= HEADER:
            size = HEADER + (memory[begin + 3] << 8) + memory[begin + 4]
            if size > min(end - begin, <Py_ssize_t>LONGEST) or memory[begin + 1] != MAJOR_VERSION:
                break
            write(PyMemoryView_FromMemory(<char *>memory + begin, size, PyBUF_READ))
            begin += size
            error = None
            got = 0
            try:
                got = read(
                    share - count,
                    PyMemoryView_FromMemory(<char *>memory + count, share - count, PyBUF_WRITE),
                )
            except OSError as raised:
                error = raised
            if got == 0 and tls.stops(error):
                return count
            count += got
        if begin == end and not tls.outgoing.pending:
            return count
    return tls.decrypt(memoryview(buffer)[used:used + share], begin, end, count, share)


def receive(files, list wires not None, bytearray buffer not None, timeout):
    """Wait, receive once from each ready socket, take messages; see ``pure_rounds.receive``."""
    cdef epoll_event events[MAX_READY]
    cdef unsigned char *start = <unsigned char *>PyByteArray_AS_STRING(buffer)
    cdef Py_ssize_t share = PyByteArray_GET_SIZE(buffer) // 2, used = 0, total = 0, size, left, gap
    cdef int count, i, fd, epoll = files.fileno()
    cdef int milliseconds = -1 if timeout is None else <int>ceil(1000 * <double>timeout)
    cdef Wire wire
    cdef list messages, received = [], ready = []
    with nogil:
        count = epoll_wait(epoll, events, MAX_READY, milliseconds)
    for i in range(count):  # count is -1 after an error, which is EINTR
        fd = events[i].data.fd
        entry = None
        if events[i].events == EPOLLIN and fd < PyList_GET_SIZE(wires) \
                and used <= share and total < MAX_BYTES:
            entry = wires[fd]
        if entry is None or (<Wire?>entry).limit < 0:
            ready.append((fd, events[i].events))
            continue
        wire = <Wire>entry
        gap = 0
        if wire.tls is not None:
            if wire.tls.more:
                ready.append((fd, EPOLLIN))
                continue
            gap = GAP
        size = recv(fd, start + used + gap, share - gap, MSG_DONTWAIT)
        if size <= 0:
            if size == 0:
                ready.append((fd, EPOLLIN))
            elif errno != EAGAIN and errno != EINTR:
                ready.append((fd, BROKEN_EVENT))
            continue
        wire.bytes_in += size
        messages = []
        try:
            if gap:
                size = decrypt(wire.tls, buffer, used, share, size)
                if wire.tls.more:
                    ready.append((fd, EPOLLIN))
                if size == 0:
                    continue
            left = take_from(start + used, size, messages, wire.limit, True)
        except MemoryError:
            ready.append((fd, BROKEN_EVENT))
            continue
        wire.messages_in += PyList_GET_SIZE(messages)
        total += size
        if left:
            # The returned memoryview refers to these bytes. So the next data is stored after them.
            used += size
            received.append((wire.session, messages, memoryview(buffer)[used - left:used]))
        else:
            received.append((wire.session, messages, None))
    return received, ready


def run_turns(round_, ownership, idle, Py_ssize_t most):
    """Run turns of generators that wait, on the loop; see ``pure_rounds.run_turns``."""
    cdef list messages, answered = round_.answered, token = ownership.token
    cdef double now, send_by = round_.send_by
    cdef Resumable task
    cdef Wire wire
    take_token = token.pop
    clock = round_.clock
    for entry in round_.received:
        session, messages, rest = entry
        if rest is not None or not isinstance(session, Resumable):
            return UNTOUCHED, entry
        task = <Resumable>session
        if (
            task.generator is None or task.state is not idle or task.needs_thread
            or PyList_GET_SIZE(messages) > most or task.profile.slow or task.over is not None
        ):
            return UNTOUCHED, entry
        wire = <Wire?>task.peer
        ownership.task = task
        wire.in_turn = True
        token.append(messages)
        error = None
        try:
            resume(task, wire, messages)
        except BaseException as internal:  # any error, because the token must be popped
            error = internal
        wire.in_turn = False
        try:
            take_token()
        except IndexError:
            return LOST, (task, error)
        if error is not None:
            return FAILED, (task, error)
        now = clock()
        if now >= send_by or task.needs_finish:
            return FINISHED, task
        round_.turn_ended = now
        answered.append(wire)
    return OVER, None


cdef int resume(Resumable task, Wire wire, list messages) except -1:
    """Resume the generator with each message, while it waits for the next message."""
    cdef PyObject *result
    cdef PySendResult how
    cdef Py_ssize_t i = 0, count = PyList_GET_SIZE(messages)
    yielded = error = None
    try:
        PyContext_Enter(task.context)
        try:
            for i in range(count):
                how = PyIter_Send(task.generator, <object>PyList_GET_ITEM(messages, i), &result)
                yielded = <object>result
                Py_DECREF(yielded)  # the reference that the call has returned
                if how == PYGEN_RETURN:
                    error = StopIteration(yielded)
                    break
                if yielded is not None or wire.stop_turn:
                    break
        finally:
            PyContext_Exit(task.context)
    except BaseException as raised:
        error = raised
    if error is not None or yielded is not None or wire.stop_turn:
        task.after_resume(yielded, error, messages[i + 1:])
    return 0


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


cdef Py_ssize_t send_pieces(int fd, iovec *pieces, size_t count, Py_ssize_t total):
    """Send pieces of this total size in one system call; return the number of bytes sent, or -1."""
    cdef msghdr message
    cdef Py_ssize_t sent
    memset(&message, 0, sizeof(message))
    message.msg_iov = pieces
    message.msg_iovlen = count
    if total < LARGE:
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    with nogil:
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    return sent


cdef Py_ssize_t send_items(
    int fd, list items, unsigned char *scratch, Py_ssize_t room, Py_ssize_t *total
):
    """Send the items in one system call, and store their size.

    Short pieces are joined in the scratch; a long one is sent from its own memory.

    Returns:
        The number of bytes sent; -1 for an error; DECLINED if nothing was tried.
    """
    cdef iovec pieces[MAX_PIECES]
    cdef Piece piece
    cdef int count = 0
    cdef Py_ssize_t used = 0, begun = 0, i
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
    return send_pieces(fd, pieces, count, total[0])


cdef bytes seal(tls, char *data, Py_ssize_t size):
    """Return the TLS record of the data; see ``Records.seal``."""
    view = PyMemoryView_FromMemory(data, size, PyBUF_READ)
    cdef Py_ssize_t sent = tls.write(view)
    records = tls.outgoing.read()
    return <bytes?>(records if sent == size else records + tls.seal(view[sent:]))


cdef list seal_items(tls, list items, bytearray scratch):
    """Return the records of the items; None if the caller must serve the connection.

    Short pieces are joined in the scratch; the inner part of a long one is encrypted from where it
    is.
    """
    cdef unsigned char *memory = <unsigned char *>PyByteArray_AS_STRING(scratch)
    cdef Py_ssize_t used = 0, total = 0, begin, size, i
    cdef list records = []
    cdef Piece piece
    if PyByteArray_GET_SIZE(scratch) < RECORD or not tls.secured:
        return None
    for i in range(PyList_GET_SIZE(items)):
        piece = piece_of(<object>PyList_GET_ITEM(items, i))
        if piece.first < 0:
            return None
        total += piece.size + (head_size(piece.size) if piece.first else 0)
        if total > SEAL_AT_ONCE:
            return None
    for i in range(PyList_GET_SIZE(items)):
        piece = piece_of(<object>PyList_GET_ITEM(items, i))
        if used + 10 > RECORD:
            records.append(seal(tls, <char *>memory, used))
            used = 0
        if piece.first:
            write_head(memory + used, piece.first, 0, piece.size)
            used += head_size(piece.size)
        begin = 0
        while begin < piece.size:
            size = min(piece.size - begin, RECORD - used)
            if size == RECORD:
                records.append(seal(tls, <char *>piece.data + begin, size))
            else:
                memcpy(memory + used, piece.data + begin, size)
                used += size
                if used == RECORD:
                    records.append(seal(tls, <char *>memory, used))
                    used = 0
            begin += size
    if used:
        records.append(seal(tls, <char *>memory, used))
    return records


cdef Py_ssize_t send_records(int fd, list records, Py_ssize_t *total):
    """Send records in one system call, and store their size; see ``send_items``."""
    cdef iovec pieces[MAX_PIECES]
    cdef Py_ssize_t count = PyList_GET_SIZE(records), i
    total[0] = 0
    for i in range(count):
        record = <object>PyList_GET_ITEM(records, i)
        pieces[i].iov_base = <void *>PyBytes_AS_STRING(record)
        pieces[i].iov_len = PyBytes_GET_SIZE(record)
        total[0] += PyBytes_GET_SIZE(record)
    return send_pieces(fd, pieces, count, total[0])


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
        taken = items
        if wire.tls is None:
            sent = send_items(wire.fd, items, memory, room, &total)
        else:
            try:
                taken = seal_items(wire.tls, items, scratch)
            except OSError:  # the caller encrypts again, and handles the error
                taken = None
            sent = DECLINED if taken is None else send_records(wire.fd, taken, &total)
            if taken is not None and sent < total:
                taken = b"".join(taken)
        if sent == DECLINED:
            incomplete.append((wire, None, 0))
            continue
        PyList_SetSlice(wire.out, 0, queued, NULL)  # removes the items; other threads only append
        wire.frames_out += queued
        note_sent(wire, wire, taken, sent, total, incomplete)
    return incomplete


cdef int note_sent(
    Wire wire, name, items, Py_ssize_t sent, Py_ssize_t total, list incomplete
) except -1:
    """Count the sent bytes; append the name of a connection that the caller must serve."""
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
            usable = wire.clear and wire.tls is None and PyList_GET_SIZE(wire.out) == 0
            fds[i] = wire.fd if usable else -1
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
