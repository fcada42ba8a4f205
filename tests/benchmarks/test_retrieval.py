import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from rich.console import Console

from benchmarks import _questions, retrieval
from benchmarks._conversations import DATA
from benchmarks._machine import machine
from benchmarks._ranking import Score
from benchmarks._resampling import Interval, over_conversations, over_questions
from benchmarks._rest import Rest
from benchmarks._servers import service

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"LoCoMo is not at {DATA}; its licence keeps it out of here")


def options(*, mode: Sequence[str]) -> argparse.Namespace:
    return argparse.Namespace(set=["own"], mode=mode, url=None, keep=False, data=DATA, conversations=[])


def answered(conversation: str, recall: float, question: str = "q", group: str = "4 single-hop") -> retrieval.Answered:
    return retrieval.Answered(conversation, question, group, ["k"], Score(recall, recall, recall, recall))


def report(directory: Path, answers: list[retrieval.Answered], mode: str = "fulltext") -> retrieval.Report:
    measured = retrieval.Measured(
        name="turns",
        conversations=2,
        memories=1,
        questions=len(answers),
        dropped=0,
        unknown_evidence=0,
        languages_refused={},
        store_ms=retrieval.Latency(1, 1),
        embedding_seconds=None,
        sizes=None,
        runs=[retrieval.Run(mode=mode, answers=answers)],
    )
    return retrieval.Report(machine=machine(directory), sets=[measured])


def test_our_own_questions_are_stored_asked_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert retrieval.main(["--set", "own", "--json", str(file)]) == 0

    told = msgspec.json.decode(file.read_bytes(), type=retrieval.Report)
    [measured] = told.sets
    own = _questions.load()
    assert (measured.memories, measured.questions) == (len(own.memories), len(own.questions))
    [run] = measured.runs
    assert [group.name for group in run.groups] == [*_questions.BANDS, "all bands"]
    assert sum(group.questions for group in run.groups) == 2 * len(own.questions)
    overall = run.groups[-1]
    assert 0.3 < overall.score.recall_5 < overall.score.recall_10 < 1
    for intervals in (overall.intervals, overall.by_conversation):
        assert intervals["recall_10"].mean == pytest.approx(overall.score.recall_10)
        assert intervals["recall_10"].low < overall.score.recall_10 < intervals["recall_10"].high
    assert all(len(answer.found) <= 10 for answer in run.answers)
    assert measured.sizes is not None
    assert measured.sizes.text >= sum(len(str(memory.value).encode()) for memory in own.memories)
    assert min(structs.astuple(measured.sizes)) > 0
    assert "overlap-0" in capsys.readouterr().out

    assert retrieval.main(["--set", "own", "--compare", str(file)]) == 0
    assert "+0.000" in capsys.readouterr().out


def test_a_mode_that_the_service_does_not_have_is_told_beside_those_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    told = retrieval.run(options(mode=["no such mode", "fulltext"]), Console(stderr=True))
    refused, asked = told.sets[0].runs
    assert refused.refused is not None
    assert "mode" in refused.refused
    assert refused.groups == []
    assert asked.refused is None
    assert len(asked.answers) == told.sets[0].questions
    retrieval.show(told, Console())
    assert "mode no such mode: refused" in capsys.readouterr().out


def test_a_running_service_is_left_as_it_was_and_what_is_in_the_way_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(tmp_path) as server, Rest(server.url) as rest:
        asked = ["--set", "own", "--url", server.url]
        assert retrieval.main(asked) == 0
        assert rest.get("/stats")["memories"] == 0
        rest.post("/store", {"namespace": f"{retrieval.OWN_ROOT}/elsewhere", "key": "k", "value": "mine"})
        assert retrieval.main(asked) == 1
        assert rest.get("/stats")["memories"] == 1
    assert "holds 1 memories already" in " ".join(capsys.readouterr().err.split())


