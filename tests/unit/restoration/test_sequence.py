"""Chunks and tiles give what the whole video at once gives, in memory that its length is not in."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.models.registry import Model
from l1bsr_geo.restoration.noise_level import Noise
from l1bsr_geo.restoration.sequence import ScaledVideo, map_noise, restore_video


@pytest.fixture(scope="module")
def fastdvdnet() -> Model:
    torch.manual_seed(0)
    return Model.from_restorer(FastDVDnet(channels=1, width=4), "cpu")


@pytest.fixture(scope="module")
def dncnn() -> Model:
    torch.manual_seed(0)
    return Model.from_restorer(DnCNN(channels=1, depth=4, width=8), "cpu")


def make_pixels(count: int, shape=(36, 44), bands: int = 1) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform(20, 230, (count, bands, *shape)).astype(np.float32)


def gather(*args, **options) -> np.ndarray:
    found = list(restore_video(*args, **options))
    assert [t for t, _ in found] == list(range(len(found)))
    return np.stack([frame for _, frame in found])


def test_chunks_of_time_are_the_whole_sequence(fastdvdnet):
    pixels = make_pixels(7, bands=2)
    whole = fastdvdnet.restore_sequence(pixels)
    for chunk in (1, 3, 16):
        np.testing.assert_allclose(
            gather(fastdvdnet, ArrayVideo(pixels), chunk=chunk), whole, atol=0.01
        )


@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_tiles_are_the_whole_frame_beside_gaps_too(fastdvdnet, memory):
    pixels = make_pixels(2, (250, 220))
    pixels[:, :, 30:130, 60:150] = np.nan
    video = ArrayVideo(pixels)
    whole = gather(fastdvdnet, video, tile=1000)
    tiles = gather(fastdvdnet, video, tile=128, memory=memory)
    np.testing.assert_array_equal(np.isnan(tiles), np.isnan(pixels))
    assert np.nanmax(np.abs(tiles - whole)) < 0.5


def test_stacks_do_not_cross_a_cut(fastdvdnet):
    pixels = make_pixels(12)
    shots = [range(5), range(5, 6), range(6, 12)]
    restored = gather(fastdvdnet, ArrayVideo(pixels), shots=shots, chunk=3)
    other = pixels.copy()
    other[5:] = 255 - other[5:]
    again = gather(fastdvdnet, ArrayVideo(other), shots=shots, chunk=3)
    np.testing.assert_array_equal(restored[:5], again[:5])
    crossing = gather(fastdvdnet, ArrayVideo(pixels))
    assert np.abs(crossing[4] - restored[4]).max() > 0.01  # the network does look beyond


def test_a_video_can_be_gone_on_with(fastdvdnet):
    pixels = make_pixels(9)
    shots = [range(4), range(4, 9)]
    whole = gather(fastdvdnet, ArrayVideo(pixels), shots=shots)
    rest = list(restore_video(fastdvdnet, ArrayVideo(pixels), shots=shots, start=6))
    assert [t for t, _ in rest] == [6, 7, 8]
    np.testing.assert_allclose(np.stack([f for _, f in rest]), whole[6:], atol=0.01)


def test_a_pixel_without_data_does_not_spread(dncnn):
    pixels = make_pixels(3)
    pixels[1, 0, 10:14, 20:25] = np.nan
    restored = gather(dncnn, ArrayVideo(pixels))
    np.testing.assert_array_equal(np.isnan(restored), np.isnan(pixels))
    pixels[1] = np.nan
    with pytest.raises(BadInputError, match="frame 1 has no data at all"):
        gather(dncnn, ArrayVideo(pixels))


def test_the_network_is_told_the_noise(fastdvdnet):
    pixels = make_pixels(5)
    told = [
        gather(fastdvdnet, ArrayVideo(pixels), noise=map_noise(Noise(a, b)))
        for a, b in ((0.0, 625.0), (0.0, 2500.0), (8.0, 0.0))
    ]
    usual = gather(fastdvdnet, ArrayVideo(pixels))
    np.testing.assert_allclose(told[0], usual, atol=0.01)  # 25 DN is what it takes for usual
    assert np.abs(told[1] - usual).max() > 0.1
    assert np.abs(told[2] - usual).max() > 0.1


def test_a_map_of_noise_follows_the_light():
    frame = np.full((2, 40, 60), 50.0, np.float32)
    frame[:, :, 30:] = 200
    level = map_noise(Noise(4.0, 100.0))(frame)
    assert level.shape == (1, 40, 60)
    np.testing.assert_allclose(level[0, :, [2, -3]].mean(1), np.sqrt([300, 900]), rtol=0.01)


def test_scaled_values_are_restored_alike(dncnn):
    pixels = make_pixels(3)
    video = ScaledVideo(ArrayVideo((pixels * 16).astype(np.uint16)), 1 / 16)
    np.testing.assert_allclose(video.read(1), pixels[1], atol=0.1)
    np.testing.assert_allclose(gather(dncnn, video), gather(dncnn, ArrayVideo(pixels)), atol=0.5)


@dataclass(frozen=True)
class Endless:
    """Frames that are made when they are read."""

    frames: int
    shape: tuple[int, int] = (128, 160)
    bands: tuple[str, ...] = ("1",)
    dtype: type = np.float32
    nodata: None = None

    def read(self, t: int, window: Window | None = None) -> np.ndarray:
        frame = np.random.default_rng(t).uniform(0, 255, (1, *self.shape)).astype(np.float32)
        return frame if window is None else frame[:, *window.slices]

    def grid(self, t: int) -> GeoGrid:
        return GeoGrid(self.shape)


def test_memory_does_not_grow_with_the_length(dncnn):
    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in restore_video(dncnn, Endless(count), chunk=8):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)
    assert peak(60) < 1.1 * peak(20)
    assert peak(60) < 60 * 4 * 128 * 160  # less than the video
