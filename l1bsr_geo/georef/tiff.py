"""The little of TIFF that GDAL leaves to us: where things are in a file.

GDAL writes every tag and encodes every tile, in files of one tile each; these functions take such
files apart and lay the parts out in the order of a cloud-optimized GeoTIFF.

Source: TIFF 6.0; BigTIFF; https://gdal.org/drivers/raster/cog.html (ghost area, block leaders).
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SUBFILE_TYPE, WIDTH, HEIGHT = 254, 256, 257
TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325

# What an overview shares with the full resolution; the rest (geo keys, metadata) is said once.
_STRUCTURE = {258, 259, 262, 277, 284, 317, 322, 323, 338, 339, 42113}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_SHORT, _LONG, _LONG8 = 3, 4, 16

_LAYOUT = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
    "MASK_INTERLEAVED_WITH_IMAGERY=YES\n"
)
GHOST = f"GDAL_STRUCTURAL_METADATA_SIZE={len(_LAYOUT):06d} bytes\n{_LAYOUT}".encode()
FRAME = 4  # bytes of a block's leader, and of its trailer


class Entry(NamedTuple):
    """The value of a tag: its TIFF type, how many, and their bytes (little endian)."""

    kind: int
    number: int
    data: bytes


Directory = dict[int, Entry]


def read_directories(data: bytes) -> list[Directory]:
    """The image file directories of a classic little-endian TIFF, in order.

    Raises:
        AssertionError: another kind of TIFF (GDAL wrote it at our word, so it is our mistake).
    """
    assert data[:4] == b"II*\0", "not a classic little-endian TIFF"
    directories = []
    (at,) = struct.unpack_from("<I", data, 4)
    while at:
        (count,) = struct.unpack_from("<H", data, at)
        directories.append(dict(_read_entry(data, at + 2 + 12 * i) for i in range(count)))
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * count)
    return directories


def _read_entry(data: bytes, at: int) -> tuple[int, Entry]:
    tag, kind, count = struct.unpack_from("<HHI", data, at)
    size = _SIZES[kind] * count
    start = at + 8 if size <= 4 else struct.unpack_from("<I", data, at + 8)[0]
    return tag, Entry(kind, count, data[start : start + size])


def tile_bytes(data: bytes) -> tuple[bytes, bytes]:
    """The encoded pixels and the encoded mask of a TIFF of one tile that has a mask."""
    pixels, mask = (
        data[offset : offset + size]
        for offset, size in (
            (_number(d[TILE_OFFSETS]), _number(d[TILE_BYTE_COUNTS])) for d in read_directories(data)
        )
    )
    return pixels, mask


def _number(entry: Entry) -> int:
    return int.from_bytes(entry.data, "little")


def describe_level(
    template: Directory,
    shape: tuple[int, int],
    offsets: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    is_overview: bool,
    is_mask: bool,
    big: bool,
) -> Directory:
    """The directory of one level of the pyramid, from the template of its full resolution.

    Args:
        template: pixels or mask of a file of one tile, with all tags.
        shape: (height, width) of the level.
        offsets: of its tiles, row by row; zero where a tile is not stored.
        counts: bytes of its tiles.
        is_overview: drops what only the full resolution tells.
        is_mask: pixels or mask.
        big: BigTIFF.
    """
    tags = {tag: e for tag, e in template.items() if not is_overview or tag in _STRUCTURE}
    if is_overview or is_mask:
        tags[SUBFILE_TYPE] = _longs([is_overview + 4 * is_mask])
    tags[HEIGHT], tags[WIDTH] = (_longs([n]) for n in shape)
    tags[TILE_OFFSETS] = (
        Entry(_LONG8, offsets.size, offsets.astype("<u8").tobytes()) if big else _longs(offsets)
    )
    tags[TILE_BYTE_COUNTS] = _longs(counts)
    return tags


def _longs(values: npt.ArrayLike) -> Entry:
    array = np.asarray(values).astype("<u4")
    return Entry(_LONG, array.size, array.tobytes())


def write_header(directories: Sequence[Directory], *, big: bool) -> bytes:
    """Everything before the first tile: header, ghost area, directories.

    Its length depends on the tags and the number of tiles only, not on where the tiles are.
    """
    start = 16 if big else 8
    first = start + len(GHOST) + len(GHOST) % 2
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else b""
    head = head or struct.pack("<2sHI", b"II", 42, first)
    out = bytearray((head + GHOST).ljust(first, b"\0"))
    link = None
    for directory in directories:
        if link is not None:
            struct.pack_into("<Q" if big else "<I", out, link, len(out))
        link = _append_directory(out, directory, big=big)
    return bytes(out)


def _append_directory(out: bytearray, directory: Directory, *, big: bool) -> int:
    """Append a directory and its long values; gives where its link to the next one is."""
    count, entry, pointer, inline = ("<Q", "<HHQ", "<Q", 8) if big else ("<H", "<HHI", "<I", 4)
    per_entry = struct.calcsize(entry) + inline
    link = len(out) + struct.calcsize(count) + per_entry * len(directory)
    values = link + struct.calcsize(pointer)
    long_values = bytearray()
    out += struct.pack(count, len(directory))
    for tag, (kind, number, data) in sorted(directory.items()):
        out += struct.pack(entry, tag, kind, number)
        if len(data) <= inline:
            out += data.ljust(inline, b"\0")
        else:
            out += struct.pack(pointer, values + len(long_values))
            long_values += data.ljust(len(data) + len(data) % 2, b"\0")
    out += bytes(struct.calcsize(pointer)) + long_values
    return link


def frame(data: bytes) -> bytes:
    """A block between its leader (size) and its trailer (its last four bytes once more)."""
    return struct.pack("<I", len(data)) + data + data[-FRAME:]
