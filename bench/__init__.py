"""The bench suites: how fast, next to whom, and how far from what the machine could do."""
