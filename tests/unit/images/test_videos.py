"""Frames in memory as a video."""

import numpy as np
import pytest

from l1bsr_geo.errors import BadInputError, BadOptionError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.videos import ArrayVideo, ChosenFrames, Video

PIXELS = np.arange(5 * 2 * 3 * 4, dtype=np.uint16).reshape(5, 2, 3, 4)


def test_frames_and_windows_are_read_as_float():
    video = ArrayVideo(PIXELS)
    assert isinstance(video, Video)
    assert (video.frames, video.bands, video.shape, video.dtype) == (5, ("1", "2"), (3, 4), "u2")
    assert video.read(3).dtype == np.float32
    np.testing.assert_array_equal(video.read(3), PIXELS[3])
    np.testing.assert_array_equal(video.read(1, Window(1, 0, 2, 3)), PIXELS[1, :, :, 1:3])


def test_one_band_needs_no_axis():
    video = ArrayVideo(PIXELS[:, 0], bands=("PAN",))
    np.testing.assert_array_equal(video.read(4), PIXELS[4, :1])


def test_no_data_is_nan_and_only_that():
    pixels = PIXELS.astype(np.float64)
    pixels[2, 1, 0, 0] = np.inf
    read = ArrayVideo(pixels, nodata=50.0).read(2)
    assert np.isnan(read[0, 0, 2])  # 2 * 24 + 2
    assert np.isnan(read[1, 0, 0])
    assert np.isnan(read).sum() == 2


def test_some_frames_are_a_video():
    chosen = ChosenFrames(ArrayVideo(PIXELS, grids=(GeoGrid((3, 4)),)), range(1, 5, 2))
    assert isinstance(chosen, Video)
    assert chosen.frames == 2
    np.testing.assert_array_equal(chosen.read(1), PIXELS[3])
    assert chosen.grid(1).shape == (3, 4)
    with pytest.raises(BadOptionError, match="no frame 2 in a video of 2"):
        chosen.read(2)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((3, 4)), "(time, band, y, x)"),
        (np.zeros((0, 1, 3, 4)), "at least one"),
        (np.zeros((2, 3, 4), complex), "real numbers"),
        (np.zeros((2, 3, 4), bool), "real numbers"),
    ],
)
def test_what_is_no_video_is_refused(pixels, said):
    with pytest.raises(BadInputError) as caught:
        ArrayVideo(pixels)
    assert said in str(caught.value)


def test_geometries_and_names_must_be_as_many():
    with pytest.raises(BadInputError, match="2 geometries of 5 frames"):
        ArrayVideo(PIXELS, grids=(GeoGrid((3, 4)),) * 2)
    with pytest.raises(BadInputError, match="2 bands was given 1 names"):
        ArrayVideo(PIXELS, bands=("a",))
