"""Which language the memories of a namespace are in."""

import threading

import msgspec

from unified_memory.model.analysis import ENGLISH
from unified_memory.model.namespace import NamespaceConfig, ancestors, contains
from unified_memory.storage.sqlite.connection import Database

_config = msgspec.json.Decoder(NamespaceConfig)


class Spoken:
    """The settings of one instant: the language of each namespace that sets one."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings

    def of(self, namespace: str) -> str:
        """The language of a namespace."""
        if not self._settings:
            return ENGLISH
        return next((self._settings[name] for name in ancestors(namespace) if name in self._settings), ENGLISH)

    def within(self, scopes: tuple[str, ...]) -> set[str]:
        """The languages of what may lie in these subtrees."""
        spoken = {self.of(scope) if scope else ENGLISH for scope in scopes}
        return spoken | {
            language for name, language in self._settings.items() if any(contains(scope, name) for scope in scopes)
        }


class Languages:
    """The settings as they stand in the database, read again when namespaces have changed. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = -1
        self._spoken = Spoken({})

    def now(self, connection: Database) -> Spoken:
        """The settings as this connection sees them."""
        epoch = connection.execute("SELECT epoch FROM counters").get
        with self._lock:
            if epoch != self._epoch:
                rows = connection.execute(
                    "SELECT name, config FROM namespaces WHERE name IS NOT NULL AND instr(config, '\"language\"')"
                )
                told = {name: _config.decode(config).language for name, config in rows}
                self._spoken = Spoken({name: language for name, language in told.items() if isinstance(language, str)})
                self._epoch = epoch
            return self._spoken
