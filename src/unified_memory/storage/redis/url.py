"""REDIS_URL: where the servers are.

    redis://[[user]:password@]host[:port][/db]        also valkey://; rediss:// and valkeys:// over TLS
    unix://[[user]:password@]/path[?db=N]
    redis+sentinel://[[user]:password@]host[:port],host[:port]/service[/db]      also rediss+sentinel://
    redis+cluster://[[user]:password@]host[:port],host[:port]                    also rediss+cluster://

Options of TLS: ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs (none, optional, required), ssl_check_hostname (true,
false).
With Sentinel: sentinel_username, sentinel_password.
"""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from unified_memory.model.errors import InvalidInputError

_PORT = 6379
_SENTINEL_PORT = 26379
_LAST_PORT = 65_535
_TLS_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

Address = tuple[str, int]


class Servers(Struct, frozen=True):
    """What a REDIS_URL says. `kind`: single, unix, sentinel or cluster. Its repr shows no secret."""

    kind: str
    addresses: tuple[Address, ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    # Arguments of every connection to a server, and of those to a sentinel.
    options: dict[str, Any] = {}
    sentinel_options: dict[str, Any] = {}

    def __repr__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.addresses)
        return f"Servers({self.kind} {where})"


def _bad(why: str) -> InvalidInputError:
    return InvalidInputError(
        "REDIS_URL", f"REDIS_URL {why}", hint="Such as redis://127.0.0.1:6379/0 or redis+sentinel://host:26379/service"
    )


def _address(text: str, default_port: int) -> Address:
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    host = unquote(host.removeprefix("[").removesuffix("]"))
    if not host:
        raise _bad("names no host")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= _LAST_PORT):
        raise _bad("has a port that is none")
    return host, int(port or default_port)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _bad("has a database that is no number")
    return int(text)


def _tls(query: dict[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {name: query.pop(name) for name in _TLS_FILES & query.keys()}
    if (needed := query.pop("ssl_cert_reqs", None)) is not None:
        if needed not in {"none", "optional", "required"}:
            raise _bad("has an ssl_cert_reqs other than none, optional, required")
        options["ssl_cert_reqs"] = needed
    if (check := query.pop("ssl_check_hostname", None)) is not None:
        if check not in _TRUTHS:
            raise _bad("has an ssl_check_hostname other than true or false")
        options["ssl_check_hostname"] = _TRUTHS[check]
    return options


def parse_url(url: str) -> Servers:
    """Reads a REDIS_URL. Raises InvalidInputError naming it; what it says shows nothing of the URL but its scheme."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad("is no URL") from None
    scheme, _, how = parts.scheme.partition("+")
    tls = scheme in {"rediss", "valkeys"}
    if scheme not in {"redis", "rediss", "valkey", "valkeys", "unix"} or how not in {"", "sentinel", "cluster"}:
        raise _bad("begins with none of redis://, rediss://, unix://, valkey://, redis+sentinel://, redis+cluster://")
    if parts.fragment:
        raise _bad("has a fragment; a # in a password is written %23")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    options: dict[str, Any] = {}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if tls:
        options |= _tls(query)
    sentinel = {
        name: query.pop(f"sentinel_{name}") for name in ("username", "password") if how and f"sentinel_{name}" in query
    }
    path = [unquote(part) for part in parts.path.split("/") if part]
    if scheme == "unix":
        if how or hosts or not path:
            raise _bad("names no path of a socket, such as unix:///run/redis.sock")
        servers = Servers("unix", path=unquote(parts.path), db=_number(query.pop("db", "0")), options=options)
    elif how == "sentinel":
        if not path or len(path) > 2:  # noqa: PLR2004 - service and database
            raise _bad("names no service, such as redis+sentinel://host:26379/service")
        servers = Servers(
            "sentinel",
            addresses=tuple(_address(text, _SENTINEL_PORT) for text in hosts.split(",")),
            service=path[0],
            db=_number(path[1]) if path[1:] else 0,
            options=options | {"tls": tls},
            sentinel_options=sentinel | {"tls": tls},
        )
    elif how == "cluster":
        if path and path != ["0"]:
            raise _bad("names a database; a cluster has none")
        addresses = tuple(_address(text, _PORT) for text in hosts.split(","))
        servers = Servers("cluster", addresses=addresses, options=options | {"tls": tls})
    else:
        if len(path) > 1:
            raise _bad("has a path that is no number of a database")
        db = _number(path[0] if path else query.pop("db", "0"))
        servers = Servers("single", addresses=(_address(hosts, _PORT),), db=db, options=options | {"tls": tls})
    if query:
        raise _bad(f"has options that are not known: {', '.join(sorted(query))}")
    return servers
