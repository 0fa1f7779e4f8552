"""A chat with Django: a project that is one app."""
