"""Zstandard: Python's own from 3.14 on, its backport before."""

import sys
import threading

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["compress", "pack", "unpack", "zstd"]


class _Compressors(threading.local):
    """The compressors of a thread, by their levels: the system would take as long to give each its memory anew."""

    def __init__(self) -> None:
        self.by_level: dict[int, zstd.ZstdCompressor] = {}


_compressors = _Compressors()


def compress(data: bytes, level: int) -> bytes:
    """One frame of Zstandard, with a checksum and the length of the data."""
    compressor = _compressors.by_level.get(level)
    if compressor is None:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {parameter.compression_level: level, parameter.checksum_flag: 1}
        compressor = _compressors.by_level[level] = zstd.ZstdCompressor(options=options)
    return compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def pack(piece: bytes) -> bytes:
    """Compress a piece fast."""
    return compress(piece, 1)


def unpack(piece: bytes) -> bytes:
    """The piece that was compressed."""
    try:
        return zstd.decompress(piece)
    except zstd.ZstdError as error:
        raise ValueError(f"a damaged piece: {error}") from None
