"""What the process at the client's end and the running service say to each other first. Light: the former must start at once."""

import msgspec
from msgspec import Struct

LOCK = "service.lock"
TOKEN = "service.token"  # noqa: S105 - the name of a file
# What is said through the door may change with this number; processes of another number do not use it.
PROTOCOL = 2
MAX_LINE = 64 * 1024**2


class Address(Struct):
    """What `service.lock` says: where on this machine the service listens. `database`: the name of its file in the directory."""

    protocol: int
    port: int
    version: str
    pid: int
    database: str


class Hello(Struct):
    """The first line of a caller. `session` names the caller, so that a call that it repeats is recognised."""

    token: str
    session: str
    tools: str = ""


class Welcome(Struct, omit_defaults=True):
    """The answer to it; `error` where the caller is not let in."""

    version: str
    error: str = ""


read_address = msgspec.json.Decoder(Address).decode
read_hello = msgspec.json.Decoder(Hello).decode
read_welcome = msgspec.json.Decoder(Welcome).decode
