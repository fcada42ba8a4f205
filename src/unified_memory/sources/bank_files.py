"""The folder of the memory bank: `<root>/<project>/<file>`, the bytes of a file being the UTF-8 text of its content.

Of alioshr/memory-bank-mcp (npm: @allpepper/memory-bank-mcp). There is no index and there are no times but those of the
files. Everything is opened relative to the folder that holds it, and no symbolic link is followed.
"""

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar, Self
from urllib.parse import quote, unquote_to_bytes

from unified_memory.model.clock import FIRST_INSTANT, LAST_INSTANT
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.base import (
    MEMORY_BANK,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Skipped,
    Survey,
)

BANK_IMPORTANCE = 7
# The project by which the older tools reach what lies in the root itself; they never list it.
_ROOT = b"."
# The names that the older tools write.
_WRITABLE = re.compile(r"[a-zA-Z0-9_.-]+")
# What lies in the root while a file is written; the older tools list no file there.
_UNFINISHED = ".unified-memory-return."
_REFUSED = "Its name is none that a file in a project can have and the older tools read"
# A file that its program is writing at this moment is read again so often.
_TRIES = 5
_MICROSECOND_NS = 1_000
# Facts that come from the migration itself; the folder has the first, and the bank never had the others.
_OWN_FACTS = {"migrated_from", "project_id"}


def bank_origin(project: bytes, name: bytes) -> str:
    """`file/<project>/<name>`, both percent-encoded, so that every pair of names has a text of its own."""
    return f"file/{quote(project, safe='')}/{quote(name, safe='')}"


def bank_names(origin: str) -> tuple[bytes, bytes] | None:
    """The project and the name in an origin; None where it is no file's."""
    match origin.split("/"):
        case ["file", project, name]:
            return unquote_to_bytes(project), unquote_to_bytes(name)
        case _:
            return None


def bank_losses(back: Back) -> list[str]:
    """What of a record no memory bank can hold."""
    lost = []
    if not back.value.startswith(b'"'):
        lost.append("Its value is no text; its JSON was written as text")
    if back.tags:
        lost.append("Its tags")
    if back.expires_at is not None:
        lost.append("When it expires")
    lost.extend(f"Its metadata {name}" for name in sorted(back.facts.keys() - _OWN_FACTS))
    return lost


