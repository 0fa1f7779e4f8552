"""Attacks on a server over real sockets, as a hostile client would make them: ``make attack``.

The server is a process of its own, with the settings that users get by default. Each attack holds
what a stranger can hold: threads, memory, the loop, the log. It measures what that costs the server
and whether everybody else is still served. A bound that is exceeded is a fault, and the exit code
is 1.

The tests run a short form of each attack, which asserts behaviour and no speed.
"""
