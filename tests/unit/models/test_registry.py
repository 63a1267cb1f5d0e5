import pickle
import shutil
import threading
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError, WeightsError
from l1bsr_geo.models import dsa
from l1bsr_geo.models.base import ModelSpec, Restorer
from l1bsr_geo.models.burst_network import Sizes
from l1bsr_geo.models.checkpoint import read_facts
from l1bsr_geo.models.classical import Geometric
from l1bsr_geo.models.csr import BandRegistration
from l1bsr_geo.models.published import import_weights
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.stored import hash_file


class Doubling(nn.Module):
    """Says what it saw: twice the input, repeated to the fine grid; wants multiples of 4."""

    spec = ModelSpec("doubling", bands=("B02", "B03"), gain=100.0, multiple=4)

    def __init__(self):
        super().__init__()
        self.two = nn.Parameter(torch.tensor(2.0))
        self.seen = []

    def forward(self, views, flow=None):
        self.seen.append(tuple(views.shape))
        assert views.max() <= 10
        return nn.functional.interpolate(views[:, 0] * self.two, scale_factor=2)


def views(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 1000, shape).astype(np.float32)


@pytest.fixture
def small_rec(monkeypatch, random_weights, tmp_path):
    """A small REC in the registry's place of the large one, and a file of weights for it."""

    def build():
        return REC(groups=2, blocks=1, width=16, reduction=4)

    entry = MODELS["l1bsr-rcan"]
    monkeypatch.setitem(MODELS, "l1bsr-rcan", type(entry)(entry.spec, build, entry.weights))
    path = tmp_path / "small.safetensors"
    safetensors.torch.save_file(random_weights(build(), 1.0), path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_every_entry_builds_what_its_spec_says(name):
    entry = MODELS[name]
    restorer = entry.build()
    assert isinstance(restorer, Restorer)
    assert restorer.spec == entry.spec
    assert entry.spec.name == name
    assert entry.takes_weights == isinstance(restorer, nn.Module)


def test_the_names_are_the_published_ones(golden_weights):
    for name, golden in (("l1bsr-rcan", "l1bsr_rec"), ("csr-hourglass", "l1bsr_csr")):
        weights = {k: v.shape for k, v in golden_weights(golden).items()}
        assert MODELS[name].shapes() == weights


def test_the_default_restores_without_weights():
    model = Model()
    assert (model.spec.name, model.weights_sha256, model.licence) == ("geometric", None, None)
    out = model.restore(views(2, 1, 4, 5, 3), np.zeros((2, 1, 4, 2, 5, 3), np.float32))
    assert out.shape == (2, 4, 10, 6)
    assert out.dtype == np.float32


def test_gain_padding_and_evaluation_are_the_models_business():
    restorer = Doubling()
    model = Model.from_restorer(restorer)
    x = views(2, 1, 2, 5, 7)
    flow = np.zeros((2, 1, 2, 2, 5, 7), np.float32)  # a scene may know it; this model takes none
    np.testing.assert_allclose(model.restore(x, flow), 2 * x[:, 0].repeat(2, 2).repeat(2, 3))
    assert restorer.seen == []  # the model runs its own copy, and leaves the original alone
    assert restorer.training
    assert restorer.two.requires_grad


def test_read_only_input_is_left_as_it_is():
    x = views(1, 1, 2, 4, 4)
    x.flags.writeable = False
    assert Model.from_restorer(Doubling()).restore(x).shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 4, 4), "takes views"),
        ((1, 1, 2, 0, 4), "takes views"),
        ((1, 3, 2, 4, 4), "1 to 1 frames; got 3"),
        ((1, 1, 4, 4, 4), r"2 bands \(B02, B03\); got 4"),
    ],
)
def test_what_a_model_does_not_take_is_refused(shape, message):
    with pytest.raises(BadInputError, match=message):
        Model.from_restorer(Doubling()).restore(views(*shape))


def test_a_flow_of_another_shape_is_refused():
    with pytest.raises(BadInputError, match="the flow of views"):
        Model().restore(views(1, 1, 4, 4, 4), np.zeros((1, 1, 4, 2, 4, 5), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "rcan"}, "no model 'rcan'; there are geometric"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"weights": "x.pt"}, "geometric is not trained"),
    ],
)
def test_impossible_options_are_refused_at_once(options, message):
    with pytest.raises(BadOptionError, match=message):
        Model(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(BadOptionError, match="torch finds no GPU"):
        Model(device="cuda")


def test_a_model_without_its_weights_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path))
    with pytest.raises(MissingInputError, match="models fetch l1bsr-rcan"):
        Model("l1bsr-rcan")
    with pytest.raises(MissingInputError, match=r"gone\.pt: there is no such"):
        Model("l1bsr-rcan", weights=tmp_path / "gone.pt")