class BankFiles(OlderSource):
    """The folder that MEMORY_BANK_ROOT names."""

    kind: ClassVar[str] = "memory-bank-files"
    takes: ClassVar[str] = "a folder"
    service: ClassVar[str] = MEMORY_BANK

    def __init__(self, location: str, root: int) -> None:
        self._location = location
        self._root: int | None = root
        # The projects whose folders were made here.
        self._made: set[bytes] = set()
        self._swept = False

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of a folder
        """The folder; see Source."""
        if not location or "\0" in location:
            raise InvalidInputError("source", "A memory bank is named by its folder")
        try:
            root = os.open(location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                cls.kind, location, f"No folder can be opened there: {error.strerror}", hint="Name MEMORY_BANK_ROOT"
            ) from error
        return cls(location, root)

    def survey(self) -> Survey:
        """Counts the files by project; see Source."""
        projects: dict[str, int] = {}
        records = size = left = unreadable = 0
        for project, name, kind, length in self._walk():
            if not _is_record(project, name, kind):
                left += 1
                continue
            records += 1
            size += length
            shown = _text(project)
            if shown is None or _text(name) is None:
                unreadable += 1
            else:
                projects[shown] = projects.get(shown, 0) + 1
        remarks = ["A file has no history: both times of a memory are when its file was last written"]
        if left:
            remarks.append(
                f"{left} entries are no files of a project (folders, links, files in the root) and stay there"
            )
        if unreadable:
            remarks.append(f"{unreadable} files have names that are no UTF-8; they are quarantined")
        return Survey(
            kind=self.kind, location=self._location, records=records, projects=projects, remarks=remarks, bytes=size
        )

    def read(self) -> Iterator[Found]:
        """Every file, by the bytes of project and name; see Source."""
        for project, name, kind, _ in self._walk():
            if _is_record(project, name, kind):
                found = self._file(project, name)
                if found is not None:
                    yield found
            else:
                yield Skipped(origin=bank_origin(project, name), reason=self._reason(project, name, kind))

    def token(self) -> object:
        """A hash over names, sizes and times of everything in it; see Source."""
        seen = hashlib.blake2b(digest_size=16)
        with self._told(), _opened(None, self._directory()) as root:
            for project, status in _entries(root):
                seen.update(b"%s\0%d\0%d\0" % (project, status.st_mtime_ns, status.st_ino))
                if stat.S_ISDIR(status.st_mode):
                    with suppress(FileNotFoundError), _opened(project, root) as folder:
                        for name, one in _entries(folder):
                            seen.update(
                                b"%s\0%d\0%d\0%d\0" % (name, one.st_mtime_ns, one.st_ctime_ns, one.st_size),
                            )
        return seen.hexdigest()

    def close(self) -> None:
        """See Source."""
        if self._root is not None:
            os.close(self._root)
            self._root = None

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The file of that origin; see OlderSource."""
        names = bank_names(origin)
        if names is None or not _is_inside(*names):
            return None
        return self._file(*names)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The file of that name in that project; see OlderSource."""
        if shape != "file" or project is None:
            return None
        names = _bytes(project), _bytes(key)
        if not _is_inside(*names):
            return None
        return None if self._content(*names) is None else bank_origin(*names)

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Writes and unlinks files; a name that reaches out of its folder is never written. See OlderSource."""
        if not self._swept:
            self._sweep()
        return [self._put(back) for back in backs]

    def _sweep(self) -> None:
        """Takes away what a process that was killed has left unfinished; one at a time writes."""
        with self._told():
            for name, status in _entries(self._directory()):
                if name.startswith(os.fsencode(_UNFINISHED)) and stat.S_ISREG(status.st_mode):
                    os.unlink(name, dir_fd=self._directory())
        self._swept = True

    def writable(self) -> str | None:
        """See OlderSource."""
        with self._told():
            if not os.access(b".", os.W_OK | os.X_OK, dir_fd=self._directory()):
                return f"The folder {self._location} cannot be written by this user"
            for name, status in _entries(self._directory()):
                if stat.S_ISDIR(status.st_mode) and not os.access(name, os.W_OK | os.X_OK, dir_fd=self._directory()):
                    return f"The folder {os.fsdecode(name)!a} in {self._location} cannot be written by this user"
        return None

    # Reading

    def _directory(self) -> int:
        if self._root is None:
            raise SourceError(self.kind, self._location, "The source is closed")
        return self._root

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = f" ({os.fsdecode(error.filename)})" if error.filename is not None else ""
            detail = f"The memory bank cannot be used: {error.strerror}{where}"
            raise SourceError(self.kind, self._location, detail) from error

    def _walk(self) -> Iterator[tuple[bytes, bytes, int, int]]:
        """Project, name, mode and bytes of everything, two levels deep; what is in the root is of the project `.`."""
        with self._told(), _opened(None, self._directory()) as root:
            for project, status in _entries(root):
                if not stat.S_ISDIR(status.st_mode):
                    yield _ROOT, project, status.st_mode, status.st_size
                    continue
                with suppress(FileNotFoundError), _opened(project, root) as folder:
                    for name, one in _entries(folder):
                        yield project, name, one.st_mode, one.st_size

    def _reason(self, project: bytes, name: bytes, mode: int) -> str:
        if stat.S_ISLNK(mode):
            path = name if project == _ROOT else project + b"/" + name
            try:
                target = os.fsdecode(os.readlink(path, dir_fd=self._directory()))
            except FileNotFoundError:
                target = "what is gone"
            return f"It is a symbolic link to {target!a}; links are not followed"
        if stat.S_ISDIR(mode):
            return "It is a folder within a project, where the older tools see nothing"
        if not stat.S_ISREG(mode):
            return "It is no plain file"
        if name.startswith(_UNFINISHED.encode()):
            return "It was left by a return that was cut off and may be removed"
        return "It lies in the root, in no project; move it into a folder to carry it"

    def _content(self, project: bytes, name: bytes) -> tuple[bytes, int] | None:
        """The bytes of a plain file and when it was last written; None where there is none, or something else."""
        with self._told():
            try:
                with _opened(None if project == _ROOT else project, self._directory()) as folder:
                    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except OSError as error:
                if _is_absence(error):
                    return None
                raise
            with open(handle, "rb") as file:  # noqa: PTH123 - a path could lead elsewhere by now
                content, status = b"", os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return None
                for _ in range(_TRIES):
                    file.seek(0)
                    content, before = file.read(), status
                    status = os.fstat(file.fileno())
                    if (status.st_mtime_ns, status.st_size) == (before.st_mtime_ns, len(content)):
                        break
                return content, status.st_mtime_ns // _MICROSECOND_NS

    def _file(self, project: bytes, name: bytes) -> Item | Quarantined | None:
        found = self._content(project, name)
        if found is None:
            return None
        content, written = found
        origin, shown, key = bank_origin(project, name), _text(project), _text(name)
        if shown is None or key is None:
            path = ascii(project + b"/" + name)
            return Quarantined(
                origin=origin, code="malformed", reason=f"The name {path} is not UTF-8: no text names it", raw=content
            )
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            reason = f"The content is not UTF-8 from byte {error.start} on: the older tools read it with losses"
            return Quarantined(origin=origin, code="binary", reason=reason, raw=content)
        at = written if FIRST_INSTANT <= written <= LAST_INSTANT else None
        return Item(
            origin=origin,
            service=self.service,
            shape="file",
            project=shown,
            key=key,
            value=encode(text),
            importance=BANK_IMPORTANCE,
            created_at=at,
            updated_at=at,
        )

    # Writing back

    def _put(self, back: Back) -> Returned:
        names = bank_names(back.origin) if back.origin is not None else None
        if names is None:
            if back.shape != "file" or back.project is None:
                return Returned(
                    origin=None, lost=("It is no file of a project, which is all that a memory bank holds",)
                )
            names = _bytes(back.project), _bytes(back.key)
        if not _is_inside(*names):
            return Returned(origin=None, lost=() if back.content is None else (_REFUSED,))
        with self._told():
            return self._remove(*names) if back.content is None else self._write(*names, back, back.content.encode())

    def _remove(self, project: bytes, name: bytes) -> Returned:
        try:
            with _opened(None if project == _ROOT else project, self._directory()) as folder:
                if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
                empty = next(_entries(folder), None) is None
        except OSError as error:
            if _is_absence(error):
                return Returned(origin=None)
            raise
        if empty and project in self._made:
            os.rmdir(project, dir_fd=self._directory())
            self._made.discard(project)
        return Returned(origin=None)

    def _write(self, project: bytes, name: bytes, back: Back, content: bytes) -> Returned:
        origin, lost = bank_origin(project, name), bank_losses(back)
        root = self._directory()
        there = self._content(project, name)
        if there is None and (b".." in project or b".." in name):
            return Returned(origin=None, lost=(_REFUSED,))
        if there is not None and there[0] == content:
            return Returned(origin=origin, lost=tuple(lost))
        if not content:
            lost.append("That it is empty is read by the older tools, but never written")
        elif not (_is_writable(project) and _is_writable(name)):
            lost.append("The older tools read a file of this name, but never update it")
        if project != _ROOT:
            try:
                os.mkdir(project, dir_fd=root)
            except FileExistsError:
                pass
            except OSError as error:
                if _is_too_long(error):
                    return Returned(origin=None, lost=("The name of its project is too long for a folder",))
                raise
            else:
                self._made.add(project)
                os.fsync(root)
        try:
            with _opened(None if project == _ROOT else project, root) as folder:
                obstacle = _obstacle(folder, name)
                if obstacle is not None:
                    return Returned(origin=None, lost=(obstacle,))
                _replace(root, folder, name, content, back.updated_at)
        except OSError as error:
            if _is_absence(error):
                return Returned(origin=None, lost=("Its project is no folder there but a link or a file",))
            raise
        return Returned(origin=origin, lost=tuple(lost))


@contextmanager
def _opened(name: bytes | None, directory: int) -> Iterator[int]:
    """A folder within that folder, or (None) that folder itself opened anew, so that it is listed from its beginning."""
    found = os.open(name or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield found
    finally:
        os.close(found)


def _entries(directory: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """What lies in the folder, by the bytes of its names; what goes away meanwhile is left out."""
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        with suppress(FileNotFoundError):
            yield name, os.stat(name, dir_fd=directory, follow_symlinks=False)


def _is_record(project: bytes, name: bytes, mode: int) -> bool:
    return stat.S_ISREG(mode) and project != _ROOT and _is_inside(project, name)


def _is_inside(project: bytes, name: bytes) -> bool:
    """Whether the names are those of one file in one folder of the root, or (project `.`) in the root itself."""
    if project == _ROOT:
        return _is_entry(name) and not name.startswith(_UNFINISHED.encode())
    return _is_entry(project) and _is_entry(name)


def _is_entry(name: bytes) -> bool:
    return name not in {b"", b".", b".."} and b"/" not in name and b"\0" not in name


def _is_writable(name: bytes) -> bool:
    text = _text(name)
    return text is not None and _WRITABLE.fullmatch(text) is not None and ".." not in text


def _is_absence(error: OSError) -> bool:
    """Whether it says that there is no such file or folder, or a link or something else in its place."""
    return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP} or _is_too_long(error)


def _is_too_long(error: OSError) -> bool:
    return error.errno == errno.ENAMETOOLONG


def _obstacle(folder: int, name: bytes) -> str | None:
    """Why nothing can be written under that name."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        if _is_too_long(error):
            return "Its name is too long for a file"
        raise
    return None if stat.S_ISREG(mode) else "A folder or a link of its name is in the way"


