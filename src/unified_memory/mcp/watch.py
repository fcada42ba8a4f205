"""What changed, told to whoever subscribed: in this process, in another, on another node, it is all the same commit order."""

import asyncio
import logging
import re
from collections.abc import Callable
from urllib.parse import quote, unquote

from unified_memory.model.errors import StorageError
from unified_memory.storage.base import Change, Storage

log = logging.getLogger("unified_memory.mcp")
SCHEME = "memory://"
LOOK_SECONDS = 0.2
CHUNK = 500
# No text that can be stored holds one.
_SURROGATE = re.compile("[\ud800-\udfff]")

Listener = Callable[[Change], None]


def resource_uri(namespace: str, key: str) -> str:
    """The address of a memory as a resource: `memory://{namespace}/{key}`, each percent-encoded as one part."""
    return f"{SCHEME}{quote(namespace, safe='')}/{quote(key, safe='')}"


def resource_name(uri: str) -> tuple[str, str] | None:
    """(namespace, key) of such an address; None where it is none. A namespace may also be written with plain slashes."""
    namespace, slash, key = uri.removeprefix(SCHEME).rpartition("/")
    if not uri.startswith(SCHEME) or not slash or not namespace or not key or _SURROGATE.search(uri):
        return None
    return unquote(namespace), unquote(key)


class Watch:
    """Looks at the commit order while somebody listens; nothing runs while nobody does."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listeners: dict[object, Listener] = {}
        self._task: asyncio.Task[None] | None = None
        self._seen = 0
        self._starting = asyncio.Lock()

    async def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls the listener for each change from now on; gives what ends that. Raises StorageError."""
        token = object()
        async with self._starting:
            # Two that come at once must not each begin a task: nobody would end the first.
            if self._task is None or self._task.done():
                self._seen = await self._storage.last_seq()
                self._task = asyncio.create_task(self._run(), name="watch")
            self._listeners[token] = listener

        def stop() -> None:
            self._listeners.pop(token, None)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

        return stop

    def close(self) -> None:
        """Ends it for everyone."""
        self._listeners.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        full = failing = False
        while True:
            if not full:
                await asyncio.sleep(LOOK_SECONDS)
            full = False
            try:
                changed = await self._storage.last_seq() != self._seen
                changes = await self._storage.changes(self._seen, CHUNK) if changed else []
            except StorageError as error:
                # It is asked again at the next turn; nothing is missed meanwhile.
                if not failing:
                    log.warning("Subscribers are not told of changes now: %s: %s", error.code, error.detail)
                failing = True
                continue
            failing = False
            full = len(changes) == CHUNK
            for change in changes:
                self._seen = change.seq
                for listener in list(self._listeners.values()):
                    listener(change)
