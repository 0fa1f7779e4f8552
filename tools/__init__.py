"""Tools for contributors: checks of the language and of the coverage."""
