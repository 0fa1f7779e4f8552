"""The lines of nginx's configuration that pass on a request unchanged; for the server and tools."""

UPGRADE = (
    "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;",
    # An ordinary request in the same location keeps its own Connection, without a map.
    "proxy_set_header Connection $http_connection;",
)
HOST = "proxy_set_header Host $http_host;"
