import itertools
import random
from pathlib import Path

import msgspec
import pytest

from benchmarks import search
from benchmarks._texts import Texts, content_words
from unified_memory.model.search import STOP_WORDS


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts()


@pytest.mark.parametrize("interface", ["service", "rest"])
def test_both_layouts_are_filled_and_asked(interface: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    through = ["--rest"] if interface == "rest" else []
    asked = ["--memories", "300", "--queries", "5", "--directory", str(tmp_path), "--json", str(file), *through]
    assert search.main(asked) == 0

    report = msgspec.json.decode(file.read_bytes(), type=search.Report)
    assert report.interface == interface
    assert [(filled.layout, filled.memories) for filled in report.filled] == [("zipf", 300), ("one", 300)]
    zipf, one = report.filled
    assert (one.namespaces, one.largest) == (1, 300)
    assert zipf.namespaces > 100
    places = [(each.place, each.kind) for filled in report.filled for each in filled.asked]
    named = ("within a namespace", "within the largest such", "all namespaces", "one namespace")
    assert places == list(itertools.product(named, ("item", "natural", "odd")))
    for filled in report.filled:
        assert filled.sizes.text > 300 * 50
        assert filled.sizes.index > filled.sizes.text
        for each in filled.asked:
            assert 0 < each.p50 <= each.p95 <= each.worst
            assert each.found is None or each.found >= 0.8
    assert "times the text" in capsys.readouterr().out
    assert [left.name for left in tmp_path.iterdir()] == ["report.json"]


def test_stores_are_measured_in_every_variant(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    asked = ["--memories", "", "--writes", "--stores", "410", "--rounds", "1", "--json", str(file)]
    assert search.main([*asked, "--directory", str(tmp_path)]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=search.Report)
    assert report.filled == []
    assert len(report.written) == 2 * len(search.VARIANTS)
    assert all(written.rate > 0 and len(written.rounds) == 1 for written in report.written)
    assert [written.share for written in report.written if written.variant == search.VARIANTS[-1].name] == [1.0, 1.0]


def test_a_directory_that_is_not_there_ends_with_a_clear_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(["--memories", "10", "--directory", str(tmp_path / "absent")]) == 1
    # A long path may be broken over lines.
    assert "absent" in capsys.readouterr().err.replace("\n", "")


def test_a_layout_is_the_same_each_time(texts: Texts) -> None:
    first, second = (search.Layout("zipf", 2_500, texts) for _ in range(2))
    assert list(first.memories()) == list(second.memories())
    assert first.sample == second.sample
    assert len(first.sample) == 2_000
    assert sum(first.counted.values()) == 2_500


def test_within_a_namespace_asks_only_those_that_are_not_too_large(texts: Texts) -> None:
    layout = search.Layout("zipf", 500, texts)
    stored = list(layout.memories())
    [largest] = (name for name, _ in layout.counted.most_common(1))
    layout.counted[largest] = search.NAMESPACE_MEMORIES + 1
    places = layout.places()
    assert {namespace for _, namespace in places["within a namespace"]} == {each.namespace for each in stored} - {
        largest
    }
    [second] = {layout.counted[str(namespace)] for _, namespace in places["within the largest such"]}
    assert second == layout.counted.most_common(2)[1][1]


def test_texts_have_the_length_of_memories_and_a_growing_vocabulary(texts: Texts) -> None:
    made = list(itertools.islice(texts.make(1), 4_000))
    assert 100 < sum(map(len, made)) / len(made) < 200
    assert max(map(len, made)) < 240
    half, whole = ({word for text in made[:count] for word in text.lower().split()} for count in (2_000, 4_000))
    assert len(whole) > 1.2 * len(half)


def test_content_words_are_words_of_the_text_without_stop_words() -> None:
    found = content_words("When the parser meets a comma, it waits for the other thread.", 4, random.Random(1)).split()
    assert len(set(found)) == 4
    assert set(found) <= {"parser", "meets", "comma", "waits", "other", "thread"}
    assert not STOP_WORDS & set(found)
