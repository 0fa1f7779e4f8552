"""The project under test."""

DATABASE = "WSFRAME_DATABASE"  # an environment variable with the path of the database
