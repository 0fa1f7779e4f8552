"""HTTP: the request that opens a connection, and the answers that end one."""
