"""The check of a page's origin with Django's settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.utils.http import is_same_domain

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.origins import check_origin

from ..server.http.refusals import RefusalError, quoted
from ..server.reports.refusals import ORIGIN
from ..wsgi.handlers import Origins


def check_site(request: WSGIRequest, fields: Fields, origins: Origins) -> str | None:
    """The request's thread: check the Origin of a request, as Django does before a POST.

    Args:
        request: the request.
        fields: its headers.
        origins: the origins that the handler allows, besides the site's own origin and
            ``CSRF_TRUSTED_ORIGINS``.

    Returns:
        The origin if it is in ``origins``; None for the own site, for a trusted one, or without an
        ``Origin``.

    Raises:
        HandshakeError: the origin is not allowed (403), or there is more than one (400).
    """
    origin = fields.single("origin")
    own = f"{'https' if request.is_secure() else 'http'}://{request.get_host()}"
    if origin is None or origin == own:
        return None
    try:
        return check_origin([("Origin", origin)], origins)
    except HandshakeError as error:
        if _is_trusted(origin):
            return None
        raise RefusalError(403, error.reason, kind=ORIGIN, advice=_advice(origin, own)) from None


def _is_trusted(origin: str) -> bool:
    """Return True if ``CSRF_TRUSTED_ORIGINS`` contains an origin, where "*" means any subdomain."""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return "*" not in origin
    try:
        site = urlsplit(origin)
    except ValueError:
        return False
    wildcards = (urlsplit(entry) for entry in settings.CSRF_TRUSTED_ORIGINS if "*" in entry)
    return any(
        site.scheme == entry.scheme and is_same_domain(site.netloc, entry.netloc.lstrip("*"))
        for entry in wildcards
    )


def _advice(origin: str, own: str) -> str:
    """Return the reason why an Origin is refused, and the setting that would allow it."""
    cause = f'The Origin "{quoted(origin)}" is not "{quoted(own)}".'
    if origin.partition("://")[2] == own.partition("://")[2]:
        return f"{cause} If a proxy terminates TLS, set SECURE_PROXY_SSL_HEADER."
    return (
        f"{cause} If a proxy replaces the Host, have it pass on the Host of the browser, or set "
        "USE_X_FORWARDED_HOST. To allow pages of another site, add it to CSRF_TRUSTED_ORIGINS."
    )
