"""An xz file's content as it is read, with bounded memory, which `lzma.LZMAFile` cannot promise."""

from __future__ import annotations

import io
import lzma
from typing import Any, BinaryIO

MEMORY = 256 * 2**20
"""The most memory for decompression, in bytes; `xz -9` needs 65 MiB."""
_READ = 2**18


class XzStream(io.RawIOBase):
    """The content of one xz file, which may be several streams one after the other.

    Args:
        file: The compressed file.

    Raises:
        lzma.LZMAError: On reading: the file is damaged, or needs more than `MEMORY`.
        EOFError: On reading: the file ends within a stream.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = self._new()
        self._left = b""

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one step of decompression goes, and return the number of bytes; 0 at the end."""
        while True:
            if self._decoder.eof:
                # Streams may be padded with zeros.
                self._left = (self._decoder.unused_data or self._file.read(_READ)).lstrip(b"\x00")
                while not self._left:
                    more = self._file.read(_READ)
                    if not more:
                        return 0
                    self._left = more.lstrip(b"\x00")
                self._decoder = self._new()
            if self._decoder.needs_input and not self._left:
                self._left = self._file.read(_READ)
                if not self._left:
                    raise EOFError("the compressed data end early")
            data, self._left = self._decoder.decompress(self._left, len(buffer)), b""
            if data:
                buffer[: len(data)] = data
                return len(data)
