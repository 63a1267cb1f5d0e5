"""Which network a module is, wherever and whenever it is asked."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from l1bsr_geo.models import loading
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.identity import hash_restorer
from l1bsr_geo.models.registry import Model
from l1bsr_geo.models.single_image import SingleImage

SPEC = ModelSpec("own", scale=1, halo=1)


def made(slope=0.1, spec=SPEC, kind=SingleImage):
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(slope), nn.Conv2d(4, 2, 3, padding=1)
    return kind(nn.Sequential(*layers, nn.BatchNorm2d(2)), spec)


class Other(SingleImage):
    pass


def test_the_same_network_has_the_same_hash_in_another_process():
    source = "from tests.unit.models.test_identity import *; print(hash_restorer(made()))"
    told = subprocess.check_output(
        [sys.executable, "-c", source], text=True, cwd=Path(__file__).parents[3]
    )
    assert told.strip() == hash_restorer(made()) == hash_restorer(copy.deepcopy(made()))


def test_what_changes_pixels_changes_the_hash():
    weight, statistics, order = made(), made(), made()
    weight.network[0].weight.data[0, 0, 0, 0] += 1e-6
    statistics.network[3].running_mean += 1
    state = order.network[0].weight.data
    state.copy_(state.flip(0))
    others = [weight, statistics, order, made(slope=0.2), made(spec=replace(SPEC, gain=2.0))]
    others += [made(kind=Other), made().half(), made().bfloat16()]
    hashes = {hash_restorer(restorer) for restorer in [made(), *others]}
    assert len(hashes) == 1 + len(others)
    assert all(len(text) == 64 for text in hashes)


def test_what_learnt_nothing_has_none():
    assert hash_restorer(Geometric()) is None
    assert hash_restorer(SingleImage(nn.Upsample(scale_factor=2), ModelSpec("up"))) is None


def test_layout_and_mode_do_not_change_it():
    assert hash_restorer(made().eval().to(memory_format=torch.channels_last)) == hash_restorer(
        made().requires_grad_(False)
    )


def test_a_model_of_ones_own_says_its_hash():
    model = Model.from_restorer(made())
    assert model.weights_sha256 == hash_restorer(made())
    assert pickle.loads(pickle.dumps(model)).weights_sha256 == model.weights_sha256
    assert model.at_precision("bf16").weights_sha256 == model.weights_sha256


class Counted(SingleImage):
    """Counts how often it is copied or arrives, and how often it is put into another layout."""

    readied = 0

    def eval(self):
        Counted.readied += 1
        return super().eval()


def test_it_is_made_ready_once_however_often_it_arrives(monkeypatch):
    Counted.readied = 0
    model = Model.from_restorer(made(kind=Counted), "cpu")
    x = np.random.default_rng(0).uniform(0, 1, (1, 1, 2, 8, 8)).astype(np.float32)
    parcel, expected = pickle.dumps(model), model.restore(x)
    for _ in range(5):
        np.testing.assert_array_equal(pickle.loads(parcel).restore(x), expected)
    assert Counted.readied == 1
    model.at_precision("bf16").restore(x)
    assert Counted.readied == 1


def test_models_that_look_alike_are_not_taken_for_each_other():
    """What a hash cannot see, such as a plain attribute, still belongs to its own model."""

    class Shifted(SingleImage):
        shift = 0.0

        def forward(self, views, flow=None):
            return super().forward(views) + self.shift

    one, two = made(kind=Shifted), made(kind=Shifted)
    two.shift = 5.0
    assert hash_restorer(one) == hash_restorer(two)
    x = np.ones((1, 1, 2, 4, 4), np.float32)
    first, second = (Model.from_restorer(r, "cpu").restore(x) for r in (one, two))
    np.testing.assert_allclose(second - first, 5, atol=1e-4)


def test_few_restorers_of_ones_own_are_kept(monkeypatch):
    monkeypatch.setattr(loading, "_LOADED", type(loading._LOADED)())
    named = Model("bicubic", device="cpu")
    x = np.ones((1, 1, 2, 4, 4), np.float32)
    models = [Model.from_restorer(made(), "cpu") for _ in range(10)]
    for model in [named, *models, models[0]]:
        model.restore(x)
    kept = [identity.name for identity, _ in loading._LOADED]
    assert len(kept) == 1 + loading._MOST_OWN
    assert kept[0] == "bicubic"


@pytest.mark.parametrize("device", ["cpu"])
def test_a_network_on_another_type_of_number_is_hashed(device):
    network = nn.Conv2d(2, 2, 1, dtype=torch.bfloat16, device=device)
    assert hash_restorer(SingleImage(network, SPEC)) is not None
