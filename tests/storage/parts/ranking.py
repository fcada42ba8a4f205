"""The order of what a search finds: neighbours in a session, authors, days, importance, age."""

import random

import pytest

from tests.storage.drafts import NOW, apply, hits, remove, store, storing
from tests.storage.parts.asked import ask, ranked
from tests.storage.parts.opened import LATER, Opened
from unified_memory.model.clock import SECOND
from unified_memory.model.ranking import Rank
from unified_memory.model.session import WithMemories
from unified_memory.storage.base import Storage

DAY = 86_400 * SECOND


async def talk(storage: Storage, *lines: tuple[str, str], namespace: str = "default", session: str = "s") -> None:
    """Stores (key, text) one after the other in a session, and elsewhere a memory with one of `zebra crossing` often."""
    for key, text in lines:
        await store(storage, key, text, namespace=namespace, session_id=session)


async def weak(storage: Storage, namespace: str = "default") -> None:
    """A memory that holds `crossing` once in a long text, so that it ranks behind what has both words from a neighbour."""
    await store(storage, "weak", "crossing " + "filler of other kinds " * 40, namespace=namespace)
    await apply(storage, *(storing(f"f{n}", "crossing other fillers", namespace="elsewhere") for n in range(3)))


class RankingContract(Opened):
    """`search`, best first."""

    # ---- neighbours

    async def test_an_answer_is_found_by_the_words_of_its_question(self, storage: Storage) -> None:
        await talk(storage, ("q", "Where is the zebra crossing?"), ("a", "Right beside the old station"))
        await weak(storage)
        found = {hit.memory.key: hit.matched for hit in (await ask(storage, "zebra crossing", "default")).hits}
        assert found == {"q": ["value"], "a": ["context"], "weak": ["value"]}
        assert list(found)[-1] == "weak"

    async def test_of_two_with_the_same_words_the_one_with_fitting_neighbours_is_first(self, storage: Storage) -> None:
        await talk(storage, ("before", "we talked of the zebra"), ("fits", "the crossing is closed"))
        await store(storage, "alone", "the crossing is closed")
        assert (await ranked(storage, "zebra crossing"))[1:] == ["fits", "alone"]
        await store(storage, "before", "nothing of the kind", session_id="s")
        assert await ranked(storage, "zebra crossing") == ["alone", "fits"]

    @pytest.mark.parametrize(
        ("namespace", "session"), [("default", "t"), ("default", None), ("default/x", "s"), ("other", "s")]
    )
    async def test_a_neighbour_is_of_the_same_session_in_the_same_namespace(
        self, storage: Storage, namespace: str, session: str | None
    ) -> None:
        await store(storage, "q", "the zebra crossing", namespace=namespace, session_id=session)
        await store(storage, "a", "beside the station", session_id="s")
        await weak(storage)
        assert "a" not in await ranked(storage, "zebra crossing")

    async def test_neighbours_reach_three_memories_far(self, storage: Storage) -> None:
        await talk(storage, *((f"n{n}", "nothing") for n in range(5)))
        await talk(storage, ("q", "zebra crossing"))
        await talk(storage, *((f"m{n}", "nothing") for n in range(5)))
        await weak(storage)
        lent = {hit.memory.key for hit in (await ask(storage, "zebra crossing")).hits if hit.matched == ["context"]}
        assert lent
        assert lent <= {"n2", "n3", "n4", "m0", "m1", "m2"}

    async def test_the_nearer_neighbour_lends_more(self, storage: Storage) -> None:
        await talk(storage, ("q", "zebra crossing"), ("near", "some station"), ("far", "some station"))
        await weak(storage)
        assert await ranked(storage, "zebra crossing", "default") == ["q", "near", "far", "weak"]

    async def test_what_was_removed_lends_nothing_any_more(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"))
        await weak(storage)
        assert "a" in await ranked(storage, "zebra crossing")
        await remove(storage, "q")
        assert await ranked(storage, "zebra crossing", "default") == ["weak"]

    async def test_what_has_passed_its_time_lends_nothing_any_more(self, storage: Storage) -> None:
        await store(storage, "q", "the zebra crossing", session_id="s", expires_at=LATER)
        await store(storage, "a", "beside the station", session_id="s")
        await weak(storage)
        assert "a" in await ranked(storage, "zebra crossing", now=LATER - 1)
        assert await ranked(storage, "zebra crossing", "default", now=LATER) == ["weak"]

    async def test_what_was_updated_lends_its_new_words_alone(self, storage: Storage) -> None:
        await talk(storage, ("q", "lions here"), ("a", "beside the station"))
        await weak(storage)
        assert "a" not in await ranked(storage, "zebra crossing")
        await talk(storage, ("q", "the zebra crossing"))
        assert "a" in await ranked(storage, "zebra crossing")
        await talk(storage, ("q", "lions here"))
        assert await ranked(storage, "zebra crossing", "default") == ["weak"]

    async def test_what_was_moved_away_lends_nothing_any_more(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"))
        await weak(storage)
        await storage.move(("default", "q"), ("other", "q"), NOW)
        assert set(await ranked(storage, "zebra crossing", "default", "other")) == {"q", "weak"}

    async def test_what_left_the_session_lends_nothing_any_more(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"))
        await weak(storage)
        await talk(storage, ("q", "the zebra crossing"), session="t")
        assert set(await ranked(storage, "zebra crossing", "default")) == {"q", "weak"}

    async def test_a_session_that_expired_its_memories_lends_nothing(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"))
        await weak(storage)
        await storage.end_session("default", "s", WithMemories.EXPIRE, NOW)
        assert await ranked(storage, "zebra crossing", "default") == ["weak"]

    async def test_neighbours_meet_the_filter_too(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"))
        await store(storage, "a", "beside the station", session_id="s", tags=("x",))
        await store(storage, "b", "beside the station", session_id="s")
        await store(storage, "weak", "crossing " + "filler " * 100, tags=("x",))
        assert "b" not in await ranked(storage, "zebra crossing", where={"tags": {"contains": "x"}})

    async def test_a_memory_is_found_by_neighbours_only_before_one_that_holds_a_word(self, storage: Storage) -> None:
        await talk(storage, ("a", "beside the station"), ("q", "the zebra crossing"), ("b", "beside the station"))
        assert await ranked(storage, "zebra crossing") == ["q"]

    async def test_a_phrase_is_not_borrowed(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"))
        await store(storage, "weak", "zebra crossing " + "filler of other kinds " * 200)
        assert await ranked(storage, '"zebra crossing"') == ["q", "weak"]
        assert await ranked(storage, "zebr*") == ["q", "weak"]

    async def test_a_phrase_does_not_reach_from_one_memory_into_the_next(self, storage: Storage) -> None:
        await talk(storage, ("a", "a zebra"), ("b", "crossing the street"))
        assert await ranked(storage, '"zebra crossing"') == []

    async def test_what_must_not_occur_may_occur_beside_it(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "a crossing of roads"))
        assert await ranked(storage, "crossing -zebra") == ["a"]

    async def test_what_holds_a_banned_word_is_not_found_by_its_neighbours(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra crossing"), ("a", "beside the station"), ("b", "beside the road"))
        await weak(storage)
        found = await ranked(storage, "zebra crossing -station", "default")
        assert "a" not in found
        assert found[0] == "q"

    # ---- who said it

    async def test_what_an_author_said_comes_before_what_names_them(self, storage: Storage) -> None:
        await store(storage, "named", "Melanie, what do you think of pottery", author="Caroline")
        await store(storage, "said", "I went to a pottery class", author="Melanie")
        await store(storage, "other", "I went to a pottery class", author="Caroline")
        assert (await ranked(storage, "What did Melanie say of pottery"))[0] == "said"

    async def test_an_authors_name_is_not_borrowed(self, storage: Storage) -> None:
        await store(storage, "n", "Melanie is there", session_id="s", author="Caroline")
        await store(storage, "a", "plain", session_id="s", author="Ann")
        await store(storage, "weak", "filler " * 200 + " melanie", author="Melanie")
        assert "a" not in await ranked(storage, "melanie")

    # ---- when it was

    async def test_what_happened_near_a_named_day_comes_first(self, storage: Storage) -> None:
        for key, day in (("march", "2023-03-09"), ("may", "2023-05-08"), ("june", "2023-06-20")):
            await store(storage, key, "a meeting", occurred_at=f"{day}T10:00:00Z")
        for query in ("meeting on 8 May 2023", "meeting 2023-05-09", "meeting in May 2023", "meeting May 10th"):
            assert (await ranked(storage, query))[0] == "may", query
        assert (await ranked(storage, "meeting March 2023"))[0] == "march"

    async def test_what_happened_is_found_by_its_day_alone(self, storage: Storage) -> None:
        await store(storage, "k", "a meeting", occurred_at="2023-05-08T10:00:00Z")
        await store(storage, "l", "a meeting")
        for query in ("8 May 2023", "May 2023", "2023-05-08"):
            (hit,) = await hits(storage, query)
            assert (hit.memory.key, hit.matched) == ("k", ["date"]), query

    async def test_without_a_day_of_its_own_a_memory_is_of_the_day_on_which_it_was_made(self, storage: Storage) -> None:
        await store(storage, "near", "a meeting", now=NOW - 40 * DAY)
        await store(storage, "far", "a meeting", now=NOW)
        assert (await ranked(storage, "meeting 6 May 2025"))[0] == "near"
        assert (await ranked(storage, "meeting 15 June 2025"))[0] == "far"

    # ---- what raises a score beside the words

    async def test_importance_counts_where_it_is_asked_to(self, storage: Storage) -> None:
        for importance in (10, 5, 1):
            await store(storage, str(importance), "same words", importance=importance)
        assert await ranked(storage, "same words") == ["1", "5", "10"]
        assert await ranked(storage, "same words", rank=Rank(importance=0.2)) == ["10", "5", "1"]

    async def test_importance_moves_the_score_by_its_share(self, storage: Storage) -> None:
        for importance in (10, 5):
            await store(storage, str(importance), "same words", importance=importance)
        high, middle = (await ask(storage, "same words", rank=Rank(importance=0.2))).hits
        assert high.score == pytest.approx(middle.score * 1.2)

    async def test_age_counts_where_it_is_asked_to(self, storage: Storage) -> None:
        await store(storage, "new", "same words", now=NOW)
        await store(storage, "old", "same words", now=NOW - 30 * DAY)
        assert await ranked(storage, "same words") == ["old", "new"]
        result = await ask(storage, "same words", rank=Rank(half_life=30 * DAY))
        assert [hit.memory.key for hit in result.hits] == ["new", "old"]
        new, old = result.hits
        assert old.score == pytest.approx(new.score * 0.75)

    async def test_a_memory_of_the_future_is_as_good_as_a_new_one(self, storage: Storage) -> None:
        await store(storage, "k", "same words", now=NOW + 30 * DAY)
        (hit,) = (await ask(storage, "same words", rank=Rank(half_life=DAY))).hits
        assert hit.parts is not None
        assert hit.parts.recency == 1.0

    # ---- the score

    async def test_a_hit_tells_what_its_score_is_made_of(self, storage: Storage) -> None:
        await talk(storage, ("q", "the zebra"), ("a", "the crossing"))
        for hit in (await ask(storage, "zebra crossing", rank=Rank(importance=0.1, half_life=DAY), now=NOW + DAY)).hits:
            parts = hit.parts
            assert parts is not None
            assert sum(parts.terms) == pytest.approx(parts.relevance)
            assert 0 < parts.context < parts.relevance <= 1
            assert hit.score == pytest.approx((parts.relevance + parts.date) * parts.importance * parts.recency)

    async def test_the_same_question_has_the_same_answer(self, storage: Storage) -> None:
        for n in range(20):
            await store(storage, f"k{n}", "same words", session_id=f"s{n % 3}")
        first = await hits(storage, "same words zebra")
        for _ in range(5):
            again = await hits(storage, "same words zebra")
            assert [(hit.memory.key, hit.score) for hit in again] == [(hit.memory.key, hit.score) for hit in first]

    async def test_ties_are_newest_first(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", "same words") for n in range(40)))
        assert await ranked(storage, "same words") == [f"k{n}" for n in range(39, -1, -1)]

    @pytest.mark.parametrize("limit", [1, 2, 7, 31, 32, 33, 60])
    @pytest.mark.parametrize("where", [None, {"importance": {"gte": 4}}])
    async def test_pages_make_up_the_whole_whatever_their_size(
        self, storage: Storage, limit: int, where: dict[str, object] | None
    ) -> None:
        dice = random.Random(4)
        for n in range(90):
            text = " ".join(dice.choices(["zebra", "crossing", "lion", "road", "station", "of", "filler"], k=6))
            await store(
                storage, f"k{n}", text, session_id=dice.choice(["s", "t", None]), importance=dice.choice([1, 5, 9])
            )
        for query in ("zebra crossing", "zebra -lion", '"zebra crossing"', "ebr"):
            whole = await ranked(storage, query, where=where, limit=200)
            assert len(set(whole)) == len(whole)
            paged: list[str] = []
            while page := await hits(storage, query, where=where, limit=limit, offset=len(paged)):
                paged += [hit.memory.key for hit in page]
                assert len(page) <= limit
            assert paged == whole, query
