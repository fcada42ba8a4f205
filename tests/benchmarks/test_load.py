from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._load import LoadGenerator, Plan, percentile, request
from benchmarks._servers import HOST, Server, bare

GET = request("GET", "/")


@pytest.fixture(scope="module")
def generator() -> Iterator[LoadGenerator]:
    with LoadGenerator() as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with bare() as started:
        yield started


def test_percentile_is_the_nearest_rank() -> None:
    # The example of the definition: ranks 1, 2, 2, 3 and 5 of five samples.
    samples = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(samples, percent) for percent in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    assert percentile([7.0], 99) == 7
    assert percentile([], 50) == 0


@given(st.lists(st.integers(), min_size=1), st.integers(1, 100))
def test_percentile_is_the_smallest_sample_that_enough_others_do_not_exceed(samples: list[int], percent: int) -> None:
    ordered = sorted(samples)
    enough = [each for each in ordered if sum(other <= each for other in ordered) * 100 >= percent * len(ordered)]
    assert percentile(ordered, percent) == enough[0]


def test_a_request_says_how_long_its_body_is() -> None:
    assert GET == b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
    assert request("POST", "/x", '"é"'.encode()).endswith(b'content-length: 4\r\n\r\n"\xc3\xa9"')


def test_every_answer_is_counted_and_timed(generator: LoadGenerator, server: Server) -> None:
    outcome = generator.run(Plan(host=HOST, port=server.port, connections=3, seconds=0.1, requests=[GET]))
    assert (outcome.errors, outcome.told) == (0, [])
    assert outcome.requests >= 3
    assert 0 < outcome.p50 <= outcome.p95 <= outcome.p99
    assert outcome.rate == outcome.requests / outcome.seconds


def test_requests_that_run_out_end_the_round(generator: LoadGenerator, server: Server) -> None:
    plan = Plan(host=HOST, port=server.port, connections=4, seconds=30, requests=[GET] * 10, repeat=False)
    outcome = generator.run(plan)
    assert (outcome.requests, outcome.errors) == (10, 0)


def test_another_status_than_the_expected_one_is_an_error(generator: LoadGenerator, server: Server) -> None:
    plan = Plan(host=HOST, port=server.port, connections=2, seconds=30, requests=[GET] * 7, repeat=False, status=201)
    outcome = generator.run(plan)
    assert (outcome.requests, outcome.errors) == (0, 7)
    assert outcome.told[0].startswith("HTTP/1.1 200 OK")


def test_a_lost_connection_is_an_error(generator: LoadGenerator, server: Server) -> None:
    # Uvicorn answers 400 to what is not HTTP and closes.
    plan = Plan(host=HOST, port=server.port, connections=2, seconds=30, requests=[b"nonsense\r\n\r\n"], status=400)
    outcome = generator.run(plan)
    assert outcome.errors == 2
    assert "connection" in outcome.told[0] or "content-length" in outcome.told[0]
