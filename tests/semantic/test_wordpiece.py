"""Text becomes the tokens that BERT's models were trained on."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.semantic.errors import UnsuitableModelError
from unified_memory.semantic.wordpiece import WordPiece

SMALL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "a", "##b", "É", "é", "e"]


@pytest.fixture(scope="module")
def bert() -> WordPiece:
    return WordPiece.bert_uncased()


@pytest.fixture(scope="module")
def tokens() -> list[str]:
    return files("unified_memory.semantic").joinpath("bert_uncased/vocab.txt").read_text("utf-8").split("\n")


def test_the_vocabulary_is_the_one_its_notice_tells() -> None:
    folder = files("unified_memory.semantic").joinpath("bert_uncased")
    digest = hashlib.sha256(folder.joinpath("vocab.txt").read_bytes()).hexdigest()
    assert digest in folder.joinpath("NOTICE").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("The cat sat.", "the cat sat ."),
        ("unaffable", "una ##ffa ##ble"),
        ("Café déjà-vu", "cafe de ##ja - vu"),
        ("cafe\u0301", "cafe"),
        ("tab\tline\nnb\u00a0sp\u2003em", "tab line n ##b sp em"),
        ("in\u200bvis\u00adible\x00\x07\ufffd", "invisible"),
        ("部署", "部 [UNK]"),
        ("a中b", "a 中 b"),
        ("foo_bar()", "foo _ bar ( )"),
        ("don't — “stop”", "don ' t — “ stop ”"),
        ("ΟΔΟΣ", "ο ##δ ##ο ##σ"),
        ("İstanbul", "istanbul"),
        ("100 €", "100 €"),
        ("x" * 101, "[UNK]"),
        ("[SEP] [MASK]", "[ sep ] [ mask ]"),
        ("\ud800", ""),
    ],
)
def test_text_becomes_these_tokens(bert: WordPiece, tokens: list[str], text: str, expected: str) -> None:
    numbers = bert.encode(text)
    assert [tokens[number] for number in numbers] == ["[CLS]", *expected.split(), "[SEP]"]


def test_a_word_of_a_hundred_characters_is_still_cut(bert: WordPiece) -> None:
    assert len(bert.encode("x" * 100)) > 3


@pytest.mark.parametrize("text", ["word " * 10_000, "w" * 50_000 + " word" * 300, " " * 9_000 + "word " * 300])
def test_a_long_text_is_cut_to_the_limit(bert: WordPiece, text: str) -> None:
    numbers = bert.encode(text)
    assert len(numbers) == 256
    assert (numbers[0], numbers[-1], numbers[-2]) == (101, 102, bert.encode("word")[1])


def test_a_word_where_reading_pauses_stays_whole(bert: WordPiece) -> None:
    text = ("word " * 253).ljust(4_093) + "banana"
    assert bert.encode(text) == [*bert.encode(text, 100_000)[:255], 102]


@given(st.text(max_size=80), st.integers(2, 40))
def test_a_limit_only_cuts(bert: WordPiece, text: str, limit: int) -> None:
    whole = bert.encode(text * 60, 100_000)
    assert bert.encode(text * 60, limit) == [*whole[:-1][: limit - 1], whole[-1]]


def write(directory: Path, **wordpiece: object) -> None:
    told = {
        "model": {"type": "WordPiece", "vocab": {token: number for number, token in enumerate(SMALL)}},
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        **wordpiece,
    }
    (directory / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")


def test_a_directory_gives_its_tokenizer_by_either_file(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(SMALL) + "\n", encoding="utf-8")
    by_list = WordPiece.of_directory(tmp_path)
    write(tmp_path)
    by_json = WordPiece.of_directory(tmp_path)
    for tokenizer in (by_list, by_json):
        assert tokenizer.encode("Unaffable abb É zebra") == [2, 4, 5, 6, 7, 8, 8, 11, 1, 3]


def test_a_model_may_keep_case_and_accents(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(SMALL), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    assert WordPiece.of_directory(tmp_path).encode("É é A") == [2, 9, 10, 1, 3]
    write(tmp_path, normalizer={"type": "BertNormalizer", "lowercase": True, "strip_accents": False})
    assert WordPiece.of_directory(tmp_path).encode("É é A") == [2, 10, 10, 7, 3]


@pytest.mark.parametrize(
    ("wordpiece", "reason"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, r"its tokenizer is Unigram \+ BertNorm"),
        ({"normalizer": None}, r"its tokenizer is WordPiece \+ None"),
        ({"model": {"type": "WordPiece", "vocab": [1]}}, "its vocabulary cannot be read"),
        ({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}}, r"its vocabulary lacks \[CLS\], \[SEP\]"),
        ({"normalizer": {"type": "BertNormalizer", "clean_text": False}}, "its WordPiece differs"),
        ({"model": 7}, "object"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path: Path, wordpiece: dict[str, object], reason: str) -> None:
    write(tmp_path, **wordpiece)
    with pytest.raises(UnsuitableModelError, match=reason):
        WordPiece.of_directory(tmp_path)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableModelError, match="neither"):
        WordPiece.of_directory(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff")
    with pytest.raises(UnsuitableModelError, match="utf-8"):
        WordPiece.of_directory(tmp_path)
