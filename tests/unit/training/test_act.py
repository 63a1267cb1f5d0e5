"""ACT's parameters are found again where they are known."""

import json

import numpy as np
import pytest

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.models.act import ACT
from l1bsr_geo.training.act import choose_act
from l1bsr_geo.training.burst_loss import score_frames
from l1bsr_geo.training.bursts import SimulatedBursts


def source(noise):
    return SimulatedBursts(count=3, size=32, frames=(6, 6), noise=noise)


def test_more_noise_asks_for_more_regularisation():
    noises = (2.0, 8.0, 24.0, 72.0)
    options = {"noises": noises, "counts": (6,), "bursts": 3}
    quiet, loud = (choose_act(source(noise), **options) for noise in (0.3, 3.0))
    assert quiet.best.act.noise < 24 <= loud.best.act.noise
    assert [t.act.noise for t in loud.trials] == list(noises)


def test_the_best_has_the_best_score_and_can_be_done_again():
    options = {"noises": (10.0, 30.0), "iterations": (5, 40), "counts": (4, 6), "bursts": 2}
    choice = choose_act(source(2.5), seed=4, **options)
    assert len(choice.trials) == 4
    assert choice.best.figures["score"] == max(t.figures["score"] for t in choice.trials)
    batch = source(2.5).draw(np.random.default_rng(4), 2)
    again = score_frames(ACT(2, choice.best.act.noise, choice.best.act.iterations), batch, (4, 6))
    assert again == choice.best.figures
    told = json.loads(json.dumps(choice.as_dict()))
    assert told["method"] == "act"
    assert ACT(**{k: told[k] for k in ("scale", "noise", "iterations", "sharpening")}) == (
        choice.best.act
    )
    assert [t["score"] for t in told["trials"]] == [t.figures["score"] for t in choice.trials]


def test_there_must_be_something_to_try():
    with pytest.raises(BadOptionError, match="one of each"):
        choose_act(source(1), noises=())