def test_it_travels_in_bytes_and_gives_the_same(small_rec):
    model = Model("l1bsr-rcan", weights=small_rec)
    parcel = pickle.dumps(model)
    assert len(parcel) < 1000
    x = views(1, 1, 4, 12, 10)
    twin = pickle.loads(parcel)
    assert twin.weights_sha256 == model.weights_sha256
    np.testing.assert_array_equal(twin.restore(x), model.restore(x))


def test_weights_are_read_once_in_a_process(small_rec):
    model = Model("l1bsr-rcan", weights=small_rec)
    small_rec.unlink()
    assert pickle.loads(pickle.dumps(model)).restore(views(1, 1, 4, 4, 4)).shape == (1, 4, 8, 8)


def test_weights_that_changed_on_the_way_are_refused(small_rec, monkeypatch):
    parcel = pickle.dumps(Model("l1bsr-rcan", weights=small_rec))
    monkeypatch.setattr("l1bsr_geo.models.loading._LOADED", OrderedDict())  # another process
    small_rec.write_bytes(small_rec.read_bytes()[:-1] + b"\7")
    with pytest.raises(WeightsError, match="changed since"):
        pickle.loads(parcel).restore(views(1, 1, 4, 4, 4))


def test_a_restorer_of_ones_own_travels_whole():
    model = pickle.loads(pickle.dumps(Model.from_restorer(Geometric(scale=1))))
    x = views(1, 1, 3, 6, 6)
    np.testing.assert_allclose(model.restore(x), x[:, 0], rtol=1e-6)


def test_frozen_statistics_make_tiles_agree(small_rec):
    model = Model("l1bsr-rcan", weights=small_rec)
    x = views(1, 1, 4, 24, 60)
    statistics = pickle.loads(pickle.dumps(model.scene_statistics([x[..., :20], x[..., 30:]])))
    whole = model.restore(x, statistics=statistics)
    tile = model.restore(x[..., :50], statistics=statistics)
    np.testing.assert_allclose(tile[..., :60], whole[..., :60], atol=0.01)  # 9 convolutions
    pooled = model.restore(x[..., :50])[..., :60] - model.restore(x)[..., :60]
    assert np.abs(pooled).max() > 0.1


def test_statistics_are_weighted_by_pixels(small_rec):
    model = Model("l1bsr-rcan", weights=small_rec)
    one, two = views(3, 1, 4, 10, 10), views(1, 1, 4, 10, 10, seed=1)
    apart = model.scene_statistics([one, two])
    together = model.scene_statistics([np.concatenate([one, two])])
    np.testing.assert_allclose(apart["pooled"], together["pooled"], atol=1e-6)
    assert Model().scene_statistics([one]) == {}
    with pytest.raises(BadInputError, match="no sample"):
        model.scene_statistics([])


