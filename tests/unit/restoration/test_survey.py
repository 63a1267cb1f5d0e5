"""What a look through a video tells, and pairs of its frames."""

import numpy as np
import pytest

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.images.videos import ArrayVideo
from l1bsr_geo.restoration.pairs import OwnPairs
from l1bsr_geo.restoration.survey import find_white, survey_video


def make_video(white: float = 255.0, dtype=np.float32, frames: int = 6) -> ArrayVideo:
    rng = np.random.default_rng(0)
    still = rng.uniform(0.1, 0.9, (1, 8, 10)).repeat(8, 1).repeat(8, 2) * white
    noisy = still + rng.normal(0, 0.04 * white, (frames, *still.shape))
    return ArrayVideo(np.clip(noisy, 0, None).astype(dtype))


def test_white_is_255_of_8_bits_and_else_what_is_bright():
    assert find_white(make_video(200, np.uint8)) == 255
    for white in (1e-2, 1.0, 2000.0):  # radiance, reflectance, 12 bits
        assert 0.8 * white < find_white(make_video(white)) < 1.2 * white


def test_a_survey_finds_shots_and_noise():
    video = make_video(2000.0, np.uint16)
    survey = survey_video(video)
    assert survey.shots == (range(6),)
    assert survey.noise.deviation(1000) == pytest.approx(80, rel=0.1)
    assert survey_video(video, noise=False).noise is None


def test_dark_and_empty_frames_are_refused():
    pixels = make_video().pixels.copy()
    with pytest.raises(BadInputError, match="dark everywhere"):
        survey_video(ArrayVideo(0 * pixels))
    pixels[4] = np.nan
    with pytest.raises(BadInputError, match="frame 4 of 6 has no data at all"):
        survey_video(ArrayVideo(pixels))


def test_pairs_are_two_frames_of_a_shot_at_one_place():
    pixels = np.arange(5 * 20 * 24, dtype=np.float32).reshape(5, 1, 20, 24)
    pixels[2, 0, :4, :4] = np.nan
    source = OwnPairs(ArrayVideo(pixels), [range(3), range(3, 4), range(4, 5)], crop=8)
    batch = source.draw(np.random.default_rng(0), 32)
    assert batch.views.shape == (32, 1, 1, 8, 8)
    known = batch.visible[:, 0] > 0
    apart = (batch.pair[:, 0] - batch.views[:, 0, 0]).abs()[known].unique().tolist()
    assert set(apart) == {480.0, 960.0}  # frames 0, 1, 2 are 480 apart; 3 and 4 stand alone
    assert batch.views.isfinite().all()
    assert 0 < known.float().mean() < 1
    again = source.draw(np.random.default_rng(0), 32)
    assert (batch.views == again.views).all()
    with pytest.raises(BadInputError, match="no two of them without a cut"):
        OwnPairs(ArrayVideo(pixels), [range(t, t + 1) for t in range(5)])
