import unicodedata
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.passages import PASSAGE_CHARS, Match, passages, shorten

FILLER = "Nothing of any note was said about the matter on that day. "


def find(text: str, weights: dict[str, float]) -> list[Match]:
    matches = []
    for term, (word, weight) in enumerate(weights.items()):
        at = text.find(word)
        while at >= 0:
            matches.append(Match(at, at + len(word), term, weight))
            at = text.find(word, at + 1)
    return sorted(matches, key=lambda match: match.start)


def shown(text: str, weights: dict[str, float], max_chars: int) -> list[str]:
    return [text[p.start : p.end] for p in passages(text, find(text, weights), max_chars)]


def test_a_passage_is_taken_from_where_the_match_is() -> None:
    text = FILLER * 100 + "The key hangs behind the boiler. " + FILLER * 100
    (only,) = shown(text, {"boiler": 1.0}, 300)
    assert "The key hangs behind the boiler." in only
    assert only.startswith("Nothing of any note")
    assert only.endswith(".")


def test_what_holds_more_and_rarer_terms_is_preferred() -> None:
    text = FILLER * 30 + "A key lies there. " + FILLER * 30 + "The key fits the boiler. " + FILLER * 30
    (only,) = shown(text, {"key": 1.0, "boiler": 3.0}, 130)
    assert "The key fits the boiler." in only


def test_a_new_term_comes_before_more_of_a_heavier_one() -> None:
    text = (FILLER * 20 + "Anna was there. ") * 5 + FILLER * 20 + "So was Berta. " + FILLER * 20
    told = shown(text, {"Anna": 3.0, "Berta": 1.0}, 260)
    assert len(told) == 2
    assert "Berta" in told[1]


def test_repeats_earn_a_little() -> None:
    text = "A key. " * 3 + FILLER * 40
    (only,) = passages(text, find(text, {"key": 2.0}), 200)
    assert only.score == pytest.approx(2.0 * 1.2)


def test_passages_are_in_the_order_of_the_text_and_the_best_may_be_last() -> None:
    text = "A key. " + FILLER * 30 + "A boiler. " + FILLER * 30
    first, second = passages(text, find(text, {"key": 1.0, "boiler": 5.0}), 400)
    assert (first.score, second.score) == (1.0, 5.0)
    assert first.end <= second.start


def test_without_a_match_the_beginning_is_shown_up_to_the_end_of_a_sentence() -> None:
    (only,) = passages(FILLER * 30, [], 200)
    assert (only.start, only.end, only.score) == (0, 3 * len(FILLER) - 1, 0.0)
    assert passages("x" * 50, [], 20)[0].end == 20


def test_a_text_that_fits_is_shown_whole() -> None:
    text = "One key.\n\nAnother key."
    (only,) = passages(text, find(text, {"key": 1.0}), 100)
    assert (only.start, only.end) == (0, len(text))
    assert shorten(text, [], len(text)) == text


def test_no_room_shows_nothing() -> None:
    assert passages(FILLER, find(FILLER, {"note": 1.0}), 0) == []
    assert passages("", [], 100) == []
    assert shorten(FILLER, [], 0) == ""


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        (
            "# Title\n\nSome words.\n\n- a first item\n- the key item\n- a last item\n\nEnd" + "." * 300,
            "key",
            "- a first item\n- the key item\n- a last item",
        ),
        (
            "def a():\n    return 1\n\n\ndef b():\n    return key\n\n\n" + "x = 1\n" * 100,
            "key",
            "def b():\n    return key",
        ),
        ("今天没有事。" * 60 + "钥匙在锅炉后面。" + "今天没有事。" * 60, "钥匙", None),
        ("one\r\ntwo\r\n\r\nthe key\r\n\r\n" + "line\r\n" * 100, "key", "the key"),
    ],
)
def test_borders_are_those_of_the_kind_of_text(text: str, word: str, expected: str | None) -> None:
    (only,) = shown(text, {word: 1.0}, 100)
    if expected is None:
        assert "钥匙在锅炉后面。" in only
        assert only.startswith("今天")
        assert only.endswith(("。", "。"))
    else:
        assert only == expected


def test_a_text_without_any_border_is_cut_around_the_match() -> None:
    text = "blah " * 1000 + "key" + " blah" * 1000
    (only,) = shown(text, {"key": 1.0}, 200)
    assert "key" in only
    assert 100 <= len(only) <= 200
    assert set(only.split()) == {"blah", "key"}
    text = "部署" * 2000 + "钥匙" + "部署" * 2000
    (only,) = shown(text, {"钥匙": 1.0}, 90)
    assert "钥匙" in only


def test_a_character_is_not_parted_from_its_accents_and_joiners() -> None:
    for cluster in ("e\u0301\u0323", "👩\u200d🔬", "👍🏽", "क्षि"):
        text = cluster * 500 + "key" + cluster * 500
        for passage in passages(text, find(text, {"key": 1.0}), 101):
            assert not unicodedata.category(text[passage.start]).startswith("M")
            if passage.end < len(text):
                assert not unicodedata.category(text[passage.end]).startswith("M")
                assert text[passage.end] not in "\u200d🏽"


def test_shortened_text_has_an_ellipsis_where_something_is_left_out() -> None:
    text = "The key. " + FILLER * 40 + "A boiler. " + FILLER * 40
    short = shorten(text, find(text, {"key": 1.0, "boiler": 1.0}), 300)
    assert short.startswith("The key.")
    assert " … " in short
    assert "A boiler." in short
    assert short.endswith(" …")
    assert len(short) <= 300


SENTENCES = st.lists(
    st.sampled_from(
        [
            "key",
            "boiler",
            "x" * 700,
            "Word",
            "word. ",
            "! ",
            "\n",
            "\n\n",
            "。",
            "e\u0301",
            "\ud800",
            " ",
            "a b c d. ",
            "🏽",
            "\r\n",
        ]
    ),
    max_size=400,
).map("".join)


@given(st.one_of(SENTENCES, st.text(st.characters(), max_size=400)), st.integers(-1, 3000), st.integers(0, 4))
def test_passages_of_any_text_fit_and_do_not_overlap(text: str, max_chars: int, terms: int) -> None:
    weights = dict(list({"key": 2.0, "boiler": 1.0, "o": 0.1, "x": 0.5}.items())[:terms])
    matches = find(text, weights)
    chosen = passages(text, matches, max_chars)
    assert sum(p.end - p.start for p in chosen) <= max(0, max_chars)
    assert all(0 <= p.start < p.end <= len(text) for p in chosen)
    assert all(one.end <= other.start for one, other in pairwise(chosen))
    if text and max_chars > 0:
        assert chosen
    if len(text) > max_chars and matches:
        assert all(p.end - p.start <= PASSAGE_CHARS for p in chosen)
        if max_chars >= PASSAGE_CHARS:
            assert all(p.score > 0 for p in chosen)
    assert chosen == passages(text, matches, max_chars)
    assert len(shorten(text, matches, max_chars)) <= max(0, max_chars)


def test_many_matches_fill_the_room() -> None:
    random = Random(4)
    text = " ".join(random.choice(["key", "boiler", "word", "Thing.", "end.\n"]) for _ in range(20_000))
    chosen = passages(text, find(text, {"key": 1.0, "boiler": 1.0}), 5000)
    assert sum(p.end - p.start for p in chosen) > 4500
