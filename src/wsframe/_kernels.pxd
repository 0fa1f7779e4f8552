"""The part of the kernels that the compiled I/O of the server shares."""

from libc.stdint cimport uint64_t

cdef Py_ssize_t take_from(
    const unsigned char *start, Py_ssize_t size, list messages, Py_ssize_t limit, bint masked
) except -1

cdef Py_ssize_t head_size(Py_ssize_t payload_size) noexcept nogil

cdef void write_head(unsigned char *out, int first, int mask_bit, Py_ssize_t size) noexcept nogil
