"""Video files and rasters of frames, as cameras and other software leave them."""

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import rasterio


def write_video(path: Path, frames: np.ndarray, codec: str, pixels: str, **options) -> None:
    """Frames (T, C, H, W): three bands of 8 bits, or one of 16."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(30000, 1001), options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[-2:], pixels
        for frame in frames:
            given = "gray16le" if frame.dtype == np.uint16 else "rgb24"
            array = frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=given)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_raster(path: Path, pixels: np.ndarray, **options) -> None:
    """One frame (C, H, W)."""
    bands, height, width = pixels.shape
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", count=bands, height=height, width=width, dtype=pixels.dtype, **options
    ) as file:  # fmt: skip
        file.write(pixels)
