import re
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unified_memory.model import search
from unified_memory.model.errors import EmptyQueryError
from unified_memory.model.search import (
    MAX_TERMS,
    UNSPACED,
    describe,
    fold,
    parse_search,
    raw_words,
    snippet,
    spaced,
    words,
)

ANY = st.text(st.characters(exclude_categories=[]) | st.characters(min_codepoint=0x0E00, max_codepoint=0xFAFF))
WORD = re.compile(r"[^\W_]+")


def plainly_cut(text: str) -> list[str]:
    """What `words` gives, by its definition."""
    return WORD.findall(spaced(fold(spaced(text))))


def plainly_cut_raw(text: str) -> list[str]:
    return WORD.findall(spaced(unicodedata.normalize("NFC", spaced(text).casefold())))


@given(text=ANY)
@settings(max_examples=300, deadline=None)
@example("か\u3099漢\u0301字 データベースを更新")
@example("한글\u1112\u1161\u11ab ำ เก้า")
def test_words_are_cut_as_if_all_of_the_text_were_folded(text: str) -> None:
    assert words(text) == plainly_cut(text)
    assert raw_words(text) == plainly_cut_raw(text)


@pytest.mark.parametrize("around", ["{}", "漢{}", "{}か", "a{}b"])
def test_every_character_of_an_unspaced_script_is_cut_as_if_it_were_folded(around: str) -> None:
    unspaced = [char for char in map(chr, range(0x0E00, 0x10000)) if re.match(f"[{UNSPACED}]", char)]
    assert len(unspaced) > 40_000
    for char in unspaced:
        text = around.format(char)
        assert words(text) == plainly_cut(text), hex(ord(char))
        assert raw_words(text) == plainly_cut_raw(text), hex(ord(char))


@given(text=ANY)
@settings(deadline=None)
def test_words_stay_as_they_are_when_they_are_cut_again(text: str) -> None:
    assert words(" ".join(words(text))) == words(text)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("", []),
        ("Café ZÜRICH naïve", ["cafe", "zurich", "naive"]),
        ("foo_bar E_CONN-42", ["foo", "bar", "e", "conn", "42"]),
        ("部署a流水", ["部", "署", "a", "流", "水"]),
        ("한국어", ["한", "국", "어"]),
        ("Straße ﬁne", ["strasse", "fine"]),
        ("😀 … \u200f", []),
    ],
)
def test_a_text_is_cut_into_folded_words(text: str, cut: list[str]) -> None:
    assert words(text) == cut


@pytest.mark.parametrize("query", ["", "   ", '""', "\ud800", '"\udfff"', "\x00", "-word", '-"a b"', "\u200b"])
def test_a_query_that_asks_for_nothing_is_refused(query: str) -> None:
    with pytest.raises(EmptyQueryError):
        parse_search(query)


@given(query=ANY)
@settings(deadline=None)
def test_any_text_is_a_query_or_an_empty_one(query: str) -> None:
    try:
        terms = parse_search(query)
    except EmptyQueryError:
        return
    assert all(term.words for term in (*terms.any, *terms.none))
    assert len(terms.none) <= MAX_TERMS
    terms.literal.encode()


def test_a_query_tells_phrases_prefixes_and_negations() -> None:
    terms = parse_search('plain "two words" pre* -not -"not these" --option')
    assert [(term.words, term.prefix, term.quoted) for term in terms.any] == [
        (("plain",), False, False),
        (("two", "words"), False, True),
        (("pre",), True, False),
        (("option",), False, False),
    ]
    assert [term.words for term in terms.none] == [("not",), ("not", "these")]


def test_a_run_of_an_unspaced_script_is_searched_by_pairs() -> None:
    assert [term.words for term in parse_search("部署流水").any] == [("部", "署"), ("署", "流"), ("流", "水")]


@given(text=st.text(max_size=600), data=st.data())
def test_a_snippet_is_a_part_of_the_text(text: str, data: st.DataObject) -> None:
    starts = sorted(data.draw(st.lists(st.integers(0, max(0, len(text) - 1)), max_size=5)))
    shown = snippet(text, [(start, start + 1) for start in starts])
    assert shown.removeprefix("…").removesuffix("…") in text or shown in text
    assert len(shown) <= search.SNIPPET_CHARS + 2


def test_what_is_indexed_beside_the_value_is_everything_that_names_it() -> None:
    told = describe("the/key", b'{"tags":["t1"],"title":"T","author":"A","occurred_at":"2023-05-08T10:00:00Z"}', "v")
    assert told.text == "v"
    for name in ("the/key", "t1", "T", "A", "8 May 2023 2023-05-08"):
        assert name in told.title_text.splitlines()


def test_attributes_that_are_no_texts_name_nothing() -> None:
    assert describe("k", b'{"tags":[],"title":7,"author":["x"],"occurred_at":{}}', "v").title_text.split() == ["k"]
