"""zstd, as parts of backups use it: one frame a part, with a checksum."""

import sys
from collections.abc import Iterator

from unified_memory.storage.backup.lines import MalformedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL = 3
# Level 3 looks back 2 MiB; a frame that asks for more than 8 MiB is not ours.
_MAX_WINDOW_LOG = 23
_PIECE_BYTES = 256 * 1024

_PARAMETERS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: _LEVEL,
    zstd.CompressionParameter.checksum_flag: 1,
}


def compress(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The frame of these chunks, while they come."""
    compressor = zstd.ZstdCompressor(options=_PARAMETERS)
    for chunk in chunks:
        if data := compressor.compress(chunk):
            yield data
    yield compressor.flush()


def decompress(chunks: Iterator[bytes], raw: int) -> Iterator[bytes]:
    """The `raw` bytes of the one frame that the chunks are, in small pieces; no more than one piece beyond them is ever made.

    Raises MalformedError.
    """
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    total = 0
    ended = False
    for chunk in chunks:
        if ended:
            raise MalformedError("something follows its end")
        data = _some(decompressor, chunk)
        while True:
            total += len(data)
            if total > raw:
                raise MalformedError(f"it holds more than {raw} bytes")
            if data:
                yield data
            ended = decompressor.eof
            if ended or decompressor.needs_input:
                break
            data = _some(decompressor, b"")
        if decompressor.unused_data:
            raise MalformedError("something follows its end")
    if not ended:
        raise MalformedError("its end is missing")
    if total != raw:
        raise MalformedError(f"it holds {total} bytes instead of {raw}")


def _some(decompressor: zstd.ZstdDecompressor, chunk: bytes) -> bytes:
    try:
        return decompressor.decompress(chunk, max_length=_PIECE_BYTES)
    except zstd.ZstdError as error:
        raise MalformedError(f"it cannot be decompressed: {error}") from error
