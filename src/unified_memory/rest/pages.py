"""The page at /docs: the OpenAPI document to read and to try out, without any network but the service itself."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from unified_memory.rest.exchange import Answer

_FILES = Path(__file__).with_name("docs")
# Nothing is loaded from elsewhere, no script stands in the page, no one frames it.
_POLICY = b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


@cache
def _file(name: str, kind: bytes) -> Answer:
    headers = (
        (b"content-type", kind + b"; charset=utf-8"),
        (b"content-security-policy", _POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    )
    return Answer((_FILES / name).read_bytes(), headers=headers)


PAGES: dict[str, Callable[[], Answer]] = {
    "/docs": partial(_file, "page.html", b"text/html"),
    "/docs/page.css": partial(_file, "page.css", b"text/css"),
    "/docs/page.js": partial(_file, "page.js", b"text/javascript"),
}
