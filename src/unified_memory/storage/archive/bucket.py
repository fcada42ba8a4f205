"""Archive files in a bucket of an S3-compatible store."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from unified_memory.model.errors import (
    AlreadyExistsError,
    ArchiveMissingError,
    InvalidInputError,
    StorageError,
    StorageFullError,
)
from unified_memory.storage.archive.errors import ArchiveExtraMissingError
from unified_memory.storage.archive.files import Files, is_name, require_name

if TYPE_CHECKING:
    from obstore.store import S3Store

_FORM = "s3://bucket/prefix?endpoint=https://host&region=name"
_PARAMETERS = {"endpoint", "region"}
_CONNECT_TIMEOUT = "5s"
# Of one request with its answer: a block is read, a whole file is written.
_READ_TIMEOUT = "30s"
_WRITE_TIMEOUT = "600s"
_RETRY = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
# How stores say that a range begins after the end.
_PAST_THE_END = ("InvalidRange", "416 Range Not Satisfiable")
# How stores say that there is no room: MinIO, Ceph, and HTTP's 507.
_FULL = ("XMinioStorageFull", "QuotaExceeded", "507 Insufficient Storage")


class _PastTheEndError(StorageError):
    """The range to be read begins after the file's end."""


class Bucket(Files):
    """Files under a prefix of a bucket: `s3://bucket/prefix?endpoint=https://host&region=name`, where only the bucket is needed.

    Credentials come from the usual AWS_ variables, or are given as `options` in obstore's names: `access_key_id`,
    `secret_access_key`, `token`. A file is one conditional PUT, so it is held in memory, compressed, while it is sent, has
    at most 5 GiB, and leaves nothing when it is interrupted. Where the store does not answer in time, a put raises although
    the file may be there later.

    Raises ArchiveExtraMissingError, and InvalidInputError where the URL is not of that form.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        if find_spec("obstore") is None:
            raise ArchiveExtraMissingError
        self._bucket, self._prefix, given = _parts(url)
        self._given = {**given, **(options or {})}
        # Not at the top: without the extra it is not there, and who has no bucket need not wait for it.
        self._api = import_module("obstore")
        self._reading = self._store(_READ_TIMEOUT)
        self._writing = self._store(_WRITE_TIMEOUT)

    def put(self, name: str, chunks: Iterable[bytes]) -> int:  # noqa: D102 - see Files
        require_name(name)
        data = b"".join(chunks)
        with self._told("write", name):
            self._api.put(self._writing, name, data, mode="create")
        return len(data)

    def read(self, name: str, start: int, length: int) -> bytes:  # noqa: D102 - see Files
        require_name(name)
        if length == 0:
            # An empty range cannot be asked for.
            self.size(name)
            return b""
        try:
            with self._told("read", name):
                return bytes(self._api.get_range(self._reading, name, start=start, length=length))
        except _PastTheEndError:
            return b""

    def size(self, name: str) -> int:  # noqa: D102 - see Files
        require_name(name)
        with self._told("read", name):
            size: int = self._api.head(self._reading, name)["size"]
        return size

    def names(self) -> list[str]:  # noqa: D102 - see Files
        return sorted(name for name, _ in self._listed() if is_name(name))

    def total(self) -> int:  # noqa: D102 - see Files
        return sum(size for name, size in self._listed() if is_name(name))

    def remove(self, name: str) -> None:  # noqa: D102 - see Files
        require_name(name)
        with self._told("remove", name):
            self._api.delete(self._reading, name)

    def sweep(self) -> list[str]:  # noqa: D102 - see Files
        return []

    def close(self) -> None:  # noqa: D102 - see Files
        # obstore closes its connections by itself.
        return

    def _store(self, timeout: str) -> "S3Store":
        store: S3Store = self._api.store.S3Store(
            self._bucket,
            prefix=self._prefix or None,
            config=self._given,
            client_options={
                "allow_http": self._given.get("endpoint", "").startswith("http://"),
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": timeout,
            },
            retry_config=_RETRY,
        )
        return store

    def _listed(self) -> Iterator[tuple[str, int]]:
        with self._told("list", self._prefix):
            for some in self._api.list(self._reading):
                for each in some:
                    yield each["path"], each["size"]

    def _require_bucket(self) -> None:
        """Raises StorageError where there is no bucket: to be asked for a file's size, a store says the same of both."""
        next(self._listed(), None)

    @contextmanager
    def _told(self, doing: str, name: str) -> Iterator[None]:
        """What the store says, as an error of the storage."""
        failures = self._api.exceptions
        try:
            yield
        except failures.AlreadyExistsError as error:
            raise AlreadyExistsError("There is an archive of that name", archive=name) from error
        except FileNotFoundError as error:
            if doing == "read" and "NoSuchBucket" not in str(error):
                self._require_bucket()
                raise ArchiveMissingError(name) from error
            raise self._failed(doing, name, error) from error
        except failures.BaseError as error:
            said = str(error)
            if any(word in said for word in _FULL):
                raise StorageFullError(f"The bucket {self._bucket} is full; nothing was stored") from error
            if any(word in said for word in _PAST_THE_END):
                raise _PastTheEndError(f"The archive {name} is shorter", archive=name) from error
            raise self._failed(doing, name, error) from error

    def _failed(self, doing: str, name: str, error: Exception) -> StorageError:
        said = str(error).partition("\n")[0]
        return StorageError(f"Cannot {doing} {name} in the bucket {self._bucket}: {said}", archive=name)


def _parts(url: str) -> tuple[str, str, dict[str, str]]:
    """The bucket, the prefix, and what else the URL gives."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme != "s3" or not parts.netloc or parts.fragment or not given.keys() <= _PARAMETERS:
        raise InvalidInputError("url", "That is not the URL of a bucket", hint=f"It looks like {_FORM}")
    return parts.netloc, parts.path.strip("/"), given
