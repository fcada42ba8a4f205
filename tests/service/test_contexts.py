"""Contexts of projects: what is kept, found, counted and forgotten."""

from pathlib import Path

import pytest

from tests.service.asking import Held
from unified_memory.model.errors import InvalidCursorError, InvalidInputError, MemoryNotFoundError, ReadOnlyError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.contexts import Contexts, normalise
from unified_memory.service.requests import Idempotent
from unified_memory.storage.base import TagUse

ELSEWHERE = Principal("elsewhere", ("team",))
ONE_PROJECT = Principal("one", ("projects/a",))


def contexts(held: Held) -> Contexts:
    return held.service.contexts


async def save(
    held: Held, content: str, project: str | None = "p", importance: int = 7, tags: tuple[str, ...] = ()
) -> Memory:
    held.clock.advance(1)
    return await contexts(held).save(ANONYMOUS, content, project=project, importance=importance, tags=tags)


async def load(
    held: Held, *, importance: float = 1, limit: int = 30, tags: tuple[str, ...] = (), shown: int = 10
) -> list[str]:
    loaded = await contexts(held).load(ANONYMOUS, "p", importance=importance, limit=limit, tags=tags, shown=shown)
    return [str(one.parsed()) for one in loaded.contexts]


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (None, "general"),
        ("", "general"),
        (" \t", "general"),
        ("___", ""),
        ("-", ""),
        ("GENERAL_", "general"),
        ("my__weird--Name  x", "my weird name x"),
        ("a\tb\nc", "a b c"),
    ],
)
def test_a_project_is_known_by_its_normalised_name(sent: str | None, known: str) -> None:
    assert normalise(sent) == known


async def test_a_context_is_a_memory_of_its_projects_namespace(each: Held) -> None:
    saved = await save(each, "kept", "A/b", 8, ("x", "y"))
    assert (saved.namespace, saved.importance, saved.tags) == ("projects/a%2Fb", 8, ("x", "y"))
    found = await each.retrieve(saved.key, saved.namespace)
    assert saved.key.startswith("context/")
    assert (found.id, found.parsed()) == (saved.id, "kept")


async def test_the_empty_project_is_not_the_general_one(each: Held) -> None:
    await save(each, "nameless", "___")
    await save(each, "general", None)
    told = await contexts(each).load(ANONYMOUS, "-", importance=1, limit=30, shown=10)
    assert [one.parsed() for one in told.contexts] == ["nameless"]
    assert await contexts(each).projects(ANONYMOUS) == ["", "general"]


async def test_the_newest_are_shown_oldest_first_and_all_that_were_found_are_counted(each: Held) -> None:
    for n in range(12):
        await save(each, f"{n}", importance=n % 10 + 1)
    each.clock.advance(24 * 3600 - 3)
    told = await contexts(each).load(ANONYMOUS, "p", importance=2, limit=11, shown=3)
    assert [one.parsed() for one in told.contexts] == ["8", "9", "11"]
    assert (told.count, told.recent, told.high, told.more) == (10, 2, 3, True)
    everything = await contexts(each).load(ANONYMOUS, "p", importance=2, limit=-1, shown=3)
    assert [one.parsed() for one in everything.contexts] == ["8", "9", "11"]
    assert (everything.count, everything.recent, everything.high) == (10, 2, 3)


async def test_with_tags_the_limit_takes_the_newest_before_importance_is_asked(each: Held) -> None:
    for n, tags in enumerate((("a",), ("b",), ("c",), ("a", "b"))):
        await save(each, f"{n}", importance=n + 1, tags=tags)
    assert await load(each, tags=("a", "b")) == ["0", "1", "3"]
    assert await load(each, tags=("a", "b"), importance=2) == ["1", "3"]
    assert await load(each, tags=("a", "b"), importance=1, limit=2) == ["1", "3"]
    assert await load(each, tags=("c", "b"), importance=3, limit=1) == ["3"]
    assert await load(each, tags=("a", "b"), limit=-1) == ["1", "3"]
    assert await load(each, tags=("a",), limit=0) == []
    assert await load(each, tags=("\ud800",)) == []


