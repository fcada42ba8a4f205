"""Encryption of backups in the age format (https://age-encryption.org/v1), done by pyrage.

A part is encrypted to X25519 identities: those of a key file, or, with a passphrase, one that is made for the backup and lies
in it encrypted with that passphrase.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any, Self

from unified_memory.model.errors import InvalidInputError, RefusedError, StorageError

_PREFIX = "AGE-SECRET-KEY-"
_MAX_KEY_FILE_BYTES = 2**20
# scrypt takes 128 * 8 * 2**17 bytes = 128 MiB, and 0.3 seconds; what OWASP's Password Storage Cheat Sheet asks for.
_WORK_FACTOR = 17
_SCRYPT_BLOCK = 8
# Plain text is handed over in pieces of this size, and so many may wait.
_PIECE_BYTES = 256 * 1024
_WAITING = 4


class KeyMismatchError(Exception):
    """None of the keys decrypts it, or the place where it says for whom it is encrypted is damaged."""


class CiphertextError(Exception):
    """What was encrypted is damaged."""


class _AbandonedError(Exception):
    """Nobody wants the rest."""


class Key:
    """What backups are encrypted with and decrypted by: a passphrase or age identities. It never shows them.

    Raises RefusedError where the extra `encrypt` is not installed.
    """

    def __init__(self, *, passphrase: str | None = None, identities: Sequence[str] = ()) -> None:
        self._age = _pyrage()
        self._passphrase = passphrase
        self._identities = [self._identity(text) for text in identities]
        # By what lies in a backup: each is opened once in the life of a process.
        self._opened: dict[bytes, list[Any]] = {}

    def __repr__(self) -> str:
        return f"Key({'passphrase' if self._passphrase is not None else 'identities'})"

    @classmethod
    def from_passphrase(cls, passphrase: str) -> Self:
        """Raises InvalidInputError where it is empty or cannot be written in UTF-8."""
        if not passphrase:
            raise InvalidInputError("passphrase", "The passphrase of backups is empty")
        try:
            passphrase.encode()
        except UnicodeEncodeError:
            raise InvalidInputError("passphrase", "The passphrase of backups is not UTF-8") from None
        return cls(passphrase=passphrase)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """A file as age-keygen makes it: identities, one a line; empty lines and those that begin with # are passed over.

        Raises InvalidInputError where it cannot be read or holds something else.
        """
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            detail = f"The key file {path} cannot be read: {error.strerror or error}"
            raise InvalidInputError("key_file", detail) from error
        lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
        identities = [line for line in lines if line and not line.startswith("#")]
        if not identities or len(data) > _MAX_KEY_FILE_BYTES:
            raise InvalidInputError(
                "key_file", f"The key file {path} holds no age identity", hint="age-keygen -o FILE makes one"
            )
        return cls(identities=identities)

    def recipients(self) -> tuple[list[Any], bytes | None]:
        """Whom a new backup is encrypted to, and the identity that is to lie in it, encrypted with the passphrase."""
        if self._passphrase is None:
            return [identity.to_public() for identity in self._identities], None
        identity = self._age.x25519.Identity.generate()
        return [identity.to_public()], _with_passphrase(f"{identity}\n".encode(), self._passphrase)

    def identities(self, enclosed: bytes | None) -> list[Any]:
        """What a backup is decrypted by, in which that encrypted identity lies. Raises KeyMismatchError."""
        if (enclosed is None) != (self._passphrase is None):
            raise KeyMismatchError
        if enclosed is None:
            return self._identities
        if enclosed not in self._opened:
            try:
                text = self._age.passphrase.decrypt(enclosed, self._passphrase).decode(errors="replace")
            except self._age.DecryptError as error:
                raise KeyMismatchError from error
            self._opened[enclosed] = [self._identity(text.strip())]
        return self._opened[enclosed]

    def _identity(self, text: str) -> Any:
        try:
            return self._age.x25519.Identity.from_str(text)
        except self._age.IdentityError:
            # Neither the line nor the cause, which may quote it.
            raise InvalidInputError("key_file", f"That is not an age identity ({_PREFIX}…)") from None


def encrypt(chunks: Iterator[bytes], write: Callable[[bytes], None], recipients: Sequence[Any]) -> None:
    """Writes the chunks, encrypted, as they come. Raises what making or writing them raises."""
    age = _pyrage()
    source, sink = _Source(chunks), _Sink(write)
    failure: Exception | None = None
    try:
        age.encrypt_io(source, sink, recipients)
    except (age.EncryptError, OSError) as error:
        failure = error
    # The library tells what its reader and writer raised in many ways, or not at all.
    if cause := source.error or sink.error:
        raise cause
    if failure:
        raise StorageError(f"The backup could not be encrypted: {failure}") from failure


def decrypt(chunks: Iterator[bytes], identities: Sequence[Any]) -> Generator[bytes, None, None]:
    """The plain text, decrypted by another thread in small pieces while it is asked for; to be closed where it is not wanted
    to its end.

    Raises KeyMismatchError, CiphertextError, and what the chunks raise.
    """
    age = _pyrage()
    pieces: Queue[bytes | None] = Queue(_WAITING)
    abandoned = Event()
    failures: list[BaseException] = []
    held = bytearray()

    def take(data: bytes) -> None:
        if abandoned.is_set():
            raise _AbandonedError
        held.extend(data)
        if len(held) >= _PIECE_BYTES:
            pieces.put(bytes(held))
            held.clear()

    def until_abandoned() -> Iterator[bytes]:
        for chunk in chunks:
            if abandoned.is_set():
                raise _AbandonedError
            yield chunk

    def run() -> None:
        source, sink = _Source(until_abandoned()), _Sink(take)
        try:
            age.decrypt_io(source, sink, identities)
            if held and not abandoned.is_set():
                pieces.put(bytes(held))
        except age.DecryptError as error:
            failures.append(source.error or sink.error or KeyMismatchError(str(error)))
        except OSError as error:
            failures.append(source.error or sink.error or CiphertextError(str(error)))
        else:
            failures.extend(error for error in (source.error, sink.error) if error)
        finally:
            pieces.put(None)

    thread = Thread(target=run, name="decrypt", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            yield piece
    finally:
        abandoned.set()
        while thread.is_alive():
            with suppress(Empty):
                pieces.get(timeout=0.01)
        thread.join()
    if failures:
        raise failures[0]


def _with_passphrase(secret: bytes, passphrase: str) -> bytes:
    """The age file of a secret of less than 64 KiB, as the format's "scrypt recipient stanza" and "payload" say.

    pyrage makes such files too, but takes as much memory as can be filled in a second, up to 1 GB.
    """
    seal = import_module("cryptography.hazmat.primitives.ciphers.aead").ChaCha20Poly1305
    file_key, salt, nonce = (secrets.token_bytes(16) for _ in range(3))
    wrap_key = hashlib.scrypt(
        passphrase.encode(),
        salt=b"age-encryption.org/v1/scrypt" + salt,
        n=2**_WORK_FACTOR,
        r=_SCRYPT_BLOCK,
        p=1,
        maxmem=2 * 128 * _SCRYPT_BLOCK * 2**_WORK_FACTOR,
        dklen=32,
    )
    body = seal(wrap_key).encrypt(bytes(12), file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %b %d\n%b\n---" % (_base64(salt), _WORK_FACTOR, _base64(body))
    mac = hmac.digest(_derived(file_key, b"", b"header"), header, "sha256")
    # The first chunk is the last one.
    payload = seal(_derived(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\1", secret, None)
    return b"%b %b\n%b%b" % (header, _base64(mac), nonce, payload)


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF with SHA-256 (RFC 5869)."""
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


class _Source:
    """What the library reads from. `error`: what making the bytes raised."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.error: BaseException | None = None
        self._chunks = chunks
        self._left = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._left:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return b""
                self._left = memoryview(chunk)
        except BaseException as error:
            self.error = error
            raise OSError("Nothing more can be read") from error
        end = len(self._left) if size < 0 else size
        taken, self._left = self._left[:end], self._left[end:]
        return bytes(taken)


class _Sink:
    """What the library writes to. `error`: what writing raised."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.error: BaseException | None = None
        self._write = write

    def write(self, data: bytes) -> int:
        try:
            self._write(data)
        except BaseException as error:
            self.error = self.error or error
            raise OSError("Nothing more can be written") from error
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _pyrage() -> Any:
    missing = [name for name in ("pyrage", "cryptography") if find_spec(name) is None]
    if missing:
        raise RefusedError(
            f"Encrypted backups need packages that are not installed: {', '.join(missing)}",
            hint="pip install 'mcp-unified-memory[encrypt]'",
            packages=missing,
        )
    # Not at the top: without the extra it is not there.
    return import_module("pyrage")
