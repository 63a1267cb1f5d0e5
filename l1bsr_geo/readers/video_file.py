"""Video files, decoded by PyAV (FFmpeg) one frame at a time. Needs the ``video`` extra."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.videos import check_frame, mask_pixels

ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".ts", ".y4m")
"""Of the names of video files."""

EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000
"""How FFmpeg converts colours: bicubic, all chrominance used, rounded; else it is 1 DN too dark."""

_RECENT = 12  # decoded frames that wait for those who read a window of time
_FORMATS = {(1, 8): "gray", (1, 16): "gray16le", (3, 8): "rgb24", (3, 16): "rgb48le"}
_LOCAL = {"protocol_whitelist": "file"}  # a play list leads to no server


class VideoFile:
    """A video file as a `Video` of one band (grey) or three; what is no grey is read as RGB.

    Values of more than 8 bits are brought to 16. Frames are found by their time stamps, so any can
    be read; in order of time is fastest. The last ones decoded are kept.

    Args:
        path: the file.

    Attributes:
        path: the file.
        rate: frames per second.
        stamps: when each frame is shown [time_base].
        time_base: [s].
        pixel_format: FFmpeg's name of how the file stores pixels.
        colours: how FFmpeg numbers the file's colour space, range, primaries and transfer.

    Raises:
        MissingInputError: PyAV is not installed.
        BadInputError: no video, a damaged one, or one without frames.
    """

    nodata = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._close()
        with self._reading("opened"), open_video(self.path) as container:
            if not container.streams.video:
                raise BadInputError(f"{self.path} has no video in it; give one that has")
            stream = container.streams.video[0]
            context = stream.codec_context
            self.shape: tuple[int, int] = (context.height, context.width)
            self.pixel_format: str = context.pix_fmt or ""
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.time_base = Fraction(stream.time_base)
            self.colours: dict[str, int] = {
                name: int(getattr(context, name))
                for name in ("colorspace", "color_range", "color_primaries", "color_trc")
            }
            components = context.format.components if context.format else ()
            shown = [c for c in components if not c.is_alpha]
            deep = max((c.bits for c in shown), default=8) > 8
            grey = len(shown) == 1 and not context.format.has_palette
            self._format = _FORMATS[1 if grey else 3, 16 if deep else 8]
            self.bands = ("grey",) if grey else ("red", "green", "blue")
            self.dtype: np.dtype[Any] = np.dtype(np.uint16 if deep else np.uint8)
            self.stamps = _list_stamps(container, stream)
        self._places = {stamp: place for place, stamp in enumerate(self.stamps)}
        if not self.stamps or 0 in self.shape:
            raise BadInputError(f"{self.path} has no frames; it is damaged, or no video")

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.stamps)

    def read(self, t: int, window: Window | None = None) -> npt.NDArray[np.float32]:
        """A frame, or a window inside it: (C, H, W) [DN].

        Raises:
            BadInputError: the frame cannot be decoded, or is of another size than the first.
        """
        check_frame(t, self.frames)
        with self._lock, self._reading(f"decoded at frame {t}"):
            pixels = self._recent[t] if t in self._recent else self._decode(t)
        rows, columns = (window or Window(0, 0, *self.shape[::-1])).slices
        part = pixels[rows, columns]
        return mask_pixels(part[None] if part.ndim == 2 else part.transpose(2, 0, 1), None)

    def grid(self, t: int) -> GeoGrid:
        """No geometry."""
        check_frame(t, self.frames)
        return GeoGrid(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        left = ("_lock", "_container", "_decoder", "_recent", "_next")
        return {name: value for name, value in vars(self).items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()
        self._close()

    def _close(self) -> None:
        self._container: Any = None
        self._decoder: Iterator[Any] | None = None
        self._recent: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._next = 0

    def _decode(self, t: int) -> npt.NDArray[Any]:
        """Decode on to a frame, from the one after the last or from the key frame before it."""
        if self._decoder is None or not self._next <= t < self._next + 2 * _RECENT:
            if self._container is None:
                self._container = _open(self.path)
            stream = self._container.streams.video[0]
            self._container.seek(self.stamps[t], stream=stream)
            self._decoder = self._container.decode(stream)
        for frame in self._decoder:
            place = self._places.get(frame.pts)
            if place is None or place > t or frame.is_corrupt:
                continue  # before the first frame that is shown, or in a damaged stretch
            if place == t or t - place < _RECENT:
                self._keep(place, frame)
            if place == t:
                self._next = t + 1
                return self._recent[t]
        self._close()
        raise BadInputError(
            f"{self.path}: frame {t} of {self.frames} cannot be decoded; the file is damaged or "
            "incomplete: fetch it again, or leave the frame out (--frames)"
        )

    def _keep(self, place: int, frame: Any) -> None:
        if (frame.height, frame.width) != self.shape:
            raise BadInputError(
                f"{self.path}: frame {place} has {frame.height} x {frame.width} px, the first "
                f"{self.shape[0]} x {self.shape[1]}; frames of one size were expected"
            )
        converted = frame.reformat(format=self._format, interpolation=EXACT)
        self._recent[place] = converted.to_ndarray()
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    @contextmanager
    def _reading(self, doing: str) -> Iterator[None]:
        """FFmpeg's own errors in one line."""
        av = import_av(self.path)
        try:
            yield
        except av.error.FFmpegError as error:
            self._close()
            raise BadInputError(
                f"{self.path} cannot be {doing} ({error.strerror}); the file is damaged or of "
                "another format: fetch it again"
            ) from error


def import_av(path: Path) -> Any:
    """PyAV.

    Raises:
        MissingInputError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise MissingInputError(
            f"{path} is a video file, and PyAV is not installed; pip install 'l1bsr-geo[video]', "
            "or give a folder of frames"
        ) from None
    return av


@contextmanager
def open_video(path: Path) -> Iterator[Any]:
    """An open container, which nothing in it leads out of this machine."""
    container = _open(path)
    try:
        yield container
    finally:
        container.close()


def _open(path: Path) -> Any:
    return import_av(path).open(f"file:{path.absolute()}", options=dict(_LOCAL))


def _list_stamps(container: Any, stream: Any) -> tuple[int, ...]:
    """When every frame is shown, in order; packets are read and not decoded."""
    packets = container.demux(stream)
    shown = {p.pts for p in packets if p.pts is not None and p.size and not p.is_discard}
    return tuple(sorted(shown))
