import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from unified_memory.model.analysis import LANGUAGES, MARK, analyzer, index_text
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.search import words
from unified_memory.service.namespaces import read_config


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("english", ["deploys", "deployed", "deploying"]),
        ("german", ["Haus", "Häuser", "Häusern", "Hauser"]),
        ("french", ["supprimer", "supprimé", "supprimés", "supprime"]),
        ("spanish", ["canción", "canciones"]),
        ("russian", ["сервер", "серверы", "серверами"]),
        ("greek", ["δεδομένα", "δεδομένων"]),
    ],
)
def test_forms_of_a_word_have_one_stem(language: str, forms: list[str]) -> None:
    assert len({analyzer(language).stem(form) for form in forms}) == 1


def test_without_a_language_every_form_is_a_word_of_its_own() -> None:
    assert analyzer("none").terms("Running RUNS Läufe") == ["running", "runs", "laufe"]


@pytest.mark.parametrize("word", ["went", "go", "gone"])
def test_irregular_forms_are_told_with_the_word_itself_first(word: str) -> None:
    forms = analyzer("english").forms(word)
    assert forms[0] == word
    assert {"go", "went", "gone"} <= set(forms)


def test_a_language_that_is_not_known_is_refused() -> None:
    with pytest.raises(KeyError):
        analyzer("klingon")


@pytest.mark.parametrize("language", LANGUAGES)
@given(text=st.text(st.characters() | st.sampled_from("½ﬀſİßςΑйё\u0301漢가")))
@settings(max_examples=30, deadline=None)
def test_no_text_stops_a_stemmer_and_each_word_has_one_term(language: str, text: str) -> None:
    told = analyzer(language)
    terms = told.terms(text)
    assert all(terms)
    assert len(told.words(text)) == len(terms)
    assert len(told.stems(words(text))) == len(words(text))


@given(text=st.text())
def test_terms_of_another_language_are_marked_in_the_index(text: str) -> None:
    assert all(term.endswith(MARK) for term in index_text(text, "german").split())
    assert MARK not in index_text(text, "english") or text.isascii()


def test_a_namespace_takes_every_language_and_no_other() -> None:
    for language in LANGUAGES:
        assert read_config({"language": Raw(b'"%b"' % language.encode())}).language == language
    with pytest.raises(InvalidInputError) as refused:
        read_config({"language": Raw(b'"klingon"')})
    assert refused.value.facts["field"] == "config.language"
    assert "german" in str(refused.value.hint)


def test_no_language_is_the_same_as_none_set() -> None:
    assert read_config({"language": Raw(b"null")}).language is UNSET