def _replace(root: int, folder: int, name: bytes, content: bytes, updated_at: int) -> None:
    """Writes the file beside the folders and renames it, so that it is never seen half written. It keeps mode and owner."""
    try:
        like = os.stat(name, dir_fd=folder, follow_symlinks=False)
        mode: int | None = stat.S_IMODE(like.st_mode)
    except FileNotFoundError:
        like, mode = os.fstat(folder), None
    beside = _UNFINISHED + secrets.token_hex(8)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=root)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - a path could lead elsewhere by now
            if os.geteuid() == 0:
                # What the administrator writes back stays the file of the user who runs the older service.
                os.fchown(handle, like.st_uid, like.st_gid)
            if mode is not None:
                os.fchmod(handle, mode)
            file.write(content)
            file.flush()
            os.utime(handle, ns=(updated_at * _MICROSECOND_NS, updated_at * _MICROSECOND_NS))
            os.fsync(handle)
        os.rename(beside, name, src_dir_fd=root, dst_dir_fd=folder)
    except BaseException:
        os.unlink(beside, dir_fd=root)
        raise
    os.fsync(folder)


def _text(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _bytes(name: str) -> bytes:
    # A lone surrogate is no name of ours, and stands for no byte.
    return name.encode("utf-8", "surrogatepass")
