"""A long run of the server under thousands of varied clients: ``make soak``, on Linux.

The server is a separate process; the clients run in this one. They connect and disconnect in every
way, send in bursts and in partial frames, and read slowly or not at all. The handlers echo, block
or compress, and every received byte is compared. At the end the server must have released all
descriptors, threads and memory.
"""
