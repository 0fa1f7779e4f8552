"""A long run of the server against clients that do everything: ``make soak``, on Linux.

The server is a process of its own; the clients are this one. They open and leave in every way, send
in bursts and by cut frames, read slowly or not at all, to handlers that echo, block, or compress;
and every byte that comes back is compared. At the end nothing of it may be left in the server: no
descriptor, no thread, no memory.
"""
