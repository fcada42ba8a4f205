"""Search, what is like a memory, and what to be reminded of: order, narrowing, budgets, pages, and who sees what."""

from typing import Any

import msgspec
import pytest

from tests.service.asking import Held
from unified_memory.model.errors import (
    EmptyQueryError,
    InvalidCursorError,
    InvalidInputError,
    MemoryNotFoundError,
    SemanticUnavailableError,
)
from unified_memory.model.found import encode_result, explained
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.ranking import ASKING_FACTOR
from unified_memory.model.value import encode
from unified_memory.service.requests import MessageText, RankOptions, RecallQuery, SearchQuery, SimilarQuery
from unified_memory.service.searching import MODES, Found

DAY = 86_400
CALLER = Principal("caller", ("acme",))
NONSENSE = ["nonsense", "", "7q", "05/06/2023", "12345-01-01", "x" * 201]


async def search(held: Held, query: str, principal: Principal = ANONYMOUS, **more: Any) -> Found:
    return await held.service.searching.search(principal, SearchQuery(query=query, **more))


async def similar(held: Held, principal: Principal = ANONYMOUS, **asked: Any) -> Found:
    return await held.service.searching.similar(principal, SimilarQuery(**asked))


async def recall(held: Held, *messages: str | MessageText, principal: Principal = ANONYMOUS, **more: Any) -> Found:
    return await held.service.searching.recall(principal, RecallQuery(messages=list(messages), **more))


def keys(found: Found) -> list[str]:
    return [one.hit.memory.key for one in found.results]


def scores(found: Found) -> dict[str, float]:
    return {one.hit.memory.key: one.score for one in found.results}


def answer_bytes(found: Found) -> int:
    """What an answer takes as REST sends it."""
    items = b",".join(map(encode_result, found.results))
    more = {
        "next_cursor": found.next_cursor,
        "left_out": found.left_out,
        "mode": found.mode,
        "corrected": found.corrected,
    }
    return len(b'{"results":[%b],%b' % (items, encode(more)[1:]))


# ---- rank
async def test_of_memories_as_relevant_the_more_important_comes_first(each: Held) -> None:
    for importance in (3, 10, 5, 1):
        await each.store(f"k{importance}", "apple pie", metadata={"importance": importance})
    assert keys(await search(each, "apple")) == ["k10", "k5", "k3", "k1"]
    told = scores(await search(each, "apple", rank=RankOptions(importance=0.5)))
    assert told["k10"] / told["k5"] == pytest.approx(1.5)
    assert told["k1"] / told["k5"] == pytest.approx(0.6)
    level = scores(await search(each, "apple", rank=RankOptions(importance=0)))
    assert len(set(level.values())) == 1
    assert list(level) == ["k1", "k5", "k10", "k3"]


async def test_by_a_half_life_a_memory_loses_a_quarter_and_in_the_end_half_of_its_score(each: Held) -> None:
    await each.store("oldest", "apple pie")
    each.clock.advance(3_000 * DAY)
    await each.store("old", "apple pie")
    each.clock.advance(30 * DAY)
    await each.store("new", "apple pie")
    for half_life in ("30d", 30 * DAY, "P30D"):
        told = scores(await search(each, "apple", rank=RankOptions(recency_half_life=half_life)))
        assert list(told) == ["new", "old", "oldest"]
        assert told["old"] / told["new"] == pytest.approx(0.75)
        assert told["oldest"] / told["new"] == pytest.approx(0.5)
    for none in (None, RankOptions(), RankOptions(recency_half_life=0)):
        assert len(set(scores(await search(each, "apple", rank=none)).values())) == 1


async def test_relevance_comes_before_what_else_counts(each: Held) -> None:
    await each.store("both", "apple pie", metadata={"importance": 1})
    await each.store("one", "apple crumble", metadata={"importance": 10})
    assert keys(await search(each, "apple pie")) == ["both", "one"]


@pytest.mark.parametrize(
    ("rank", "field"),
    [
        (RankOptions(importance=-0.1), "rank.importance"),
        (RankOptions(importance=1.1), "rank.importance"),
        (RankOptions(recency_half_life="soon"), "rank.recency_half_life"),
        (RankOptions(recency_half_life=-1), "rank.recency_half_life"),
        (RankOptions(recency_half_life=1e12), "rank.recency_half_life"),
    ],
)
async def test_a_rank_that_is_none_is_refused(held: Held, rank: RankOptions, field: str) -> None:
    for asking in (search(held, "a", rank=rank), similar(held, text="a", rank=rank), recall(held, "a", rank=rank)):
        with pytest.raises(InvalidInputError) as refused:
            await asking
        assert refused.value.field == field


