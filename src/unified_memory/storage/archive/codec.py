"""zstd, as archives use it."""

import sys
from collections.abc import Sequence

from unified_memory.storage.archive.format import MalformedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Of LoCoMo's turns (144 bytes on average) in blocks of 64 KiB, 9 makes 0.329 of their bytes at 47 MB/s, 12 makes 0.327 at 22
# and 19 makes 0.316 at 4; with a dictionary 9 runs at 30 MB/s.
LEVEL = 9
# Dictionaries are compressed once for a whole file.
_DICTIONARY_LEVEL = 19
# Of turns that it was not trained on, a dictionary of 16, 32 and 64 KiB takes 2, 3 and 4 % of the raw bytes, and lies in
# the file with 2 * 7, 2 * 12 and 2 * 22 KB.
MAX_DICTIONARY_BYTES = 64 * 1024
_MIN_DICTIONARY_BYTES = 4 * 1024
_SAMPLE_TO_DICTIONARY = 32
_MIN_SAMPLES = 100
_MAX_UNPACKED_BYTES = 2**20
# A dictionary is for what small values share; a large one would fill it by itself.
_MAX_SAMPLE_BYTES = 16 * 1024

Dictionary = zstd.ZstdDict


def compress(data: bytes, dictionary: Dictionary | None) -> bytes:
    """A frame."""
    return zstd.compress(data, LEVEL, zstd_dict=dictionary)


def decompress(frame: bytes, raw: int, dictionary: Dictionary | None) -> bytes:
    """The `raw` bytes that a frame holds; no more than one byte more is ever decompressed. Raises MalformedError."""
    decompressor = zstd.ZstdDecompressor(zstd_dict=dictionary)
    try:
        data = decompressor.decompress(frame, max_length=raw + 1)
    except zstd.ZstdError as error:
        raise MalformedError(f"it cannot be decompressed: {error}") from error
    if len(data) != raw or not decompressor.eof or decompressor.unused_data:
        raise MalformedError(f"it does not hold {raw} bytes")
    return data


def needs_dictionary(frame: bytes) -> bool:
    """Whether a frame was compressed with a dictionary."""
    try:
        return zstd.get_frame_info(frame).dictionary_id != 0
    except zstd.ZstdError:
        return False


def train(values: Sequence[bytes]) -> Dictionary | None:
    """A dictionary of what these values share; None where they are too few or too large, or share nothing."""
    samples = [value for value in values if 0 < len(value) <= _MAX_SAMPLE_BYTES]
    size = min(sum(map(len, samples)) // _SAMPLE_TO_DICTIONARY, MAX_DICTIONARY_BYTES)
    if size < _MIN_DICTIONARY_BYTES or len(samples) < _MIN_SAMPLES:
        return None
    try:
        return zstd.train_dict(samples, size)
    except zstd.ZstdError:
        # zstd's word for samples that have nothing in common.
        return None


def pack_dictionary(dictionary: Dictionary) -> bytes:
    """The frame that holds a dictionary."""
    return zstd.compress(dictionary.dict_content, _DICTIONARY_LEVEL)


def unpack_dictionary(frame: bytes, raw: int) -> Dictionary:
    """The dictionary in that frame. Raises MalformedError."""
    if raw > _MAX_UNPACKED_BYTES:
        raise MalformedError("it is too large")
    content = decompress(frame, raw, None)
    try:
        return Dictionary(content)
    except (ValueError, zstd.ZstdError) as error:
        raise MalformedError("it is no dictionary") from error
