"""Videos of every kind, read one frame at a time."""

import pickle
import sys

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.videos import Video
from l1bsr_geo.readers.videos import read_video
from tests.synthetic.video_files import write_raster, write_video

UTM = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500000, 0, -10, 4500000)}


def make_frames(count: int, bands: int = 3, shape=(32, 48), dtype=np.uint8) -> np.ndarray:
    """A pattern of 8 px that moves 2 px a frame: (T, C, H, W)."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(20, 200, (bands, shape[0] // 8, shape[1] // 8))
    whole = blocks.repeat(8, 1).repeat(8, 2)
    return np.stack([np.roll(whole, 2 * t, 2) for t in range(count)]).astype(dtype)


def test_a_lossless_video_file_is_read_in_any_order(tmp_path):
    frames = make_frames(30)
    write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0")
    video = read_video(tmp_path / "a.mkv")
    assert isinstance(video, Video)
    assert (video.frames, video.shape, video.dtype) == (30, (32, 48), np.uint8)
    assert float(video.rate) == pytest.approx(29.97, abs=0.01)
    for t in (0, 1, 2, 20, 5, 29, 28, 0):
        np.testing.assert_array_equal(video.read(t), frames[t])
    np.testing.assert_array_equal(video.read(7, Window(3, 4, 5, 6)), frames[7, :, 4:10, 3:8])
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.read(11), frames[11])


def test_frames_between_key_frames_are_found(tmp_path):
    frames = make_frames(40)
    write_video(tmp_path / "a.mp4", frames, "libx264", "yuv444p", crf="4", g="10")
    video = read_video(tmp_path / "a.mp4")
    assert video.frames == 40
    for t in (0, 39, 17, 18, 3):
        others = [np.abs(video.read(t) - frames[s]).mean() for s in range(40) if abs(s - t) == 1]
        assert np.abs(video.read(t) - frames[t]).mean() < min(3, 0.5 * min(others))


def test_a_grey_video_of_16_bits(tmp_path):
    frames = make_frames(6, 1, dtype=np.uint16) * 257
    write_video(tmp_path / "a.mkv", frames, "ffv1", "gray16le")
    video = read_video(tmp_path / "a.mkv", slice(2, None))
    assert (video.frames, video.bands, video.dtype) == (4, ("grey",), np.uint16)
    np.testing.assert_array_equal(video.read(0), frames[2])


def test_a_damaged_or_foreign_video_is_told_in_one_line(tmp_path):
    path = tmp_path / "a.mkv"
    path.write_bytes(b"no video at all" * 99)
    with pytest.raises(BadInputError, match=r"a\.mkv cannot be opened"):
        read_video(path)
    frames = make_frames(30)
    write_video(path, frames, "ffv1", "bgr0")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 200] = b"U" * 200
    path.write_bytes(whole)
    video = read_video(path)
    np.testing.assert_array_equal(video.read(3), frames[3])
    wrong = {}
    for t in range(video.frames):
        try:
            np.testing.assert_array_equal(video.read(t), frames[t])
        except BadInputError as error:
            wrong[t] = str(error)
    assert wrong  # but no frame is silently another
    assert all(f"cannot be decoded at frame {t}" in said for t, said in wrong.items())
    assert max(wrong) < 29  # there is a key frame after the damage


def test_without_pyav_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingInputError, match=r"pip install 'l1bsr-geo\[video\]'"):
        read_video(tmp_path / "a.mp4")


def test_a_folder_is_read_in_natural_order_with_alpha_as_mask(tmp_path):
    frames = make_frames(11, 4)
    frames[:, 3] = 255
    frames[10, 3, 2, 5] = 0
    for t, frame in enumerate(frames):
        write_raster(tmp_path / f"f{t}.png", frame, driver="PNG")
    (tmp_path / "notes.txt").write_text("no frame")
    video = read_video(tmp_path)
    assert isinstance(video, Video)
    assert (video.frames, len(video.bands)) == (11, 3)
    np.testing.assert_array_equal(video.read(2), frames[2, :3])
    last = video.read(10)
    assert np.isnan(last[:, 2, 5]).all()
    assert np.isnan(last).sum() == 3


def test_frames_of_another_size_type_or_state_are_refused(tmp_path):
    frames = make_frames(3, 1)
    for t, frame in enumerate(frames):
        write_raster(tmp_path / f"f{t}.tif", frame)
    write_raster(tmp_path / "f3.tif", frames[0, :, :16])
    with pytest.raises(BadInputError, match=r"f3\.tif has 16 x 48 px .* 32 x 48 px"):
        read_video(tmp_path)
    write_raster(tmp_path / "f3.tif", frames[0].astype(np.uint16))
    with pytest.raises(BadInputError, match=r"f3\.tif has .* uint16 .* uint8"):
        read_video(tmp_path)
    (tmp_path / "f3.tif").write_bytes(b"II*\0garbage")
    with pytest.raises(BadInputError, match=r"f3\.tif cannot be opened"):
        read_video(tmp_path)


def test_bands_of_a_raster_are_times(tmp_path):
    frames = make_frames(6, 2, dtype=np.uint16)
    frames[4, 1, 3, 3] = 9999
    write_raster(tmp_path / "s.tif", frames.reshape(12, 32, 48), nodata=9999, **UTM)
    assert read_video(tmp_path / "s.tif").frames == 12
    video = read_video(tmp_path / "s.tif", slice(4, None), bands_per_frame=2)
    assert (video.frames, len(video.bands), video.nodata) == (2, 2, 9999)
    read = video.read(0)
    assert np.isnan(read[1, 3, 3])
    np.testing.assert_array_equal(read[0], frames[4, 0])
    assert isinstance(video.grid(0).model, AffineModel)
    with pytest.raises(BadOptionError, match="12 bands, which are no frames of 5"):
        read_video(tmp_path / "s.tif", bands_per_frame=5)


def test_an_array_keeps_its_map_and_is_read_lazily():
    frames = make_frames(4, 2)
    array = xr.DataArray(frames, dims=("time", "band", "y", "x"), coords={"band": ["B02", "B03"]})
    array = array.rio.write_crs(UTM["crs"]).rio.write_transform(UTM["transform"]).chunk(time=1)
    video = read_video(array, slice(1, 3))
    assert (video.frames, video.bands) == (2, ("B02", "B03"))
    np.testing.assert_array_equal(video.read(0, Window(0, 1, 5, 2)), frames[1, :, 1:3, :5])
    model = video.grid(0).model
    assert isinstance(model, AffineModel)
    assert model.transform == UTM["transform"]
    with pytest.raises(BadInputError, match="transpose it"):
        read_video(array.transpose("band", "time", "y", "x"))
    with pytest.raises(BadInputError, match=r"\(time, band, y, x\)"):
        read_video(array[0, 0])


def test_frames_that_are_not_there_are_told(tmp_path):
    with pytest.raises(MissingInputError, match="is not there"):
        read_video(tmp_path / "no.mp4")
    with pytest.raises(MissingInputError, match="holds no frames"):
        read_video(tmp_path)
    array = xr.DataArray(make_frames(4, 1)[:, 0], dims=("time", "y", "x"))
    with pytest.raises(BadOptionError, match="frames 0 to 3"):
        read_video(array, slice(9, None))
    with pytest.raises(BadOptionError, match="in order of time"):
        read_video(array, slice(None, None, -1))
