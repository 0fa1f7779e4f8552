"""Workers: processes that serve one port together, and the supervisor that looks after them."""
