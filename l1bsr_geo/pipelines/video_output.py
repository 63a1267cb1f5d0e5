"""Restored frames as a video file, by PyAV (FFmpeg)."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.pipelines.raster_output import Load, without_a_map
from l1bsr_geo.readers.video_file import EXACT, VideoFile, import_av

LOSSLESS = (".mkv", ".avi")
"""Endings of files whose frames are stored as they are (FFV1)."""
GOOD = (".mp4", ".m4v", ".mov")
"""Endings of files that any player shows: H.264 at a quality at which no loss is seen."""

_QUALITY = "4"  # of libx264, from 0 (lossless) to 51; the colours at half resolution cost more
_PLAIN = {"ffv1": {(1, 8): "gray", (1, 16): "gray16le", (3, 8): "bgr0", (3, 16): "gbrp16le"}}


def check_ending(path: Path) -> None:
    """Refuse a kind of video file that is not written.

    Raises:
        BadOptionError: as said.
    """
    if path.suffix.lower() not in LOSSLESS + GOOD:
        raise BadOptionError(
            f"{path}: such a video file is not written; give one that ends in "
            f"{', '.join(LOSSLESS)} (lossless) or {', '.join(GOOD)}, or a folder for PNG frames"
        )


def write_video(video: VideoFile, path: Path, times: range, load: Load) -> None:
    """Frames at the times of the source's, without sound.

    Args:
        video: the source.
        path: of the file; its ending chooses the codec.
        times: which frames of the source they are.
        load: the restored frame of a number, from 0.
    """
    av = import_av(path)
    first = load(0)
    codec = "ffv1" if path.suffix.lower() in LOSSLESS else "libx264"
    with av.open(str(path), "w") as container:
        options = {} if codec == "ffv1" else {"crf": _QUALITY, "preset": "medium"}
        stream = container.add_stream(codec, rate=video.rate / times.step, options=options)
        stream.height, stream.width = first.shape[1:]
        stream.pix_fmt = _choose_format(codec, video, first)
        context = stream.codec_context
        context.time_base = video.time_base
        if not stream.pix_fmt.startswith(("bgr", "gbr", "gray")):
            for name, value in video.colours.items():
                setattr(context, name, value)
        for place, t in enumerate(times):
            frame = _make_frame(av, load(place))
            frame = frame.reformat(
                format=stream.pix_fmt, dst_colorspace=_matrix(video), interpolation=EXACT
            )
            frame.pts = video.stamps[t] - video.stamps[times[0]]
            frame.time_base = Fraction(video.time_base)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_png_frames(folder: Path, frames: int, load: Load) -> None:
    """Frames of a video file as PNG files."""
    for t in range(frames):
        pixels = load(t)
        profile = {
            "driver": "PNG",
            "count": len(pixels),
            "height": pixels.shape[1],
            "width": pixels.shape[2],
            "dtype": pixels.dtype.name,
        }
        with without_a_map(), rasterio.open(folder / f"frame{t:06d}.png", "w", **profile) as out:
            out.write(pixels)


def _choose_format(codec: str, video: VideoFile, pixels: npt.NDArray[Any]) -> str:
    bits = 16 if pixels.dtype == np.uint16 else 8
    if codec == "ffv1":
        return _PLAIN[codec][len(pixels), bits]
    if len(pixels) == 1:
        return "gray" if bits == 8 else "gray10le"
    kept = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p"}
    told = kept.get(video.pixel_format, video.pixel_format)
    depth = "" if bits == 8 else "10le"
    odd = any(n % 2 for n in pixels.shape[1:])
    chroma = next((c for c in ("422", "444") if told.startswith(f"yuv{c}p")), "420")
    return f"yuv{'444' if odd else chroma}p{depth}"


def _matrix(video: VideoFile) -> int | None:
    """How colours become luminance and chrominance: as in the source, where it tells."""
    told = video.colours["colorspace"]
    return {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}.get(told)


def _make_frame(av: Any, pixels: npt.NDArray[Any]) -> Any:
    deep = pixels.dtype == np.uint16
    if len(pixels) == 1:
        return av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[0]), format="gray16le" if deep else "gray"
        )
    colours = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    return av.VideoFrame.from_ndarray(colours, format="rgb48le" if deep else "rgb24")