def test_threads_take_turns(small_rec):
    model = Model("l1bsr-rcan", weights=small_rec)
    x = views(1, 1, 4, 16, 16)
    expected, found = model.restore(x), []
    threads = [threading.Thread(target=lambda: found.append(model.restore(x))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for out in found:
        np.testing.assert_array_equal(out, expected)


def test_bf16_is_close_and_is_not_the_default(small_rec):
    x = views(1, 1, 4, 16, 16)
    exact = Model("l1bsr-rcan", weights=small_rec).restore(x)
    coarse = Model("l1bsr-rcan", weights=small_rec, precision="bf16").restore(x)
    error = np.sqrt(np.mean((coarse - exact) ** 2))
    assert 0 < error < 0.03 * exact.std()


def test_csr_runs_by_name(random_weights, tmp_path):
    path = tmp_path / "csr-hourglass.safetensors"
    safetensors.torch.save_file(random_weights(BandRegistration().network, 1.0), path)
    model = Model("csr-hourglass", weights=path)
    x = views(1, 1, 4, 40, 33)
    statistics = model.scene_statistics([x])
    out = model.restore(x, statistics=statistics)
    assert out.shape == (1, 4, 40, 33)
    np.testing.assert_array_equal(out[:, 1], x[:, 0, 1])
    assert np.abs(out - x[:, 0]).max() > 1


def test_the_network_is_built_as_its_file_says(tiny_weights):
    path = tiny_weights("dsa")
    model = Model("dsa", weights=path)
    assert model.spec == dsa.make_spec(2, Sizes(width=4, encoder_blocks=1, decoder_blocks=1))
    parcel = pickle.dumps(model)
    assert len(parcel) < 1000
    x, flow = views(1, 3, 1, 12, 10), np.zeros((1, 3, 1, 2, 12, 10), np.float32)
    found = pickle.loads(parcel).restore(x, flow)
    network = dsa.DSA(width=4, encoder_blocks=1, decoder_blocks=1, estimates_flow=False)
    network.load_state_dict(safetensors.torch.load_file(path))
    with torch.inference_mode():
        expected = 3400 * network(torch.from_numpy(x) / 3400, torch.from_numpy(flow))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_the_scale_is_the_files_own(tiny_weights):
    two, three = tiny_weights("hdr-dsp"), tiny_weights("dsa", 3)
    assert Model("dsa", weights=three).spec.scale == 3
    assert Model("dsa", weights=three, scale=3).spec.scale == 3
    for name, path, scale in (("dsa", three, 2), ("hdr-dsp", two, 3)):
        with pytest.raises(
            WeightsError, match=f"of {name} at scale .*, but scale {scale}"
        ) as error:
            Model(name, weights=path, scale=scale)
        assert "\n" not in str(error.value)


def test_weights_that_say_another_model_are_refused(tiny_weights):
    with pytest.raises(WeightsError, match="weights of dsa, not of hdr-dsp"):
        Model("hdr-dsp", weights=tiny_weights("dsa"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"network": '{"colour": 1}'}, "cannot be built"),
        ({"network": '{"width": "wide"}'}, "cannot be built"),
        ({"network": '{"width": -1}'}, "cannot be built"),
        ({"network": "[4]"}, "cannot be built"),
        ({"network": "width 4"}, "cannot be built"),
        ({"network": '{"scale": 3}'}, "cannot be built"),
        ({"network": '{"name": "dsa"}'}, "its network is dsa at scale 2"),
        ({"scale": "4"}, "cannot be built: .* no scale 4"),
        ({"scale": "two"}, "cannot be built"),
        # never made: it would take 100 TB
        (
            {"network": '{"width": 1000000, "estimates_flow": false}'},
            "is expected with shape 1000000",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(tiny_weights, said, message):
    with pytest.raises(WeightsError, match=message) as error:
        Model("hdr-dsp", weights=tiny_weights("hdr-dsp", said=said))
    assert "\n" not in str(error.value)


def test_whose_weights_are_taken(shipped, tiny_weights):
    ships = shipped / "dsa.safetensors"
    shutil.copyfile(tiny_weights("dsa", seed=1), ships)
    assert Model("dsa").weights_sha256 == hash_file(ships)
    assert Model("dsa", scale=2).weights_sha256 == hash_file(ships)
    with pytest.raises(MissingInputError, match=r"dsa x3 needs trained weights.*`l1bsr-geo train`"):
        Model("dsa", scale=3)
    mine = import_weights(tiny_weights("dsa", seed=2))
    assert Model("dsa").weights_sha256 == hash_file(mine) != hash_file(ships)
    with pytest.raises(MissingInputError, match="dsa x3"):  # mine says that it is for 2
        Model("dsa", scale=3)
    third = import_weights(tiny_weights("dsa", 3))
    assert third.name == "dsa-x3.safetensors"
    assert Model("dsa", scale=3).weights_sha256 == hash_file(third)
    given = tiny_weights("dsa", seed=4)
    assert Model("dsa", weights=given).weights_sha256 == hash_file(given)


def test_published_weights_serve_every_scale_that_has_no_own(shipped, tiny_weights):
    path = import_weights(tiny_weights("hdr-dsp", without=["scale"]), "hdr-dsp")
    model = Model("hdr-dsp", scale=3)
    assert (model.spec.scale, model.weights_sha256) == (3, hash_file(path))
    shutil.copyfile(tiny_weights("hdr-dsp", 3), shipped / "hdr-dsp-x3.safetensors")
    assert Model("hdr-dsp", scale=3).weights_sha256 != hash_file(path)


def test_what_was_published_under_a_name_that_now_means_another_is_not_taken(shipped, tiny_weights):
    import_weights(tiny_weights("l1bsr", git_blob="55a5e01bb70fd7e34a29d09494013c6a79c7770b"))
    with pytest.raises(MissingInputError, match="l1bsr needs trained weights"):
        Model("l1bsr")


def test_licence_and_facts_travel_into_the_cache(shipped, tiny_weights):
    kept = import_weights(tiny_weights("dsa", 3, licence="MIT"))
    assert Model("dsa", scale=3).licence == "MIT"
    assert read_facts(kept)["recipe"] == read_facts(tiny_weights("dsa", 3))["recipe"]