async def test_the_same_query_gives_the_same_order_every_time(each: Held) -> None:
    for number in range(12):
        await each.store(f"k{number}", "apple pie")
    first = keys(await search(each, "apple"))
    assert first == [f"k{number}" for number in range(11, -1, -1)]
    assert keys(await search(each, "apple")) == first


# ---- what a score is made of
async def test_the_parts_of_a_score_add_up(each: Held) -> None:
    for number, text in enumerate(["apple pie with cream", "apple tart", "a pie", "nothing of it", "cream cream pie"]):
        metadata = {"importance": number + 3, "tags": ["apple"] if number == 2 else []}
        await each.store(f"k{number}", text, metadata=metadata)
        each.clock.advance(DAY)
    found = await search(
        each, "apple pie cream", rank=RankOptions(recency_half_life="2d", importance=0.3), explain=True
    )
    assert len(found.results) == 4
    for one in found.results:
        parts = one.hit.parts
        assert parts is not None
        assert sum(parts.terms) == pytest.approx(parts.relevance)
        assert (parts.relevance + parts.date) * parts.importance * parts.recency == pytest.approx(one.score)
        assert 0 < one.score < 1.5
        told = explained(one, one.hit.asked)
        assert set(told["terms"]) <= {"apple", "pie", "cream"}
        assert sum(told["terms"].values()) == pytest.approx(told["relevance"], abs=0.001)


async def test_what_neighbours_in_a_session_lend_is_told(each: Held) -> None:
    for number, text in enumerate(["We talked of the apple harvest.", "It was plentiful.", "Was the harvest good?"]):
        await each.store(f"k{number}", text, metadata={"session_id": "s"})
    found = {one.hit.memory.key: one for one in (await search(each, "apple harvest plentiful", explain=True)).results}
    lent, asking = found["k1"].hit.parts, found["k2"].hit.parts
    assert lent is not None
    assert asking is not None
    assert 0 < lent.context < lent.relevance
    assert sum(lent.terms) == pytest.approx(lent.relevance)
    # A question seldom holds an answer.
    assert asking.relevance == pytest.approx(ASKING_FACTOR * sum(asking.terms))


async def test_a_word_that_is_asked_twice_is_told_with_all_of_its_share(each: Held) -> None:
    await each.store("k", "apple pie")
    (one,) = (await search(each, "apple pie apple", explain=True)).results
    told = explained(one, one.hit.asked)
    assert sum(told["terms"].values()) == pytest.approx(told["relevance"], abs=0.001)


async def test_what_is_found_by_its_letters_alone_is_told_so(each: Held) -> None:
    await each.store("k", "pineapples")
    (one,) = (await search(each, "eappl", explain=True)).results
    assert (one.hit.parts, explained(one, one.hit.asked)) == (None, {"literal": True})


# ---- near-duplicates
async def test_near_duplicates_are_one_the_newest_in_the_place_of_the_best(each: Held) -> None:
    await each.store("best", "Deploy on Fridays only!", metadata={"importance": 10})
    each.clock.advance(1)
    await each.store("other", "Never deploy at night")
    await each.store("newest", "deploy on fridays, only")
    found = await search(each, "deploy fridays", collapse=True)
    assert [(one.hit.memory.key, one.duplicates) for one in found.results] == [("newest", 1), ("other", 0)]
    every = scores(await search(each, "deploy fridays"))
    assert found.results[0].score == max(every["best"], every["newest"])


async def test_pages_of_collapsed_results_repeat_nothing(each: Held) -> None:
    for number in range(9):
        await each.store(f"a{number}", f"apple of the tree named {'abc'[number % 3] * 9}")
        each.clock.advance(1)
    shown: list[tuple[str, int | None]] = []
    cursor = None
    while not shown or cursor:
        found = await search(each, "apple tree", collapse=True, limit=1, cursor=cursor)
        shown += [(one.hit.memory.key, one.duplicates) for one in found.results]
        cursor = found.next_cursor
    assert sorted(shown) == [("a6", 2), ("a7", 2), ("a8", 2)]


