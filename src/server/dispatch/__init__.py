"""The way from a request to its session: routes, authorization, and the dispatcher."""
