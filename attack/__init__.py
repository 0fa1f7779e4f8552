"""Attacks on a server over real sockets, as a hostile client would make them: ``make attack``.

The server is a separate process with the default settings. Each attack occupies a resource that a
stranger can reach: threads, memory, loop time, the log. It measures the cost to the server and
checks that other clients are still served. An exceeded bound is a fault, and the exit code is 1.

The tests run a short form of each attack, which asserts behaviour and no speed.
"""
