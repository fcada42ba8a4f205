"""REDIS_URL: what is read from it, what is refused, and that no secret of it is shown."""

import pytest

from tests.storage.hot.bench import Bench, until
from tests.storage.hot.servers import Server
from unified_memory.model.errors import InvalidInputError
from unified_memory.storage.redis.url import parse_url

PLAIN = {"tls": False}


@pytest.mark.parametrize(
    ("url", "kind", "where", "db", "options"),
    [
        ("redis://localhost", "single", (("localhost", 6379),), 0, PLAIN),
        ("valkey://h:1/3", "single", (("h", 1),), 3, PLAIN),
        ("redis://h?db=4", "single", (("h", 6379),), 4, PLAIN),
        ("redis://:p%40ss@[::1]:7/0", "single", (("::1", 7),), 0, PLAIN | {"password": "p@ss"}),
        ("redis://[::1]", "single", (("::1", 6379),), 0, PLAIN),
        ("rediss://u:p@h", "single", (("h", 6379),), 0, {"tls": True, "username": "u", "password": "p"}),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none&ssl_check_hostname=false",
            "single",
            (("h", 6379),),
            0,
            {"tls": True, "ssl_ca_certs": "/ca.pem", "ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        ("unix:///run/redis.sock?db=2", "unix", (), 2, {}),
        ("unix://:p@/run/redis.sock", "unix", (), 0, {"password": "p"}),
        ("redis+sentinel://a:1,b/main/2", "sentinel", (("a", 1), ("b", 26379)), 2, PLAIN),
        ("rediss+sentinel://a/main", "sentinel", (("a", 26379),), 0, {"tls": True}),
        ("redis+cluster://u:p@a:1,b:2", "cluster", (("a", 1), ("b", 2)), 0, PLAIN | {"username": "u", "password": "p"}),
    ],
)
def test_a_url_is_read(url: str, kind: str, where: tuple[object, ...], db: int, options: dict[str, object]) -> None:
    servers = parse_url(url)
    assert (servers.kind, servers.addresses, servers.db, servers.options) == (kind, where, db, options)


def test_the_path_and_the_service_are_read() -> None:
    assert parse_url("unix:///run/a%20b.sock").path == "/run/a b.sock"
    sentinel = parse_url("redis+sentinel://h/main?sentinel_username=u&sentinel_password=p")
    assert (sentinel.service, sentinel.sentinel_options) == ("main", PLAIN | {"username": "u", "password": "p"})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://u:hidden@h",
        "redis://",
        "redis://:hidden@",
        "redis://:hidden@h:port",
        "redis://:hidden@h:70000",
        "redis://:hidden@h/name",
        "redis://:hidden@h/1/2",
        "redis://:hidden@h?timeout=1",
        "redis://h/0#hidden",
        "redis://:hidden@[::1",
        "redis://:hidden@h?ssl_ca_certs=/ca",
        "rediss://:hidden@h?ssl_cert_reqs=perhaps",
        "rediss://:hidden@h?ssl_check_hostname=perhaps",
        "redis+sentinel://:hidden@h",
        "redis+sentinel://:hidden@h/a/b",
        "redis+sentinel://:hidden@h/a/1/2",
        "redis+cluster://:hidden@h/1",
        "redis+other://:hidden@h",
        "unix://",
        "unix://host/path",
        "unix+cluster:///path",
    ],
)
def test_what_is_no_url_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_url(url)
    assert caught.value.field == "REDIS_URL"
    assert "hidden" not in repr(caught.value) + repr(caught.value.facts)


async def test_a_password_is_used_and_shown_nowhere(bench: Bench, server: Server) -> None:
    await server.do("ACL", "SETUSER", "app", "on", ">hidden", "~um1:*", "+@all")
    good = await bench.node(server.url.replace("//", "//app:hidden@"))
    bad = await bench.node(server.url.replace("//", "//app:hidden2@"))
    good.rows.put()
    await good.copied()
    assert await good.copy() is not None
    await until(lambda: bad.hot.state().trouble is not None)
    assert bad.hot.state().trouble == "Redis refuses the user or the password"
    assert "hidden" not in repr([vars(bad.hot), bad.hot.state(), vars(vars(bad.hot)["_link"])])
