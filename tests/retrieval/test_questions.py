"""The question set is what it says to be."""

from collections import Counter
from datetime import datetime

import pytest

from benchmarks._questions import BANDS, OVERLAPS, Asked, Questions, load
from tests.retrieval.stems import Stemmer


@pytest.fixture(scope="module")
def own() -> Questions:
    return load()


def answers_of(own: Questions, question: Asked) -> list[frozenset[str]]:
    stemmer = Stemmer()
    return [stemmer.told(memory) for memory in own.below(question.namespace) if memory.key in question.answers]


def test_every_band_has_enough_questions(own: Questions) -> None:
    counted = Counter(question.band for question in own.questions)
    assert tuple(counted) == BANDS
    assert min(counted.values()) >= 20


def test_keys_and_questions_are_unique(own: Questions) -> None:
    assert len({(memory.namespace, memory.key) for memory in own.memories}) == len(own.memories)
    assert len({(question.namespace, question.text) for question in own.questions}) == len(own.questions)


def test_every_answer_is_one_memory_below_the_namespace_that_is_asked(own: Questions) -> None:
    for question in own.questions:
        keys = Counter(memory.key for memory in own.below(question.namespace))
        assert question.answers, question
        assert [keys[answer] for answer in question.answers] == [1] * len(question.answers), question


def test_sessions_are_stored_turn_by_turn(own: Questions) -> None:
    last: dict[str, datetime] = {}
    for memory in own.memories:
        session = memory.metadata.get("session_id")
        if session is not None:
            at = datetime.fromisoformat(memory.metadata["occurred_at"])
            assert session not in last or last[session] < at, memory
            last[session] = at
    assert len(last) > 20


@pytest.mark.parametrize("band", OVERLAPS)
def test_questions_share_as_many_stems_with_their_answers_as_their_band_says(own: Questions, band: str) -> None:
    stemmer = Stemmer()
    for question in own.questions:
        if question.band == band:
            shared = max(len(stemmer.stems(question.text) & told) for told in answers_of(own, question))
            assert f"overlap-{shared}" == band, question


def test_every_language_namespace_holds_memories(own: Questions) -> None:
    held = {memory.namespace for memory in own.memories}
    assert {space.name for space in own.spaces} <= held
    assert {space.language for space in own.spaces} == {"german", "french", "spanish", "russian", "none"}
