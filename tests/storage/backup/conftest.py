"""Keys."""

from pathlib import Path

import pytest

from tests.storage.backup.samples import pyrage
from unified_memory.storage.backup import Key


@pytest.fixture
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key file as age-keygen makes it."""
    identity = pyrage.x25519.Identity.generate()
    path = tmp_path_factory.mktemp("key") / "key.txt"
    path.write_text(f"# created: 2026-11-23\n# public key: {identity.to_public()}\n{identity}\n", encoding="utf-8")
    return path


@pytest.fixture
def key(key_file: Path) -> Key:
    """The key of that file."""
    return Key.from_file(key_file)


@pytest.fixture(scope="session")
def passphrase() -> Key:
    """A key whose passphrase takes its time."""
    return Key.from_passphrase("correct horse battery staple")
