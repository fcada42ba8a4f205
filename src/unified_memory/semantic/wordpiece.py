"""BERT's tokenizer: text to the numbers of word pieces.

Two steps, after Devlin et al. 2018 (arXiv 1810.04805) and the format of its vocabularies. Basic: control characters go,
letters are decomposed (NFD), lose their accents and become lower case, every CJK ideograph and every punctuation mark
stands apart, blanks part words. WordPiece: a word is cut into the longest pieces of the vocabulary from left to right
(pieces inside of a word begin with `##`); a word that cannot be cut, or is longer than 100 characters, is one [UNK].
"[SEP]" and its kin inside of a text are text: nobody's words steer the model.
"""

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any, Self

import msgspec

from unified_memory.semantic.errors import UnsuitableModelError
from unified_memory.semantic.reading import read_json, read_text

MAX_TOKENS = 256
MAX_WORD_CHARACTERS = 100
# A word and its pieces take about 250 bytes: 8 MB at most.
_CACHED_WORDS = 32_768
# A folded character takes about 150 bytes: 10 MB at most, where a text holds that many different ones.
_CACHED_CHARACTERS = 65_536
_FIRST_CHARACTERS = 4_096
# The blocks that BERT calls Chinese characters: unified and compatibility ideographs, without kana and hangul.
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
# Control, format, private use and surrogates; code points that are not assigned yet stay, as a later Unicode may.
_REMOVED = frozenset({"Cc", "Cf", "Co", "Cs"})
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class _Folding(dict[int, str]):
    """What each character becomes, for str.translate; blanks stand around what stands apart."""

    def __init__(self, *, lower_case: bool, strip_accents: bool, part_ideographs: bool) -> None:
        super().__init__()
        self._lower_case = lower_case
        self._strip_accents = strip_accents
        self._part_ideographs = part_ideographs

    def __missing__(self, code: int) -> str:
        folded = self._folded(code)
        if len(self) < _CACHED_CHARACTERS:
            self[code] = folded
        return folded

    def _folded(self, code: int) -> str:
        character = chr(code)
        if character in "\t\n\r":
            return " "
        if character == "\ufffd" or unicodedata.category(character) in _REMOVED:
            return ""
        if character.isspace():
            return " "
        folded = unicodedata.normalize("NFD", character) if self._strip_accents else character
        if self._strip_accents:
            folded = "".join(part for part in folded if unicodedata.category(part) != "Mn")
        if self._lower_case:
            folded = folded.lower()
        folded = "".join(f" {part} " if _is_punctuation(part) else part for part in folded)
        return f" {folded} " if self._part_ideographs and _is_ideograph(code) else folded


def _is_punctuation(character: str) -> bool:
    return character in _ASCII_PUNCTUATION or unicodedata.category(character)[0] == "P"


def _is_ideograph(code: int) -> bool:
    return any(first <= code <= last for first, last in _IDEOGRAPHS)


