"""The memory bank's folder: every file of the fixture, what no tool sees, and names that would lead out of it."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.legacy import commands
from tests.legacy.servers import running
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.bank_files import BankFiles, bank_names, bank_origin
from unified_memory.sources.base import Back, Item, Options, Quarantined, Returned, Skipped
from unified_memory.sources.kinds import kind_of, open_source

FIXTURES = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not beside the repository")
NOON = 1_755_777_600_000_000
NOBODY = 65_534


def bank(root: Path) -> BankFiles:
    return BankFiles.open(str(root), Options())


@contextmanager
def as_nobody() -> Iterator[None]:
    """The administrator may write everywhere: whether something may be written is asked for the real user, who is another now."""
    real, effective, saved = os.getresuid()
    if real == 0:
        os.setresuid(NOBODY, effective, saved)
    try:
        yield
    finally:
        os.setresuid(real, effective, saved)


def back(project: str | None, name: str, text: str | None, **parts: Any) -> Back:
    value = encode(text) if text is not None else b"null"
    return Back(
        **{
            "origin": None,
            "shape": "file",
            "project": project,
            "key": name,
            "number": 1,
            "content": text,
            "value": value,
            "updated_at": NOON,
        }
        | parts
    )


def everything(root: Path) -> dict[str, bytes | str]:
    """Every path below it with its bytes, or where a link leads."""
    return {
        os.path.relpath(path, root): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def rewrite_unseen(path: Path) -> None:
    """Changes a file but neither its size nor when it was last written."""
    about = path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "bank"
    (found / "web").mkdir(parents=True)
    (found / "web" / "notes.md").write_bytes(b"one\r\n")
    return found


@fixtures
def test_every_file_of_the_fixture_is_carried_byte_for_byte() -> None:
    folder = FIXTURES / "memory_bank_npm" / "bank"
    wanted = json.loads((FIXTURES / "manifest.json").read_text())["mb_npm"]
    source = open_source("memory-bank-files", str(folder))
    found = list(source.read())
    items = [one for one in found if isinstance(one, Item)]
    assert len(items) == len(found)
    assert sorted(
        (item.project, item.key, hashlib.sha256(json.loads(item.value).encode()).hexdigest()) for item in items
    ) == sorted((one["project"], one["file"], one["sha256"]) for one in wanted["records"])
    assert {item.importance for item in items} == {7}
    assert {item.service for item in items} == {"memory-bank-mcp"}
    for item in items:
        written = (folder / str(item.project) / item.key).stat().st_mtime_ns // 1000
        assert (item.created_at, item.updated_at) == (written, written)
    survey = source.survey()
    assert (survey.records, survey.projects) == (wanted["files"], wanted["per_project"])
    source.close()


def test_what_is_no_file_of_a_project_is_told_and_left(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not of the bank")
    (root / "README.md").write_text("in the root")
    (root / "web" / "deeper").mkdir()
    (root / "web" / "deeper" / "x.md").write_text("unseen")
    (root / "web" / "out.md").symlink_to(tmp_path / "secret")
    (root / "web" / "same.md").symlink_to("notes.md")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "web" / "pipe")
    (root / "web" / "empty.md").touch()
    source = bank(root)
    found = list(source.read())
    assert {one.origin: one.value for one in found if isinstance(one, Item)} == {
        "file/web/notes.md": b'"one\\r\\n"',
        "file/web/empty.md": b'""',
    }
    reasons = {one.origin: one.reason for one in found if isinstance(one, Skipped)}
    assert reasons.keys() == {
        "file/./README.md",
        "file/./linked",
        "file/web/deeper",
        "file/web/out.md",
        "file/web/same.md",
        "file/web/pipe",
    }
    assert str(tmp_path / "secret") in reasons["file/web/out.md"]
    assert source.lookup("file/web/out.md") is None
    assert source.lookup("file/linked/secret") is None
    assert source.survey().records == 2
    assert any(remark.startswith("6 entries") for remark in source.survey().remarks)


def test_what_is_no_text_is_quarantined_with_all_its_bytes(root: Path) -> None:
    (root / "web" / "picture").write_bytes(b"\xff\xd8 text")
    odd = os.fsencode(root / "web") + b"/\xe9.md"
    with open(odd, "wb") as file:  # noqa: PTH123 - a Path cannot be made of bytes
        file.write(b"kept")
    found = {one.origin: one for one in bank(root).read() if isinstance(one, Quarantined)}
    assert {(origin, one.code, one.raw) for origin, one in found.items()} == {
        ("file/web/picture", "binary", b"\xff\xd8 text"),
        ("file/web/%E9.md", "malformed", b"kept"),
    }
    assert bank(root).lookup("file/web/%E9.md") == found["file/web/%E9.md"]


@pytest.mark.parametrize("name", ["..", ".", "", "../../etc/passwd", "a/b", "/etc/passwd", "nul\0"])
def test_a_name_that_leads_elsewhere_is_neither_read_nor_written(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "beside.md").write_text("not of the bank")
    before = everything(tmp_path)
    source = bank(root)
    for names in ((name, "beside.md"), ("web", name)):
        if names == (".", "beside.md"):
            continue
        assert source.find("file", *names) is None
        origin = bank_origin(names[0].encode(), names[1].encode())
        assert source.lookup(origin) is None
        new, changed, gone = source.put_back(
            [back(*names, "planted"), back(*names, "planted", origin=origin), back(*names, None, origin=origin)]
        )
        assert (new.origin, changed.origin, gone) == (None, None, Returned(origin=None))
        assert new.lost
        assert changed.lost
    assert everything(tmp_path) == before


def test_nothing_is_written_through_a_link(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.md").write_text("outside")
    (root / "linked").symlink_to(outside)
    (root / "web" / "x.md").symlink_to(outside / "x.md")
    before = everything(tmp_path)
    for project in ("linked", "web"):
        returned, deleted = bank(root).put_back([back(project, "x.md", "planted"), back(project, "x.md", None)])
        assert returned.origin is None
        assert returned.lost
        assert deleted.origin is None
    assert everything(tmp_path) == before


def test_what_changed_here_is_written_back_and_twice_is_as_once(root: Path) -> None:
    (root / "web" / "old.md").write_text("old")
    (root / "web" / "notes.md").chmod(0o640)
    source = bank(root)
    assert source.writable() is None
    backs = [
        back("web", "notes.md", "changed", origin="file/web/notes.md"),
        back("new-project", "a.md", "new", tags=("x",)),
        back("web", "old.md", None, origin="file/web/old.md"),
        back("web", "never.md", None),
    ]
    first = source.put_back(backs)
    assert first == [
        Returned(origin="file/web/notes.md"),
        Returned(origin="file/new-project/a.md", lost=("Its tags",)),
        Returned(origin=None),
        Returned(origin=None),
    ]
    assert everything(root) == {"web/notes.md": b"changed", "new-project/a.md": b"new"}
    assert (root / "web" / "notes.md").stat().st_mode & 0o777 == 0o640
    token = source.token()
    assert source.put_back(backs) == first
    assert source.token() == token
    item = source.lookup("file/new-project/a.md")
    assert isinstance(item, Item)
    assert (item.value, item.updated_at) == (b'"new"', NOON)
    assert source.find("file", "new-project", "a.md") == item.origin


def test_a_folder_is_removed_only_where_it_was_made_for_the_return(root: Path) -> None:
    source = bank(root)
    source.put_back([back("web", "notes.md", None), back("mine", "a.md", "x"), back("mine", "a.md", None)])
    assert sorted(path.name for path in root.iterdir()) == ["web"]


def test_names_that_the_older_tools_read_but_never_write_are_told(root: Path) -> None:
    spaced, dotted, empty = bank(root).put_back(
        [back("web", "with space.md", "x"), back("web", "a..b", "x"), back("web", "void.md", "")]
    )
    assert (spaced.origin, dotted.origin, empty.origin) == ("file/web/with%20space.md", None, "file/web/void.md")
    assert all(one.lost for one in (spaced, dotted, empty))
    assert sorted(everything(root)) == ["web/notes.md", "web/void.md", "web/with space.md"]


def test_what_a_return_that_was_cut_off_left_is_told_and_no_file_of_a_project(root: Path) -> None:
    (root / ".unified-memory-return.0123").write_text("half")
    source = bank(root)
    [left] = [one for one in source.read() if isinstance(one, Skipped)]
    assert "cut off" in left.reason
    assert source.find("file", ".", ".unified-memory-return.0123") is None


def test_the_project_of_the_root_is_written_as_the_older_tool_does(root: Path) -> None:
    source = bank(root)
    assert source.put_back([back(".", "top.md", "x")]) == [Returned(origin="file/./top.md")]
    assert (root / "top.md").read_text() == "x"
    assert source.find("file", ".", "top.md") == "file/./top.md"


def test_what_is_no_file_is_not_written(root: Path) -> None:
    before = everything(root)
    entry, homeless, long = bank(root).put_back(
        [back("web", "x", "x", shape="entry"), back(None, "x", "x"), back("web", "x" * 300, "x")]
    )
    assert [one.origin for one in (entry, homeless, long)] == [None, None, None]
    assert all(one.lost for one in (entry, homeless, long))
    assert everything(root) == before


def test_the_token_changes_with_every_change_and_not_by_reading(root: Path) -> None:
    source = bank(root)
    tokens = [source.token()]
    list(source.read())
    assert source.token() == tokens[0]
    for change in (
        lambda: (root / "web" / "notes.md").write_text("two"),
        lambda: rewrite_unseen(root / "web" / "notes.md"),
        (root / "web" / "b.md").touch,
        lambda: (root / "web" / "b.md").rename(root / "web" / "c.md"),
        (root / "other").mkdir,
        (root / "web" / "c.md").unlink,
    ):
        change()
        tokens.append(source.token())
    assert len(set(tokens)) == len(tokens)


def test_what_goes_away_while_it_is_read_is_left_out(root: Path) -> None:
    (root / "zoo").mkdir()
    (root / "zoo" / "a.md").write_text("a")
    (root / "zoo" / "b.md").write_text("b")
    source = bank(root)
    reading = source.read()
    first = next(reading)
    (root / "zoo" / "b.md").unlink()
    assert [first.origin, *(one.origin for one in reading)] == ["file/web/notes.md", "file/zoo/a.md"]


def test_origins_tell_every_pair_of_names_apart() -> None:
    pairs = [(b"a", b"b/c"), (b"a/b", b"c"), (b"", b"a"), (b"a", b""), (b"%2F", b"/"), (b"\xff", "é".encode())]
    assert len({bank_origin(*pair) for pair in pairs}) == len(pairs)
    assert [bank_names(bank_origin(*pair)) for pair in pairs] == pairs
    assert bank_names("entry/a") is None


def test_a_location_that_is_no_folder_is_refused(root: Path) -> None:
    for location in (root / "missing", root / "web" / "notes.md"):
        with pytest.raises(SourceError):
            bank(location)
    with pytest.raises(InvalidInputError):
        BankFiles.open("", Options())
    assert kind_of("memory-bank-files") is BankFiles


def test_a_closed_source_says_so(root: Path) -> None:
    source = bank(root)
    source.close()
    source.close()
    with pytest.raises(SourceError):
        source.survey()


def test_a_folder_that_cannot_be_written_says_so(root: Path) -> None:
    source = bank(root)
    for folder in (root / "web", root):
        folder.chmod(0o555)
        with as_nobody():
            assert source.writable() is not None
        folder.chmod(0o777)
    with as_nobody():
        assert source.writable() is None


@pytest.mark.slow
async def test_the_older_server_and_the_source_read_what_the_other_wrote(tmp_path: Path) -> None:
    text = "\ufeffone\r\ntwo \0 é 🔥"
    async with running(commands.memory_bank_npm(tmp_path), tmp_path) as server:
        await server.call("memory_bank_write", projectName="p", fileName="theirs.md", content=text)
        source = bank(tmp_path / "bank")
        item = source.lookup("file/p/theirs.md")
        assert isinstance(item, Item)
        assert json.loads(item.value) == text
        source.put_back([back("p", "ours.md", text), back("p", "with ü.md", text), back("p", "theirs.md", None)])
        for name in ("ours.md", "with ü.md"):
            read = await server.call("memory_bank_read", projectName="p", fileName=name)
            assert read["content"] == [{"type": "text", "text": text}]
        listed = await server.call("list_project_files", projectName="p")
        assert listed["content"] == [{"type": "text", "text": "ours.md,with ü.md"}]
        source.close()


def test_what_a_killed_process_left_unfinished_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".unified-memory-return.0123456789abcdef").write_text("half")
    (tmp_path / ".other").write_text("theirs")
    bank(tmp_path).put_back([back("web", "a.md", "x")])
    assert everything(tmp_path) == {".other": b"theirs", "web/a.md": b"x"}
