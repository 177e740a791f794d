"""Zstandard: Python's own from 3.14 on, its backport before."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["pack", "unpack", "zstd"]

_FAST: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}


def pack(piece: bytes) -> bytes:
    """Compress a piece fast, with a checksum."""
    return zstd.compress(piece, options=_FAST)


def unpack(piece: bytes) -> bytes:
    """The piece that was compressed.

    Raises:
        ValueError: it isn't one.
    """
    try:
        return zstd.decompress(piece)
    except zstd.ZstdError as error:
        raise ValueError(f"a damaged piece: {error}") from None
