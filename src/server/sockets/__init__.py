"""The clients' sockets: how they are listened for, let in, read, written to, and left."""
