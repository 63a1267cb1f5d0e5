"""Weights of the networks of bursts: published ones, without a licence, and our own."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError, WeightsError
from l1bsr_geo.models.published import fetch, import_weights
from l1bsr_geo.models.registry import MODELS, Model
from l1bsr_geo.models.stored import find_cached


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def save(tmp_path, random_weights):
    """A checkpoint as the authors save it: name of a model to a file with its parts."""

    def run(name, *, without=()):
        entry = MODELS[name]
        state = random_weights(entry.trained_part(entry.build()))
        names = {"fnet": "Fnet", "encoder": "Encoder", "decoder": "Decoder"}
        saved = {"epoch": 1700}
        for part, published in names.items():
            if part not in without:
                own = {k.removeprefix(f"{part}."): v for k, v in state.items() if part in k}
                if part == "fnet":
                    own |= twice(own)
                saved[f"state_dict{published}"] = own
                saved[f"optimizer{published}"] = {"state": {}, "param_groups": [{"lr": 1e-4}]}
        path = tmp_path / f"{name}.pth.tar"
        torch.save(saved, path)
        return path, state

    return run


def twice(state):
    """FNet's levels once more, under the names of a sequence."""
    order = [f"conv{kind}{i}" for kind in ("Pool", "Binl") for i in (1, 2, 3)]
    return {
        f"seq.{order.index(level)}.{rest}": value
        for name, value in state.items()
        for level, _, rest in [name.partition(".")]
        if level in order
    }


def test_the_shapes_are_the_published_ones(golden_weights):
    parts = {"fnet": "hdrdsp_fnet", "encoder": "hdrdsp_encoder2", "decoder": "hdrdsp_decoder193"}
    expected = {
        f"{part}.{name}": v.shape
        for part, golden in parts.items()
        for name, v in golden_weights(golden).items()
        if not name.startswith("seq.")
    }
    assert MODELS["hdr-dsp"].shapes() == expected
    single = MODELS["hdr-dsp-single"].shapes()
    assert single["encoder.inputConv.weight"] == (64, 1, 3, 3)
    assert MODELS["dsa"].shapes()["decoder.inputConv.weight"] == (64, 65, 3, 3)


@pytest.mark.parametrize("name", ["hdr-dsp", "hdr-dsp-single", "dsa"])
def test_import_finds_the_network_in_its_parts(shipped, save, name):
    path, state = save(name)
    assert import_weights(path) == find_cached(name)
    kept = safetensors.torch.load_file(find_cached(name))
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[k], v) for k, v in state.items())
    model = Model(name)
    assert model.licence is None
    assert json.loads(find_cached(name).with_suffix(".json").read_text())["model"] == name
    views = np.random.default_rng(0).uniform(0, 900, (1, 3, 1, 12, 10)).astype(np.float32)
    assert model.restore(views).shape == (1, 1, 24, 20)
    assert Model(name, scale=3).restore(views).shape == (1, 1, 36, 30)


def test_a_checkpoint_of_another_network_is_refused_in_one_line(save):
    single, _ = save("hdr-dsp-single")
    with pytest.raises(WeightsError, match=r"as weights of hdr-dsp: .* is expected") as error:
        import_weights(single, "hdr-dsp")
    assert "\n" not in str(error.value)
    partial, _ = save("hdr-dsp", without=("encoder",))
    with pytest.raises(WeightsError, match=r"none of|not found"):
        import_weights(partial)


def test_fnet_alone_is_imported_as_what_it_is(tmp_path, random_weights):
    state = random_weights(MODELS["fnet"].trained_part(MODELS["fnet"].build()))
    torch.save({"epoch": 1600, "state_dictFnet": state | twice(state)}, tmp_path / "F.pth.tar")
    assert import_weights(tmp_path / "F.pth.tar") == find_cached("fnet")
    views = np.random.default_rng(0).uniform(0, 900, (1, 3, 1, 17, 20)).astype(np.float32)
    assert Model("fnet").restore(views).shape == (1, 1, 17, 20)


@pytest.mark.parametrize("name", ["dsa", "highres-net"])
def test_what_nobody_published_says_how_to_train_and_import(
    name, shipped, tmp_path, random_weights
):
    with pytest.raises(MissingInputError, match=f"none are published.*train.*import FILE.*{name}"):
        Model(name)
    with pytest.raises(BadOptionError, match="no weights are published"):
        fetch(name, True)
    path = tmp_path / "own.safetensors"
    safetensors.torch.save_file(random_weights(MODELS[name].build()), path)
    assert import_weights(path) == find_cached(name)
    assert Model(name).weights_sha256


def test_that_no_licence_is_stated_is_said(cache, shipped):
    shown = []
    with pytest.raises(BadOptionError, match=r"states no licence .* was not accepted"):
        fetch("hdr-dsp", lambda text: bool(shown.append(text)))
    assert "centreborelli/HDR-DSP-SR" in shown[0]
    assert not cache.exists()
    with pytest.raises(
        MissingInputError, match=r"no licence stated\) with `l1bsr-geo models fetch"
    ):
        Model("hdr-dsp")


def test_scales_that_there_are():
    assert Model("act", scale=3).spec.scale == 3
    with pytest.raises(BadOptionError, match="act has no scale 4; there is 2, 3"):
        Model("act", scale=4)
    with pytest.raises(BadOptionError, match="geometric has no scale 3; there is 2"):
        Model("geometric", scale=3)


@pytest.mark.parametrize("exposures", [[[1, 0, 2]], [[1, np.nan, 2]], [[1, 2]]])
def test_exposures_that_cannot_be_are_refused(exposures):
    views = np.ones((1, 3, 1, 5, 5), np.float32)
    with pytest.raises(BadInputError, match="exposure above zero for each of 1 x 3 frames"):
        Model("act").restore(views, exposures=np.array(exposures, np.float32))
    Model("bicubic").restore(views, exposures=np.array(exposures, np.float32))  # takes none


def test_references_by_name(save):
    path, _ = save("hdr-dsp")
    model = Model("hdr-dsp", weights=path)
    views = np.random.default_rng(0).uniform(0, 900, (1, 3, 1, 12, 10)).astype(np.float32)
    flow = np.zeros((1, 3, 1, 2, 12, 10), np.float32)
    flow[:, 1:] = 0.4
    several = model.restore_references(views, flow, [0, 2])
    assert several.shape == (2, 1, 1, 24, 20)
    np.testing.assert_allclose(several[0], model.restore(views, flow), rtol=1e-5)
    with pytest.raises(BadOptionError, match="no frame 3 in a burst of 3"):
        model.restore_references(views, flow, [3])
    with pytest.raises(BadOptionError, match="act does not encode frames"):
        Model("act").restore_references(views, flow, [0])
