"""A storage that hands everything on to another one, for those that change only a few of its methods."""

import abc
from collections.abc import Awaitable, Callable
from typing import Any, cast

from unified_memory.storage.base import Storage


class Forwarding(Storage):
    """Every method of the contract asks the `warm` storage."""

    def __init__(self, warm: Storage) -> None:
        self._warm = warm


def _forwarded(name: str) -> Callable[..., Awaitable[Any]]:
    async def forward(self: Forwarding, *args: Any, **named: Any) -> Any:
        return await getattr(self._warm, name)(*args, **named)

    forward.__name__ = name
    forward.__doc__ = f"See `Storage.{name}`."
    return forward


# Made of the contract itself, so that a method that is added there is handed on without a line here.
for _name in Storage.__abstractmethods__:
    setattr(Forwarding, _name, _forwarded(_name))
abc.update_abstractmethods(cast("type[Any]", Forwarding))