@needs_data
@pytest.mark.parametrize(("name", "memories"), [("turns", 369), ("facts", 169)])
def test_one_conversation_of_locomo_is_stored_asked_and_scored(name: str, memories: int, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert retrieval.main(["--set", name, "--conversations", "conv-30", "--json", str(file)]) == 0

    [measured] = msgspec.json.decode(file.read_bytes(), type=retrieval.Report).sets
    assert measured.memories == memories
    [run] = measured.runs
    asked = {group.name: group.questions for group in run.groups}
    assert asked == {"1 multi-hop": 11, "2 temporal": 26, "4 single-hop": 44, "1 to 4": 81, "5 adversarial": 24}
    # What any full-text search finds; how much more is for the benchmark to say.
    [overall] = [group.score for group in run.groups if group.name == "1 to 4"]
    assert 0.3 < overall.recall_5 < overall.recall_10 < 1


def test_missing_data_ends_with_a_clear_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retrieval.main(["--set", "turns", "--data", str(tmp_path / "absent.json")]) == 1
    assert "LoCoMo is not at" in capsys.readouterr().err


@needs_data
def test_an_unknown_conversation_ends_with_a_clear_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert retrieval.main(["--set", "turns", "--conversations", "conv-26,conv-0"]) == 1
    assert "There is no conversation conv-0, only conv-26" in " ".join(capsys.readouterr().err.split())


def test_differences_pair_the_same_questions_and_leave_out_the_adversarial(tmp_path: Path) -> None:
    earlier = [
        answered("a", 0.0),
        answered("a", 1.0, "r"),
        answered("b", 0.5),
        answered("b", 0.0, "x", "5 adversarial"),
    ]
    later = [answered("b", 1.0), answered("b", 1.0, "x", "5 adversarial"), answered("a", 1.0, "r"), answered("a", 1.0)]
    found = retrieval.differences(report(tmp_path, later), report(tmp_path, earlier))
    assert [(each.part, each.questions) for each in found] == [("all", 3), ("first half", 1), ("second half", 2)]
    assert [each.intervals["recall_10"].mean for each in found] == [0.5, 0.5, 0.5]
    assert found[1].intervals["mrr"] == Interval(0.5, 0.5, 0.5)


def test_a_question_asked_twice_is_paired_twice(tmp_path: Path) -> None:
    twice = [answered("a", 0.0), answered("a", 1.0)]
    [difference] = retrieval.differences(report(tmp_path, twice), report(tmp_path, twice))
    assert difference.questions == 2
    assert difference.intervals["recall_5"] == Interval(0.0, 0.0, 0.0)


def test_another_mode_is_compared_with_the_first_one(tmp_path: Path) -> None:
    told = report(tmp_path, [answered("a", 0.25)])
    told.sets[0].runs.append(retrieval.Run(mode="hybrid", answers=[answered("a", 1.0)]))
    [difference] = retrieval.differences(told, None)
    assert (difference.mode, difference.against) == ("hybrid", "mode fulltext")
    assert difference.intervals["recall_10"].mean == 0.75


def test_a_report_without_the_same_run_cannot_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only turns hybrid"):
        retrieval.differences(report(tmp_path, []), report(tmp_path, [], mode="hybrid"))


def test_intervals_hold_the_mean_and_repeat() -> None:
    values = [0.0] * 30 + [1.0] * 70
    interval = over_questions(values)
    assert interval == over_questions(values)
    assert interval.mean == 0.7
    # The normal approximation: 0.7 ± 1.96 * sqrt(0.7 * 0.3 / 100).
    assert interval.low == pytest.approx(0.61, abs=0.02)
    assert interval.high == pytest.approx(0.79, abs=0.02)


def test_conversations_are_drawn_whole() -> None:
    values = [0.0, 0.0, 1.0, 1.0]
    assert over_conversations(values, ["a"] * 4) == Interval(0.5, 0.5, 0.5)
    assert over_conversations(values, ["a", "a", "b", "b"]) == Interval(0.5, 0.0, 1.0)