async def test_a_cursor_goes_on_before_the_oldest_that_was_shown(each: Held) -> None:
    for n in range(7):
        await save(each, f"{n}")
    pages: list[list[object]] = []
    cursor = None
    while True:
        told = await contexts(each).load(ANONYMOUS, "p", importance=1, limit=30, shown=3, cursor=cursor)
        pages.append([one.parsed() for one in told.contexts])
        if not told.more:
            break
        cursor = told.cursor(told.contexts[0])
    assert pages == [["4", "5", "6"], ["1", "2", "3"], ["0"]]
    with pytest.raises(InvalidCursorError):
        await contexts(each).load(ANONYMOUS, "other", importance=1, limit=30, shown=3, cursor=cursor)


async def test_an_expired_context_is_not_found_and_its_tag_leaves(each: Held) -> None:
    await contexts(each).save(ANONYMOUS, "brief", project="p", importance=7, tags=["gone"], ttl=60)
    assert [use.tag for use in await contexts(each).popular_tags(ANONYMOUS, "p")] == ["gone"]
    each.clock.advance(60)
    assert await load(each) == []
    assert await contexts(each).popular_tags(ANONYMOUS, "p") == []
    assert await contexts(each).projects(ANONYMOUS) == []


async def test_a_memory_stored_under_another_key_is_a_context_too(each: Held) -> None:
    stored = await each.store("k", {"n": 1}, "projects/p")
    told = await contexts(each).load(ANONYMOUS, "p", importance=1, limit=30, shown=10)
    assert [one.id for one in told.contexts] == [stored.id]
    assert (await contexts(each).forget(ANONYMOUS, stored.id)).key == "k"


async def test_only_contexts_are_forgotten(each: Held) -> None:
    other = await each.store("k")
    saved = await contexts(each).save(ANONYMOUS, "x", project=None, importance=5, tags=[], namespace="team/x")
    for number in (other.id, 0, -1, 2**70, saved.id + 1):
        with pytest.raises(MemoryNotFoundError):
            await contexts(each).forget(ANONYMOUS, number)
    assert (await contexts(each).forget(ANONYMOUS, saved.id)).id == saved.id
    with pytest.raises(MemoryNotFoundError):
        await contexts(each).forget(ANONYMOUS, saved.id)
    assert (await each.retrieve("k")).id == other.id


async def test_what_is_asked_again_under_its_key_happened_once(each: Held) -> None:
    again = Idempotent("call", b"save")
    first, second = [
        await contexts(each).save(ANONYMOUS, "x", project="p", importance=5, tags=["t"], idempotent=again)
        for _ in range(2)
    ]
    assert first == second
    assert await load(each) == ["x"]
    again = Idempotent("other", b"forget")
    gone = [await contexts(each).forget(ANONYMOUS, first.id, again) for _ in range(2)]
    assert gone[0].id == gone[1].id == first.id


async def test_a_principal_finds_only_what_it_may_see(each: Held) -> None:
    mine = await save(each, "x", "a", tags=("mine",))
    other = await save(each, "y", "b", tags=("other", "other2"))
    held = contexts(each)
    assert await held.projects(ONE_PROJECT) == ["a"]
    assert await held.projects(ELSEWHERE) == []
    told = await held.load(ONE_PROJECT, "a", importance=1, limit=30, shown=10)
    assert [one.id for one in told.contexts] == [mine.id]
    assert [use.tag for use in told.tags] == ["mine"]
    assert (await held.load(ONE_PROJECT, "b", importance=1, limit=30, shown=10)).count == 0
    assert await held.popular_tags(ONE_PROJECT, "b") == []
    for principal in (ONE_PROJECT, ELSEWHERE):
        with pytest.raises(MemoryNotFoundError):
            await held.forget(principal, other.id)


