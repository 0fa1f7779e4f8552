"""The sockets of clients: listening, admission, reading, writing and closing."""
