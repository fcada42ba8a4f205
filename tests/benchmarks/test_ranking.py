import pytest

from benchmarks._ranking import Score, mean, ndcg, recall, reciprocal_rank, score


def turns(*ids: str) -> list[frozenset[str]]:
    return [frozenset({turn}) for turn in ids]


def test_recall_is_the_share_of_the_evidence_that_was_found() -> None:
    assert recall(turns("a", "x", "b"), {"a", "b", "c", "d"}) == 0.5
    assert recall([], {"a"}) == 0.0


def test_recall_counts_a_turn_once_however_many_facts_cover_it() -> None:
    assert recall([frozenset({"a", "b"}), frozenset({"a"}), frozenset()], {"a", "b", "c"}) == pytest.approx(2 / 3)


def test_reciprocal_rank_looks_at_the_first_relevant_result() -> None:
    assert reciprocal_rank(turns("x", "y", "b", "a"), {"a", "b"}) == pytest.approx(1 / 3)
    assert reciprocal_rank(turns("x"), {"a"}) == 0.0


def test_ndcg_is_one_for_the_best_order_only() -> None:
    assert ndcg(turns("b", "a", "x"), {"a", "b"}, 10) == pytest.approx(1.0)
    # 1/log2(3) + 1/log2(4), over 1 + 1/log2(3).
    assert ndcg(turns("x", "a", "b"), {"a", "b"}, 10) == pytest.approx((0.6309298 + 0.5) / 1.6309298)


def test_ndcg_is_not_better_for_a_short_answer() -> None:
    assert ndcg(turns("a"), {"a", "b"}, 10) == pytest.approx(1 / 1.6309298)


def test_ndcg_expects_no_more_relevant_results_than_are_looked_at() -> None:
    evidence = {f"t{number}" for number in range(12)}
    assert ndcg(turns(*(f"t{number}" for number in range(12))), evidence, 10) == pytest.approx(1.0)


def test_a_fact_that_covers_nothing_new_gains_nothing() -> None:
    assert ndcg([frozenset({"a"}), frozenset({"a"})], {"a", "b"}, 10) == pytest.approx(1 / 1.6309298)


def test_score_looks_at_five_and_ten_results() -> None:
    ranked = turns("x1", "x2", "x3", "x4", "a", "b", "x5", "x6", "x7", "x8", "c")
    found = score(ranked, {"a", "b", "c", "d"})
    assert (found.recall_5, found.recall_10, found.mrr) == (0.25, 0.5, 0.2)
    # 1/log2(6) + 1/log2(7), over the best of four.
    assert found.ndcg_10 == pytest.approx((0.3868528 + 0.3562072) / 2.5616063)


def test_the_mean_is_over_questions() -> None:
    assert mean([Score(1, 1, 1, 1), Score(0, 0.5, 0, 0)]) == Score(0.5, 0.75, 0.5, 0.5)
