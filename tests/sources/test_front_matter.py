"""The YAML at the beginning of a note."""

import pytest

from unified_memory.sources.front_matter import front_matter


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("True", True),
        ("false", False),
        ("yes", "yes"),
        ("-12", -12),
        ("007", "007"),
        ("1.25", 1.25),
        ("1e3", "1e3"),
        ("12345678901234567890", "12345678901234567890"),
        ("2024-05-06", "2024-05-06"),
        ("2024-05-06T07:08:09+02:00", "2024-05-06T07:08:09+02:00"),
        ("plain text, with: no", "plain text, with: no"),
        ("plain # comment", "plain # comment"),
        ("plain#text", "plain#text"),
        ("http://example.org/a?b#c", "http://example.org/a?b#c"),
        ("'it''s'", "it's"),
        ("''", ""),
        ("''''", "'"),
        ('"a\\tb\\u00e9\\\\ \\x41"', "a\tbé\\ A"),
        ('"\\ud800"', '"\\ud800"'),
        ('"open', '"open'),
        ("[]", []),
        ("{}", {}),
        ("[a, 'b, c', \"d]\", 1, [true, null]]", ["a", "b, c", "d]", 1, [True, None]]),
        ("['it''s', 'x']", ["it's", "x"]),
        ("{a: 1, 'b c': [x], d: }", {"a": 1, "b c": ["x"], "d": None}),
        ("[a", "[a"),
        ("[a] b", "[a] b"),
        ("&anchor x", "&anchor x"),
        ("*alias", "*alias"),
        ("!!python/object/apply:os.system [ls]", "!!python/object/apply:os.system [ls]"),
        ("\n  - a\n  - b", ["a", "b"]),
        ("\n- a\n-\n- 'b'", ["a", None, "b"]),
        ("\n- x: 1\n  y: 2\n- x: 3", [{"x": 1, "y": 2}, {"x": 3}]),
        ("\n- - a\n  - b\n- - c", [["a", "b"], ["c"]]),
        ("\n  a:\n    b: 1\n  c: 2", {"a": {"b": 1}, "c": 2}),
        ("first\n  second\n\n  third", "first second\nthird"),
        ("'first\n\n  second '' third'", "first\nsecond ' third"),
        ('"a \\\n  b"', "a b"),
        ("[a,\n  b\n]", ["a", "b"]),
        ("|\n  a\n   b\n\n  c\n", "a\n b\n\nc\n"),
        ("|-\n  a\n", "a"),
        (">\n  a\n  b\n\n  c\n", "a b\nc\n"),
        ("[" * 40 + "]" * 40, "[" * 40 + "]" * 40),
    ],
)
def test_a_value_is_read_or_stays_the_text_that_it_is(yaml: str, value: object) -> None:
    assert front_matter(f"---\nkey: {yaml}\nafter: 1\n---\nbody: 2\n") == {"key": value, "after": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key: 1",
        "---",
        "---\nkey: 1",
        "\n---\nkey: 1\n---\n",
        "----\nkey: 1\n---\n",
        "---\n---\n",
        "---\n- a\n- b\n---\n",
        "---\njust text\n---\n",
        "---\nkey: 1\nnot an entry\n---\n",
    ],
)
def test_what_is_no_front_matter_is_part_of_the_note(text: str) -> None:
    assert front_matter(text) == {}


def test_names_comments_and_line_ends_of_every_kind_are_read() -> None:
    text = "\ufeff---\r\n# comment\r\n\r\nplain key: 1\r\n'it''s': 2\r\n\"a\\tb\": 3\r\nplain key: 4\r\n--- \r\nbody"

    assert front_matter(text) == {"plain key": 4, "it's": 2, "a\tb": 3}


def test_one_entry_beyond_it_does_not_hide_the_others() -> None:
    text = "---\na: 1\nb: &x\n  c: [1\n  d\ne:\n- f\n---\n"

    assert front_matter(text) == {"a": 1, "b": "&x\n  c: [1\n  d", "e": ["f"]}
