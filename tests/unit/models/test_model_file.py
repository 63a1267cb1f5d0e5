"""Models as files of others: what they make, and what is refused before anything is done."""

import itertools
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    L1bsrGeoError,
    MissingInputError,
    WeightsError,
)
from l1bsr_geo.models.file_facts import fit_facts
from l1bsr_geo.models.graph_restorer import _windows
from l1bsr_geo.models.registry import Model
from tests.synthetic.graph_files import REACH, enlarge, random_views, write_onnx, write_spec


def truth(views, gain=400.0):
    return enlarge(torch.from_numpy(views[:, 0]) / gain).numpy() * gain


@pytest.fixture
def spec(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    return write_spec(tmp_path / "net.yaml")


def test_pixels_are_those_of_torch_and_what_is_not_told_is_measured(spec):
    model = Model.from_file(spec)
    views = random_views(2, 1, 4, 30, 41)
    np.testing.assert_allclose(model.restore(views), truth(views), atol=0.01)
    told = model.spec
    assert (told.scale, told.halo, told.gain, told.name) == (2, REACH, 400.0, "net")
    assert told.bands == ("B02", "B03", "B04", "B08")
    assert model.precision == "fp32"


def test_travels_as_path_and_hash(spec, monkeypatch):
    model = Model.from_file(spec)
    parcel = pickle.dumps(model)
    assert len(parcel) < 3000
    monkeypatch.setattr("l1bsr_geo.models.loading._LOADED", OrderedDict())  # another process
    views = random_views(1, 1, 4, 20, 20)
    twin = pickle.loads(parcel)
    np.testing.assert_array_equal(twin.restore(views), model.restore(views))
    monkeypatch.setattr("l1bsr_geo.models.loading._LOADED", OrderedDict())
    graph = spec.with_suffix(".onnx")
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="changed since"):
        pickle.loads(parcel).restore(views)


def test_a_graph_of_one_size_restores_any(tmp_path):
    write_onnx(tmp_path / "net.onnx", shape=(2, 4, 24, 32))
    model = Model.from_file(write_spec(tmp_path / "net.yaml"))
    assert model.spec.halo == REACH
    views = random_views(3, 1, 4, 61, 90)
    np.testing.assert_allclose(model.restore(views), truth(views), atol=0.01)
    small = random_views(1, 1, 4, 9, 70)  # made larger: its last rows see other borders
    got, expected = model.restore(small), truth(small)
    inner = 2 * (9 - REACH)
    np.testing.assert_allclose(got[..., :inner, :], expected[..., :inner, :], atol=0.01)
    assert got.shape == expected.shape


def test_units_order_and_layout(tmp_path):
    write_onnx(tmp_path / "net.onnx", shape=("b", "h", "w", 4), last=True)
    mean, std = [0.1, 0.2, 0.3, 0.4], [0.5, 1, 2, 4]
    told = {"layout": "channels-last", "mean": mean, "std": std, "gain": 10000}
    model = Model.from_file(write_spec(tmp_path / "net.yaml", bands="[B8, B4, B3, B2]", **told))
    assert model.spec.bands == ("B08", "B04", "B03", "B02")
    views = random_views(1, 1, 4, 20, 24)
    shift, width = (torch.tensor(v)[:, None, None] for v in (mean, std))
    seen = (torch.from_numpy(views[:, 0]) / 10000 - shift) / width
    expected = (enlarge(seen) * width + shift) * 10000
    np.testing.assert_allclose(model.restore(views), expected.numpy(), rtol=1e-4, atol=0.5)


def test_the_four_keys_of_sentinel2_superresolution(tmp_path):
    write_onnx(tmp_path / "net.onnx")
    spec = tmp_path / "four.yaml"
    spec.write_text(
        '{"model": "net.onnx", "bands": ["B2", "B3", "B4", "B8",], "margin": 9, "factor": 2.}'
    )
    model = Model.from_file(spec)
    # a margin of fine pixels; whole numbers as they are stored
    assert (model.spec.halo, model.spec.gain, model.spec.scale) == (5, 1.0, 2)
    assert model.spec.bands == ("B02", "B03", "B04", "B08")
    views = random_views(1, 1, 4, 20, 20)
    np.testing.assert_allclose(model.restore(views), truth(views, 1.0), rtol=1e-4, atol=0.05)


def _external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def _external_inside(model):
    constant = helper.make_tensor("hidden", TensorProto.FLOAT, [1], [0.0])
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="../weights.bin")
    inner = helper.make_graph([], "inner", [], [], [constant])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner))


def _not_finite(model):
    first = model.graph.initializer[1]
    first.raw_data = np.full(8, np.inf, np.float32).tobytes()


