"""The log: one record for each connection, and the output to standard error."""
