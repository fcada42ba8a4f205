"""An embedder over HTTP, against a real server of this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from unified_memory.semantic.embedder import load_embedder
from unified_memory.semantic.errors import EmbedderAnswerError, EmbedderUnavailableError, UnsuitableModelError
from unified_memory.semantic.remote import HttpEmbedder

Asked = dict[str, Any]
Told = tuple[int, Any]


def vectors_of(asked: Asked) -> Told:
    """Three dimensions: length, vowels, one; last first."""
    data = [
        {"index": index, "embedding": [len(text), sum(map(text.count, "aeiou")), 1]}
        for index, text in enumerate(asked["input"])
    ]
    return 200, {"object": "list", "data": data[::-1]}


class Served:
    """A server whose answer the test sets; what it was asked stands in `asked`, the headers beside."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Told] = vectors_of
        self.asked: list[Asked] = []
        self.keys: list[str | None] = []
        self.hold = threading.Event()
        self.hold.set()
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                served.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                served.keys.append(self.headers["authorization"])
                served.hold.wait(30)
                status, told = served.answer(served.asked[-1])
                content = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/embeddings?key=secret#tiny"


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.hold.set()
    served.server.shutdown()
    served.server.server_close()
    thread.join(10)


@pytest.fixture
def embedder(served: Served) -> Iterator[HttpEmbedder]:
    embedder = HttpEmbedder(served.url, pause=0)
    served.asked.clear()
    yield embedder
    embedder.close()


def test_texts_become_unit_vectors_in_their_order(served: Served, embedder: HttpEmbedder) -> None:
    texts = [f"text {'a' * number}" for number in range(150)]
    vectors = embedder.embed(texts)
    assert vectors.shape == (150, 3)
    assert vectors.dtype == np.dtype(np.float32)
    assert vectors[3] == pytest.approx(np.array([8, 4, 1]) / 9)
    assert [len(asked["input"]) for asked in served.asked] == [64, 64, 22]
    assert {asked["model"] for asked in served.asked} == {"tiny"}
    assert embedder.embed([]).shape == (0, 3)


def test_the_identity_tells_the_model_and_no_secret(served: Served, embedder: HttpEmbedder) -> None:
    assert embedder.identity.startswith("tiny@")
    assert embedder.identity.endswith("/3")
    loaded = load_embedder(served.url, api_key="k")
    assert (loaded.identity, served.keys[-1]) == (embedder.identity, "Bearer k")
    loaded.close()


def test_odd_and_long_texts_are_sent(served: Served, embedder: HttpEmbedder) -> None:
    embedder.embed(["\ud800", "a" * 100_000])
    assert [len(text) for text in served.asked[0]["input"]] == [1, 8_000]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_three_times(served: Served, embedder: HttpEmbedder, status: int) -> None:
    served.answer = lambda _: (status, b"secret text")
    with pytest.raises(EmbedderUnavailableError, match=rf"/v1/embeddings is not available: HTTP {status}") as raised:
        embedder.embed(["text"])
    assert len(served.asked) == 3
    assert "secret" not in str(raised.value)
    served.answer = lambda asked: vectors_of(asked) if len(served.asked) > 4 else (status, b"")
    assert embedder.embed(["text"]).shape == (1, 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, b"{}"), "HTTP 401"),
        ((302, b""), "HTTP 302"),
        ((200, b"<html>"), "JSON"),
        ((200, {"embeddings": [[1, 2, 3]]}), "data"),
        ((200, {"data": []}), "0 vectors came for 1 texts"),
        ((200, {"data": [{"embedding": [1, 2, 3], "index": 4}]}), "1 vectors came for 1 texts"),
        ((200, {"data": [{"embedding": [1, 2]}]}), r"vectors of \[2\] dimensions came, not of 3"),
        ((200, {"data": [{"embedding": []}]}), r"vectors of \[0\] dimensions"),
        ((200, {"data": [{"embedding": [0, 0, 0]}]}), "no direction"),
        ((200, {"data": [{"embedding": [1e300, 0, 0]}]}), "no direction"),
        ((200, {"data": [{"embedding": ["a", 0, 0]}]}), "float"),
    ],
)
def test_what_is_no_embedding_is_an_error_at_once(
    served: Served, embedder: HttpEmbedder, answer: Told, reason: str
) -> None:
    served.answer = lambda _: answer
    with pytest.raises(EmbedderAnswerError, match=reason):
        embedder.embed(["text"])
    assert len(served.asked) == 1


def test_vectors_of_two_lengths_are_an_error(served: Served, embedder: HttpEmbedder) -> None:
    served.answer = lambda _: (200, {"data": [{"embedding": [1, 2, 3]}, {"embedding": [1]}]})
    with pytest.raises(EmbedderAnswerError, match=r"vectors of \[1, 3\] dimensions"):
        embedder.embed(["one", "two"])


def test_a_server_that_never_answers_is_given_up(served: Served) -> None:
    served.hold.clear()
    with pytest.raises(EmbedderUnavailableError, match="timed out"):
        HttpEmbedder(served.url, timeout=0.05, pause=0)
    served.hold.set()
    assert HttpEmbedder(served.url, pause=0).dimensions == 3


def test_a_server_that_is_away_is_told() -> None:
    with pytest.raises(EmbedderUnavailableError, match="3 tries"):
        HttpEmbedder("http://127.0.0.1:1/v1/embeddings#tiny", pause=0)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/v1", "http:///v1#m", "http://u:secret@127.0.0.1/v1#m", "http://h:x/#m", "ftp://h/#m"]
)
def test_an_unsuitable_url_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(UnsuitableModelError) as raised:
        HttpEmbedder(url)
    assert "secret" not in raised.value.detail
