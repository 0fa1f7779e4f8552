"""What is told of a server: numbers, the request log, and logs that hold nobody up."""