class WordPiece:
    """A tokenizer over one vocabulary (token -> number). Threads may share it.

    Raises UnsuitableModelError where the vocabulary lacks [UNK], [CLS] or [SEP]; `name` is told then.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        name: str = "vocabulary",
        lower_case: bool = True,
        strip_accents: bool = True,
        part_ideographs: bool = True,
    ) -> None:
        if missing := {"[UNK]", "[CLS]", "[SEP]"} - vocabulary.keys():
            raise UnsuitableModelError(name, f"its vocabulary lacks {', '.join(sorted(missing))}")
        self._vocabulary = dict(vocabulary)
        self._unknown = (vocabulary["[UNK]"],)
        self._first = vocabulary["[CLS]"]
        self._last = vocabulary["[SEP]"]
        self._longest = max(map(len, vocabulary))
        self._folding = _Folding(lower_case=lower_case, strip_accents=strip_accents, part_ideographs=part_ideographs)
        self._pieces = lru_cache(_CACHED_WORDS)(self._cut)

    @classmethod
    def bert_uncased(cls) -> Self:
        """The tokenizer of bert-base-uncased and of every model made from it, all-MiniLM among them."""
        text = files("unified_memory.semantic").joinpath("bert_uncased/vocab.txt").read_text(encoding="utf-8")
        return cls(_vocabulary_of(text), name="bert-base-uncased")

    @classmethod
    def of_directory(cls, directory: Path) -> Self:
        """The tokenizer of a model: by tokenizer.json, else by vocab.txt (and tokenizer_config.json where there).

        Raises UnsuitableModelError where neither can be read or it is not BERT's kind.
        """
        if (path := directory / "tokenizer.json").is_file():
            return cls._of_tokenizer(path)
        if not (path := directory / "vocab.txt").is_file():
            raise UnsuitableModelError(str(directory), "it has neither tokenizer.json nor vocab.txt")
        vocabulary = _vocabulary_of(read_text(path))
        config_path = directory / "tokenizer_config.json"
        config = read_json(config_path, _TokenizerConfig) if config_path.is_file() else _TokenizerConfig()
        return cls(
            vocabulary,
            name=str(directory),
            lower_case=config.do_lower_case,
            strip_accents=config.do_lower_case if config.strip_accents is None else config.strip_accents,
            part_ideographs=config.tokenize_chinese_chars,
        )

    @classmethod
    def _of_tokenizer(cls, path: Path) -> Self:
        told = read_json(path, _Tokenizer)
        normalizer = told.normalizer or {}
        kinds = [(part or {}).get("type") for part in (told.model, normalizer, told.pre_tokenizer)]
        if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
            raise UnsuitableModelError(
                str(path), f"its tokenizer is {' + '.join(map(str, kinds))}", hint="Only BERT's WordPiece is known"
            )
        if told.model.get("continuing_subword_prefix", "##") != "##" or not normalizer.get("clean_text", True):
            raise UnsuitableModelError(str(path), "its WordPiece differs from BERT's")
        try:
            vocabulary = msgspec.convert(told.model.get("vocab"), dict[str, int])
        except msgspec.ValidationError as error:
            raise UnsuitableModelError(str(path), f"its vocabulary cannot be read: {error}") from None
        lower_case = bool(normalizer.get("lowercase", True))
        strip_accents = normalizer.get("strip_accents")
        return cls(
            vocabulary,
            name=str(path),
            lower_case=lower_case,
            strip_accents=lower_case if strip_accents is None else bool(strip_accents),
            part_ideographs=bool(normalizer.get("handle_chinese_chars", True)),
        )

    def encode(self, text: str, limit: int = MAX_TOKENS) -> list[int]:
        """The numbers of the text's tokens between those of [CLS] and [SEP], the first `limit` (two or more) in all."""
        room = limit - 2
        size = _FIRST_CHARACTERS
        # A long text is read no further than its tokens are wanted; its last word may be cut there.
        while True:
            words = text[:size].translate(self._folding).split()
            complete = size >= len(text)
            pieces = self._numbers(words[:room] if complete else words[:-1][:room])
            if complete or len(pieces) >= room:
                return [self._first, *pieces[:room], self._last]
            size *= 8

    def _numbers(self, words: list[str]) -> list[int]:
        return list(
            chain.from_iterable(
                self._pieces(word) if len(word) <= MAX_WORD_CHARACTERS else self._unknown for word in words
            )
        )

    def _cut(self, word: str) -> tuple[int, ...]:
        if (whole := self._vocabulary.get(word)) is not None:
            return (whole,)
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                if (piece := self._vocabulary.get(prefix + word[start:end])) is not None:
                    pieces.append(piece)
                    start = end
                    break
            else:
                return self._unknown
        return tuple(pieces)


class _TokenizerConfig(msgspec.Struct):
    """What tokenizer_config.json says that matters here."""

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True


class _Tokenizer(msgspec.Struct):
    """What tokenizer.json says that matters here."""

    model: dict[str, Any]
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


def _vocabulary_of(text: str) -> dict[str, int]:
    """The vocabulary of the lines of vocab.txt: a token's number is its line, counted from 0."""
    return {line.rstrip("\r"): number for number, line in enumerate(text.removesuffix("\n").split("\n"))}
