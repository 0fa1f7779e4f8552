"""The loop that can be handed off: who owns it, whose turn it is, and what runs them."""