def _pools(model):
    model.graph.node[-1].output[0] = "sharp"
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["image"], ["mean"]))
    model.graph.initializer.append(helper.make_tensor("tenth", TensorProto.FLOAT, [1], [0.1]))
    model.graph.node.append(helper.make_node("Mul", ["mean", "tenth"], ["little"]))
    model.graph.node.append(helper.make_node("Add", ["sharp", "little"], ["fine"]))


def _own_operator(model):
    model.opset_import.append(helper.make_opsetid("my.company", 1))
    model.graph.node[1].domain = "my.company"
    model.graph.node[1].op_type = "Sharpen"


def _unknown_operator(model):
    model.graph.node[1].op_type = "Sharpen"


@pytest.mark.parametrize(
    ("graph", "told", "words"),
    [
        ({"spoil": _external}, {}, "weights in other files"),
        ({"spoil": _external_inside}, {}, "weights in other files"),
        ({"spoil": _not_finite}, {}, "not finite"),
        ({"spoil": _pools}, {"halo": 8}, "more than 8 px away changes its result"),
        ({"spoil": _pools}, {}, "pools over the whole image"),
        ({}, {"scene_statistics": "true"}, "takes 1 inputs .image., expected 2"),
        ({"spoil": _own_operator}, {}, "my.company"),
        ({"spoil": _unknown_operator}, {}, "Sharpen"),
        ({"shape": ("b", 3, "h", "w")}, {}, "takes 3 channels, but 4 bands"),
        ({"shape": (4, "h", "w")}, {}, "3 axes|onnxruntime cannot run it"),
        ({"kind": TensorProto.DOUBLE}, {}, "double.*expected float32"),
        ({"shape": ("b", 4, 4, 4)}, {}, "looks .* px around"),
        ({"shape": ("b", 4, 24, 24)}, {"halo": 12}, "leaves nothing"),
        ({}, {"scale": 3}, "expected .1, 4, 111, 129. at scale 3"),
        ({}, {"halo": 1}, "looks 2 px.*halo is 1"),
        ({}, {"bands": None}, "bands are not told.*{model: net.onnx, bands"),
        ({}, {"gain": None}, "gain are not told"),
        ({}, {"gain": 0}, "gain: found 0, expected DN per unit"),
        ({}, {"bands": "[B02, B02, B03, B04]"}, "bands: found .*different names"),
        ({}, {"hallo": 3}, "key 'hallo', allowed model, name"),
        ({}, {"mean": "[1, 2]"}, "mean has 2 numbers for 4 channels"),
        ({}, {"model": "net.pth"}, "expected a file ending in .onnx or .pt2"),
        ({}, {"model": "[1]"}, "is no spec"),
        ({}, {"name": "[[[["}, "is not YAML"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(tmp_path, graph, told, words):
    write_onnx(tmp_path / "net.onnx", **graph)
    spec = write_spec(tmp_path / "net.yaml", **told)
    with pytest.raises(BadInputError, match=words) as caught:
        Model.from_file(spec)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path, spec):
    with pytest.raises(MissingInputError, match="no such file"):
        Model.from_file(tmp_path / "other.onnx")
    with pytest.raises(BadInputError, match="bands and gain are not told"):
        Model.from_file(spec.with_suffix(".onnx"))
    graph = spec.with_suffix(".onnx")
    content = graph.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        graph.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            Model.from_file(spec)


def test_a_missing_package_is_named(spec, monkeypatch):
    monkeypatch.setattr("l1bsr_geo.models.onnx_file.find_spec", lambda _: None)
    with pytest.raises(BadOptionError, match=r"pip install 'l1bsr-geo\[onnx\]'"):
        Model.from_file(spec)


@pytest.mark.parametrize(
    "text",
    ["&a [*a]", "- 1", "{", "model: 3", "model: net.onnx\n" + "a: [" * 5000, "!!python/name:os.x"],
)
def test_hostile_specs(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(L1bsrGeoError) as caught:
        Model.from_file(tmp_path / "s.yaml")
    assert len(str(caught.value)) < 600


def test_evoland_margins_and_factors():
    told = {"bands": ["B5", "B8A", "B11"], "margin": 66, "factor": 4.0}
    facts = fit_facts(told, "here", "net", "net.onnx")
    assert facts.halo == 17
    assert facts.bands == ("B05", "B8A", "B11")
    with pytest.raises(BadInputError, match="whole factor"):
        fit_facts(told | {"factor": 1.5}, "here", "net", "net.onnx")


@pytest.mark.parametrize("multiple", [1, 4])
def test_windows_of_one_size_share_their_halos(multiple):
    for length, size, halo in itertools.product((16, 20, 36, 100), (16, 20), (0, 2, 6)):
        if length < size or size - 2 * halo < multiple:
            continue
        windows = list(_windows(length, size, halo, multiple))
        taken = [i for _, part in windows for i in range(part.start, part.stop)]
        assert taken == list(range(length))
        for start, part in windows:
            assert start % multiple == 0
            assert part.start - start >= halo or start == 0
            assert start + size - part.stop >= halo or start + size == length
