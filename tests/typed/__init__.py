"""Programs of users that `make types` checks, with mypy and pyright in their strict modes."""
