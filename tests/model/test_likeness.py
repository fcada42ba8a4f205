import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.likeness import SKETCH_SIZE, collapse, normalised_hash, overlap, sketch

TEXT = "The deployment of the billing service runs every night from the main branch and tells the team by mail."


def groups(texts: list[str], threshold: float = 0.85) -> list[tuple[int, list[int]]]:
    """Collapses texts, later ones being newer."""
    return collapse(range(len(texts)), texts.__getitem__, lambda index: index, threshold)


def vocabulary(random: Random, count: int) -> list[str]:
    return ["".join(random.choices("abcdefghijklmopqrsuvwxyz", k=7)) for _ in range(count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello, World!", "hello world"),
        ("Café  au\nlait", "cafe AU lait"),
        ("\uff21\uff22\uff23", "abc"),
        ("部署 流水线", "部署流水线"),
    ],
)
def test_case_punctuation_blanks_and_accents_do_not_change_the_hash(one: str, other: str) -> None:
    assert normalised_hash(one) == normalised_hash(other)
    assert len(normalised_hash(one)) == 16


@pytest.mark.parametrize(
    ("one", "other"), [("hello world", "world hello"), ("?!", "!?"), ("", "?!"), ("a", "?!"), ("👍", "👎")]
)
def test_other_words_and_other_signs_change_the_hash(one: str, other: str) -> None:
    assert normalised_hash(one) != normalised_hash(other)


def test_hashes_and_sketches_are_the_same_in_every_process() -> None:
    program = (
        "import sys; from unified_memory.model.likeness import normalised_hash, sketch; text = sys.argv[1]; "
        "print(normalised_hash(text).hex(), sorted(sketch(text)))"
    )
    told = subprocess.run([sys.executable, "-c", program, TEXT], capture_output=True, text=True, check=True).stdout
    assert told.strip() == f"{normalised_hash(TEXT).hex()} {sorted(sketch(TEXT))}"


def test_a_sketch_holds_the_shingles_of_three_words_and_of_fewer_words_the_words() -> None:
    assert len(sketch("one two three four")) == 2
    assert len(sketch("one two three")) == 1
    assert sketch("one two") == sketch("two one")
    assert len(sketch("one two")) == 2
    assert len(sketch("部署流水线")) == 3
    assert sketch("one two three") != sketch("three two one")
    assert sketch("!") == frozenset()


def test_the_overlap_of_long_texts_is_estimated_within_a_few_hundredths() -> None:
    random = Random(5)
    for share in (0.3, 0.6, 0.9):
        common = vocabulary(random, 4000)
        size = round(len(common) / share)
        rest = (size - len(common)) // 2
        one, other = (" ".join(common + vocabulary(random, rest)) for _ in range(2))
        assert len(sketch(one)) == SKETCH_SIZE
        assert overlap(sketch(one), sketch(other)) == pytest.approx(share, abs=0.09)


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_the_overlap_of_small_sketches_is_exact(one: set[int], other: set[int]) -> None:
    both = frozenset(one | other)
    estimated = overlap(frozenset(sorted(one)[:SKETCH_SIZE]), frozenset(sorted(other)[:SKETCH_SIZE]))
    assert 0 <= estimated <= 1
    if len(both) <= SKETCH_SIZE:
        assert estimated == (len(one & other) / len(both) if both else 0)


def test_a_group_keeps_its_newest_at_the_place_of_its_best() -> None:
    texts = [TEXT, "something else entirely", TEXT.upper(), TEXT + "!"]
    assert groups(texts) == [(3, [0, 2]), (1, [])]
    assert collapse(range(4), texts.__getitem__, lambda _: 0) == [(0, [2, 3]), (1, [])]


def test_a_long_text_with_a_word_changed_is_alike_and_a_short_one_is_not() -> None:
    words = vocabulary(Random(2), 200)
    changed = [*words[:90], "other", *words[91:]]
    assert groups([" ".join(words), " ".join(changed)]) == [(1, [0])]
    assert groups([TEXT, TEXT.replace("billing", "mailing")]) == [(0, []), (1, [])]


def test_likeness_does_not_wander_from_one_to_the_next() -> None:
    words = vocabulary(Random(8), 220)
    steps = [" ".join(words[start : start + 200]) for start in (0, 10, 20)]
    assert overlap(sketch(steps[1]), sketch(steps[2])) >= 0.85
    assert overlap(sketch(steps[0]), sketch(steps[2])) < 0.85
    assert groups(steps) == [(1, [0]), (2, [])]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("version 1.2", "version 1.3"),
        ("version 1.2", "version 2.1"),
        ("order 17", "order 18"),
        ("from 3 to 5", "from 5 to 3"),
        ("at -5 degrees", "at 5 degrees"),
        ("it does work", "it does not work"),
        ("it does work", "it doesn't work"),
        ("it won\u2019t work", "it will work"),
        ("it never fails", "it fails"),
        ("es geht", "es geht nicht"),
        ("可以部署", "不可以部署"),
    ],
)
def test_texts_that_differ_in_a_number_or_a_denial_are_not_alike(one: str, other: str) -> None:
    padding = " ".join(vocabulary(Random(1), 400))
    assert groups([f"{padding} {one} {padding}", f"{padding} {other} {padding}"]) == [(0, []), (1, [])]
    assert groups([f"{padding} {one} {padding}", f"{padding}, {one}. {padding}"]) == [(1, [0])]


def test_ways_to_write_one_denial_are_alike_in_long_texts() -> None:
    padding = " ".join(vocabulary(Random(1), 300))
    assert groups([f"{padding} it doesn't work", f"{padding} it doesn\u2019t work"]) == [(1, [0])]
    assert groups([f"{padding} it don't matter", f"{padding} it t matter"]) == [(0, []), (1, [])]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), max_size=30))
def test_what_is_put_together_is_what_comparing_all_firsts_puts_together(picks: list[tuple[int, int]]) -> None:
    texts = []
    for base, changes in picks:
        words = vocabulary(Random(base), 150)
        for change in range(changes):
            words[change * 12] = f"changed{'abcdefghijklm'[change]}"
        texts.append(" ".join(words))
    expected: list[list[int]] = []
    for index, text in enumerate(texts):
        mine = sketch(text)
        group = next((g for g in expected if overlap(sketch(texts[g[0]]), mine) >= 0.85), None)
        if group is None:
            expected.append([index])
        else:
            group.append(index)
    assert groups(texts) == [(group[-1], group[:-1]) for group in expected]


@given(
    st.lists(st.one_of(st.text(max_size=20), st.sampled_from(["a b", "A, b!", "", "?", "1 2", "1.2"])), max_size=20),
    st.floats(0.1, 1),
)
def test_every_item_is_in_one_group_and_groups_are_in_order(texts: list[str], threshold: float) -> None:
    collapsed = groups(texts, threshold)
    members = [sorted([kept, *others]) for kept, others in collapsed]
    assert sorted(index for group in members for index in group) == list(range(len(texts)))
    assert [group[0] for group in members] == sorted(group[0] for group in members)
    assert all(kept == group[-1] for (kept, _), group in zip(collapsed, members, strict=True))
    assert collapsed == groups(texts, threshold)


@given(st.text(st.characters(), max_size=300))
def test_text_of_any_characters_can_be_sketched(text: str) -> None:
    assert len(sketch(text)) <= SKETCH_SIZE
    assert overlap(sketch(text), sketch(text)) == bool(sketch(text))
    assert len(normalised_hash(text)) == 16


def test_a_threshold_that_is_no_share_is_refused() -> None:
    for threshold in (0, -1, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            groups([], threshold)