async def test_tags_are_told_by_use_and_of_one_memory_the_last_named_first(each: Held) -> None:
    await save(each, "0", tags=("a", "z", "m"))
    await save(each, "1", tags=("n", "b"))
    await save(each, "2", tags=("n",))
    held = contexts(each)
    assert [use.tag for use in await held.popular_tags(ANONYMOUS, "p")] == ["n", "b", "m", "z", "a"]
    assert [use.tag for use in await held.popular_tags(ANONYMOUS, "p", limit=3)] == ["n", "b", "m"]
    assert [use.tag for use in await held.popular_tags(ANONYMOUS, "p", limit=-1, min_usage=5)] == ["b", "m", "z", "a"]
    assert await held.popular_tags(ANONYMOUS, "p", limit=0) == []
    each.clock.advance(24 * 3600)
    assert [(use.tag, use.count) for use in await held.popular_tags(ANONYMOUS, "p", min_usage=2)] == [("n", 2)]


async def test_tags_are_counted_from_the_beginning_only_where_more_happened_than_saving(
    each: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = each.storage.tag_uses

    async def counting(scopes: tuple[str, ...], now: int) -> list[TagUse]:
        counted.append(now)
        return await count(scopes, now)

    async def told() -> list[tuple[str, int]]:
        uses = await contexts(each).popular_tags(ANONYMOUS, "p", limit=-1)
        assert uses == await Contexts(each.storage, each.service.memories, each.clock).popular_tags(
            ANONYMOUS, "p", limit=-1
        )
        counted.pop()
        return [(use.tag, use.count) for use in uses]

    monkeypatch.setattr(each.storage, "tag_uses", counting)
    first = await save(each, "0", tags=("a", "b"))
    assert await told() == [("b", 1), ("a", 1)]
    assert await told() == [("b", 1), ("a", 1)]
    await save(each, "1", tags=("c", "a"))
    await each.store("k", namespace="elsewhere", metadata={"tags": ["x"]})
    await each.store("k", namespace="elsewhere", metadata={"tags": ["y"]})
    assert await told() == [("a", 2), ("c", 1), ("b", 1)]
    assert len(counted) == 2  # the change of k has left a gap
    await save(each, "2", tags=("c",))
    assert await told() == [("c", 2), ("a", 2), ("b", 1)]
    assert len(counted) == 2
    await contexts(each).forget(ANONYMOUS, first.id)
    assert await told() == [("c", 2), ("a", 1)]
    assert len(counted) == 3
    await contexts(each).save(ANONYMOUS, "3", project="p", importance=5, tags=["brief"], ttl=30)
    assert await told() == [("c", 2), ("brief", 1), ("a", 1)]
    each.clock.advance(30)
    assert await told() == [("c", 2), ("a", 1)]
    assert len(counted) == 4
    for tags in (("m", "n"), ("l", "k")):
        await contexts(each).save(ANONYMOUS, "at one instant", project="p", importance=5, tags=tags)
        await told()
    assert await told() == [("c", 2), ("k", 1), ("l", 1), ("m", 1), ("n", 1), ("a", 1)]
    assert len(counted) == 4
    kept = await contexts(each).save(ANONYMOUS, "4", project="p", importance=5, tags=["now"])
    assert ("now", 1) in await told()
    await each.store(kept.key, namespace=kept.namespace, metadata={"tags": ["later"]})
    assert ("now", 1) not in await told()
    assert len(counted) == 5


@pytest.mark.parametrize(
    ("content", "project", "tag"), [("\ud800", "p", "t"), ("x", "\ud800", "t"), ("x", "p", "\ud800")]
)
async def test_a_lone_surrogate_is_refused(held: Held, content: str, project: str, tag: str) -> None:
    with pytest.raises(InvalidInputError):
        await save(held, content, project, tags=(tag,))
    assert (await held.service.storage.stats(("",), 0, top=1)).memories == 0


async def test_nothing_is_saved_while_writes_are_off(each: Held) -> None:
    await each.storage.set_read_only("moving")
    with pytest.raises(ReadOnlyError):
        await save(each, "x")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("a.md", b" Be brief.\r\n", "Be brief."), ("a.TXT", b"x", "x"), ("a.json", b"x", ""), ("a.md", b"\xff", "")],
)
async def test_instructions_are_read_from_a_text_file(
    held: Held, tmp_path: Path, name: str, text: bytes, told: str
) -> None:
    assert await contexts(held).instruction() == ""
    contexts(held).instructions = tmp_path / name
    assert await contexts(held).instruction() == ""
    (tmp_path / name).write_bytes(text)
    assert await contexts(held).instruction() == told