# ---- when
@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("7d", None, ["today", "yesterday"]),
        (None, "7d", ["old"]),
        ("yesterday", None, ["today", "yesterday"]),
        ("yesterday", "yesterday", ["yesterday"]),
        ("today", None, ["today"]),
        ("last month", "last month", []),
        ("May 2025", "May 2025", ["old"]),
        ("2025-05", "2025-06-14", ["old", "yesterday"]),
        ("2025-06-15T15:06:40Z", None, ["today"]),
        ("2h", "1h", []),
    ],
)
async def test_times_are_instants_durations_and_words(
    each: Held, since: str | None, until: str | None, found: list[str]
) -> None:
    if since == "last month":
        found = ["old"]
    each.clock.advance(-40 * DAY)
    await each.store("old", "apple pie")
    each.clock.advance(39 * DAY)
    await each.store("yesterday", "apple pie")
    each.clock.advance(DAY)
    await each.store("today", "apple pie")
    times: dict[str, Any] = {"since": since, "until": until}
    assert sorted(keys(await search(each, "apple", **times))) == found
    assert sorted(keys(await similar(each, text="apple", **times))) == found
    assert set(keys(await recall(each, "apple", **times))) <= set(found)


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("text", NONSENSE)
async def test_what_names_no_time_is_refused(held: Held, field: str, text: str) -> None:
    when: dict[str, Any] = {field: text}
    for asking in (search(held, "a", **when), similar(held, text="a", **when), recall(held, "a", **when)):
        with pytest.raises(InvalidInputError) as refused:
            await asking
        assert refused.value.field == field


# ---- scores
async def test_nothing_below_the_least_score_is_found(each: Held) -> None:
    await each.store("both", "apple pie")
    await each.store("one", "apple crumble with a lot of cream and nothing else")
    every = scores(await search(each, "apple pie"))
    between = (every["both"] + every["one"]) / 2
    assert keys(await search(each, "apple pie", min_score=between)) == ["both"]
    assert keys(await similar(each, text="apple pie", min_score=between)) == ["both"]
    assert keys(await recall(each, "apple pie", min_score=between)) == ["both"]
    nothing = await search(each, "apple pie", min_score=2)
    assert (nothing.results, nothing.next_cursor, nothing.left_out) == ([], None, 0)


# ---- what is shown
FILLER = "Nothing of interest happened here. " * 60
LONG = f"{FILLER}The apple fell far from the tree. {FILLER}Later there was pie for everybody. {FILLER}"


async def test_of_a_long_value_the_best_passages_are_shown(each: Held) -> None:
    await each.store("long", {"said": LONG})
    await each.store("short", "apple pie")
    whole = {one.hit.memory.key: one for one in (await search(each, "apple pie")).results}
    assert whole["long"].passages is None
    found = {one.hit.memory.key: one for one in (await search(each, "apple pie", content="passages")).results}
    assert found["short"].passages is None
    passages = found["long"].passages
    assert passages is not None
    told = " ".join(text for _, _, text in passages)
    assert "The apple fell far" in told
    assert "pie for everybody" in told
    assert sum(end - start for start, end, _ in passages) <= 1_200
    words = f"said\n{LONG}"
    assert all(words[start:end] == text for start, end, text in passages)
    assert b'"value":null' in encode_result(found["long"])


async def test_without_content_the_values_are_left_out(each: Held) -> None:
    await each.store("k", "apple pie")
    (one,) = (await search(each, "apple", content="none")).results
    encoded = encode_result(one)
    assert b'"value":null' in encoded
    assert b"passages" not in encoded


# ---- budgets
VALUES: dict[str, Any] = {
    "short": "apple {n}",
    "long": "apple {n}. " + "Nothing of interest happened here. " * 400,
    "escaped": 'apple {n} "\\ \x01' * 300,
    "wide": "apple {n} 部署流水线。" * 500,
    "emoji": "apple {n} 🎉" * 700,
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("more", [{}, {"collapse": True}, {"explain": True}, {"content": "none"}], ids=str)
async def test_a_budget_bounds_the_whole_answer(each: Held, kind: str, more: dict[str, Any]) -> None:
    for number in range(20):
        await each.store(f"k{number}", VALUES[kind].format(n=number), metadata={"note": "x" * 100})
    for max_tokens in (1, 300, 1_000, 4_000, 20_000):
        for found in (
            await search(each, "apple", limit=20, max_tokens=max_tokens, **more),
            await similar(each, text="apple", limit=20, max_tokens=max_tokens, **more),
        ):
            shown = len(found.results)
            assert shown >= 1
            assert found.left_out == (0 if found.next_cursor is None else 20 - shown) or "collapse" in more
            # A single result may take more: its record without the value, its snippet, and 400 characters of passages.
            assert answer_bytes(found) <= 4 * max_tokens or (shown == 1 and answer_bytes(found) <= 5_000)


@pytest.mark.parametrize("kind", VALUES)
async def test_a_budget_bounds_what_is_recalled(each: Held, kind: str) -> None:
    for number in range(20):
        await each.store(
            f"k{number}", f"{number} " + VALUES[kind].format(n=number), metadata={"session_id": str(number)}
        )
    for max_tokens in (1, 1_000, 4_000):
        found = await recall(each, "apple", limit=20, max_tokens=max_tokens)
        assert len(found.results) >= 1
        assert answer_bytes(found) <= 4 * max_tokens or (len(found.results) == 1 and answer_bytes(found) <= 5_000)


async def test_a_budget_leaves_room_for_a_small_result_behind_a_large_one(each: Held) -> None:
    await each.store("large", LONG * 20, metadata={"importance": 10})
    await each.store("small", "an apple")
    found = await search(each, "apple", max_tokens=1_000)
    assert sorted(keys(found)) == ["large", "small"]


async def test_a_value_of_signs_is_shown_by_its_words(each: Held) -> None:
    await each.store("k", [[None]] * 3_000, metadata={"tags": ["apple"]})
    await each.store("l", ["apple", *([True] * 3_000)])
    found = await search(each, "apple", max_tokens=1_000)
    assert sorted(keys(found)) == ["k", "l"]
    assert answer_bytes(found) <= 4_000


@pytest.mark.parametrize("max_tokens", [0, -1])
async def test_a_budget_of_nothing_is_refused(held: Held, max_tokens: int) -> None:
    for asking in (
        search(held, "a", max_tokens=max_tokens),
        similar(held, text="a", max_tokens=max_tokens),
        recall(held, "a", max_tokens=max_tokens),
    ):
        with pytest.raises(InvalidInputError) as refused:
            await asking
        assert refused.value.field == "max_tokens"


# ---- pages
@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("max_tokens", [None, 1, 400, 5_000])
async def test_a_cursor_goes_through_everything_once(each: Held, limit: int, max_tokens: int | None) -> None:
    for number in range(23):
        value = f"apple {number} " + "with cream and sugar, " * (number * number % 90)
        await each.store(f"k{number}", value, metadata={"importance": number % 10 + 1})
    for by_text in (False, True):
        shown: list[str] = []
        cursor = None
        while not shown or cursor:
            page: dict[str, Any] = {"limit": limit, "max_tokens": max_tokens, "cursor": cursor}
            found = await (similar(each, text="apple", **page) if by_text else search(each, "apple", **page))
            assert 1 <= len(found.results) <= limit
            shown += keys(found)
            cursor = found.next_cursor
            assert len(shown) <= 23
        assert sorted(shown) == sorted(f"k{number}" for number in range(23))


CHANGED: list[dict[str, Any]] = [
    {"query": "pie"},
    {"namespace": "default"},
    {"min_score": 0.1},
    {"collapse": True},
    {"rank": RankOptions(importance=0.3)},
    {"since": "7d"},
    {"tags": ["t"]},
    {"mode": "fulltext"},
    {"recursive": False},
    {"filter": {"importance": 5}},
]


@pytest.mark.parametrize("changed", CHANGED, ids=lambda one: next(iter(one)))
async def test_a_cursor_of_another_search_is_refused(held: Held, changed: dict[str, Any]) -> None:
    for number in range(3):
        await held.store(f"k{number}", "apple pie", metadata={"tags": ["t"]})
    cursor = (await search(held, "apple", limit=1)).next_cursor
    assert cursor is not None
    with pytest.raises(InvalidCursorError):
        await search(held, **{"query": "apple", "limit": 1, "cursor": cursor, **changed})
    with pytest.raises(InvalidCursorError):
        await similar(held, text="apple", limit=1, cursor=cursor)


async def test_a_time_in_words_keeps_its_cursor_while_time_goes_on(each: Held) -> None:
    for number in range(3):
        await each.store(f"k{number}", "apple pie")
    first = await search(each, "apple", since="7d", limit=2)
    each.clock.advance(60)
    rest = await search(each, "apple", since="7d", limit=2, cursor=first.next_cursor)
    assert sorted(keys(first) + keys(rest)) == ["k0", "k1", "k2"]


async def test_how_much_is_shown_may_change_from_page_to_page(held: Held) -> None:
    for number in range(5):
        await held.store(f"k{number}", "apple pie")
    first = await search(held, "apple", limit=2)
    rest = await search(held, "apple", limit=9, cursor=first.next_cursor, explain=True, max_tokens=9_000)
    assert len(keys(first) + keys(rest)) == len(set(keys(first) + keys(rest))) == 5


# ---- similar
async def test_what_is_like_a_memory_is_found_without_itself(each: Held) -> None:
    await each.store("source", "The harvest of apples was plentiful in the valley.", "acme")
    await each.store("like", "Apples of the valley: a plentiful harvest", "acme/web")
    await each.store("source", "Apples again, in another namespace", "other")
    await each.store("far", "The invoice is due on Monday")
    found = await similar(each, key="source", key_namespace="acme")
    assert [(one.hit.memory.namespace, one.hit.memory.key) for one in found.results] == [
        ("acme/web", "like"),
        ("other", "source"),
    ]
    assert keys(await similar(each, key="source", key_namespace="acme", namespace="acme")) == ["like"]
    assert keys(await similar(each, text="When is the invoice due?")) == ["far"]


async def test_nothing_of_a_text_is_an_operator(each: Held) -> None:
    await each.store("k", "apple pie -crumble")
    await each.store("source", '-apple "pie crust" cru*')
    assert set(keys(await similar(each, text='-apple "never seen" zzz*'))) == {"source", "k"}
    assert keys(await similar(each, key="source")) == ["k"]


async def test_a_memory_without_words_is_like_nothing_and_told_so(each: Held) -> None:
    await each.store("k", {})
    with pytest.raises(EmptyQueryError):
        await similar(each, key="k")
    with pytest.raises(EmptyQueryError):
        await similar(each, text="…")


@pytest.mark.parametrize("asked", [{}, {"key": "k", "text": "t"}])
async def test_either_a_key_or_a_text_is_given(held: Held, asked: dict[str, Any]) -> None:
    await held.store("k")
    with pytest.raises(InvalidInputError) as refused:
        await similar(held, **asked)
    assert refused.value.field == "key"


async def test_a_memory_that_has_expired_is_like_nothing(each: Held) -> None:
    await each.store("k", "apple", ttl=1)
    each.clock.advance(1)
    with pytest.raises(MemoryNotFoundError):
        await similar(each, key="k")


# ---- recall
async def test_the_last_message_counts_most(each: Held) -> None:
    await each.store("milk", "milk and honey")
    await each.store("tea", "tea and honey")
    assert keys(await recall(each, "Is there milk?", "Is there tea?")) == ["tea", "milk"]
    found = await recall(each, "Is there tea?", MessageText("Is there milk?"))
    assert [(one.hit.memory.key, one.message) for one in found.results] == [("milk", 1), ("tea", 0)]


async def test_what_several_messages_call_for_comes_before_what_one_does(each: Held) -> None:
    await each.store("one", "honey from the north")
    await each.store("both", "honey from the south")
    found = await recall(each, "Something of the south", "Where is honey?")
    assert keys(found) == ["both", "one"]


async def test_only_the_last_messages_ask(each: Held) -> None:
    await each.store("milk", "milk and honey")
    assert keys(await recall(each, "milk", *["tea"] * 5)) == ["milk"]
    assert keys(await recall(each, "milk", *["tea"] * 6)) == []


async def test_what_was_said_in_the_conversation_itself_is_not_recalled(each: Held) -> None:
    await each.store("here", "milk and honey", metadata={"session_id": "now"})
    await each.store("there", "milk and tea", metadata={"session_id": "then"})
    await each.store("nowhere", "milk and sugar")
    assert set(keys(await recall(each, "milk", exclude_session="now"))) == {"there", "nowhere"}


async def test_near_duplicates_are_recalled_once(each: Held) -> None:
    await each.store("old", "Deploy on Fridays only!")
    each.clock.advance(1)
    await each.store("new", "deploy on fridays, only")
    found = await recall(each, "When do we deploy?")
    assert [(one.hit.memory.key, one.duplicates) for one in found.results] == [("new", 1)]


async def test_memories_of_several_sessions_are_recalled(each: Held) -> None:
    for number in range(4):
        await each.store(f"a{number}", f"milk of the kind {'xyzw'[number] * 5}", metadata={"session_id": "a"})
    await each.store("b", "milk, among many other things that we bought", metadata={"session_id": "b"})
    plain = keys(await search(each, "milk", limit=5))
    diverse = keys(await recall(each, "milk", limit=5))
    assert set(diverse) == set(plain)
    assert diverse.index("b") <= plain.index("b")
    assert "b" in diverse[:4]


async def test_long_memories_are_recalled_by_their_passages(each: Held) -> None:
    await each.store("long", LONG)
    (one,) = (await recall(each, "Who ate apple pie?")).results
    assert one.passages is not None
    assert any("The apple fell far" in text for _, _, text in one.passages)


async def test_a_conversation_without_a_word_is_told_so(each: Held) -> None:
    await each.store("k", "apple")
    for messages in ([], ["…", " "], ["…"] * 9):
        with pytest.raises(EmptyQueryError):
            await recall(each, *messages)


async def test_a_misspelt_message_recalls_no_guess(each: Held) -> None:
    await each.store("k", "an apple")
    assert (await search(each, "appel")).corrected == {"appel": "apple"}
    found = await recall(each, "appel")
    assert (found.results, found.corrected) == ([], {})


# ---- by meaning
async def test_without_the_extra_search_by_meaning_is_refused_and_auto_is_by_words(held: Held) -> None:
    await held.store("k", "apple")
    for mode in ("semantic", "hybrid"):
        for asking in (
            search(held, "apple", mode=mode),
            similar(held, key="k", mode=mode),
            recall(held, "apple", mode=mode),
        ):
            with pytest.raises(SemanticUnavailableError):
                await asking
    for mode in ("auto", "fulltext"):
        found = await search(held, "apple", mode=mode)
        assert (keys(found), found.mode) == (["k"], "fulltext")
    with pytest.raises(InvalidInputError) as refused:
        await search(held, "apple", mode="psychic")
    assert refused.value.field == "mode"
    assert all(mode in refused.value.detail for mode in MODES)


# ---- who sees what
async def test_each_search_finds_only_what_its_caller_may_see(each: Held) -> None:
    for namespace in ("acme", "acme/web", "acme-corp", "other"):
        await each.store("k", "apple pie", namespace)
    for found in (
        await search(each, "apple", CALLER),
        await similar(each, CALLER, text="apple"),
        await similar(each, CALLER, key="k", key_namespace="acme"),
        await recall(each, "apple", principal=CALLER),
    ):
        seen = {one.hit.memory.namespace for one in found.results}
        assert seen <= {"acme", "acme/web"}
        assert "acme/web" in seen


async def test_a_source_that_may_not_be_seen_is_not_there(each: Held) -> None:
    await each.store("k", "apple pie", "other")
    await each.store("mine", "apple pie", "acme")
    for namespace in ("other", "nowhere", "acme-corp"):
        with pytest.raises(MemoryNotFoundError) as hidden:
            await similar(each, CALLER, key="k", key_namespace=namespace)
        assert hidden.value.facts == {"namespace": namespace, "key": "k"}


async def test_a_word_is_corrected_only_by_what_the_caller_sees(each: Held) -> None:
    await each.store("k", "thunderbird", "other")
    await each.store("k", "plain words", "acme")
    assert (await search(each, "thundrbird")).corrected == {"thundrbird": "thunderbird"}
    for found in (await search(each, "thundrbird", CALLER), await similar(each, CALLER, text="thundrbird")):
        assert (found.results, found.corrected) == ([], {})
    await each.store("l", "thunderbolt", "acme")
    assert set((await search(each, "thunderbolf", CALLER)).corrected.values()) == {"thunderbolt"}


@pytest.mark.parametrize(
    "content",
    ["apple pie", [{"type": "text", "text": "apple"}, {"type": "image", "url": "x"}, {"type": "text", "text": "pie"}]],
    ids=["text", "parts"],
)
async def test_a_message_is_read_as_clients_send_it(each: Held, content: Any) -> None:
    await each.store("k", "apple pie")
    told = {
        "messages": [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "user", "content": content}]
    }
    query = msgspec.convert(told, RecallQuery)
    found = await each.service.searching.recall(ANONYMOUS, query)
    assert (keys(found), [one.message for one in found.results]) == (["k"], [1])
