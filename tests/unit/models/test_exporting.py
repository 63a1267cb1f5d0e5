"""Our networks as files: the same pixels, and programs of torch.export without anything run."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from l1bsr_geo.errors import BadInputError, BadOptionError, OutputExistsError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.entries import MODELS
from l1bsr_geo.models.exported_operators import find_operator
from l1bsr_geo.models.exporting import export_model
from l1bsr_geo.models.rcan import REC
from l1bsr_geo.models.registry import Model
from tests.synthetic.graph_files import random_views, rewrite_archive


@pytest.fixture(scope="module")
def small_dncnn(tmp_path_factory):
    """Weights of a small network of one channel."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(0)
    network = DnCNN(channels=1, depth=3, width=4, name="dncnn-pan")
    facts = {"model": "dncnn-pan", "scale": "1", "network": '{"depth": 3, "width": 4}'}
    facts |= {"licence": "CC0-1.0"}
    state = network.state_dict()
    state["dncnn.5.weight"] += 0.1  # it finds nothing before it is trained
    safetensors.torch.save_file(state, path, metadata=facts)
    return path


@pytest.fixture(scope="module")
def program(small_dncnn, tmp_path_factory):
    """It as a program of torch.export; exporting takes seconds."""
    path = tmp_path_factory.mktemp("program") / "small.pt2"
    assert export_model("dncnn-pan", path, weights=small_dncnn) < 0.01
    return path


def compare(path, model, *shapes):
    written = Model.from_file(path)
    assert written.spec == model.spec
    for shape in shapes:
        views = random_views(*shape)
        np.testing.assert_allclose(written.restore(views), model.restore(views), atol=0.01)
    return written


def test_onnx_gives_the_same_pixels_at_any_size_and_says_what_it_is(small_dncnn, tmp_path):
    path = tmp_path / "d.onnx"
    assert export_model("dncnn-pan", path, weights=small_dncnn) < 0.01
    model = Model("dncnn-pan", weights=small_dncnn)
    written = compare(path, model, (1, 1, 1, 33, 20), (3, 1, 2, 17, 64), (1, 1, 5, 8, 8))
    assert written.licence == "CC0-1.0"
    told = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["l1bsr_geo"])
    assert told["weights_sha256"] == model.weights_sha256
    assert os.listdir(tmp_path) == ["d.onnx"]
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_model("dncnn-pan", path, weights=small_dncnn)


def test_a_program_gives_the_same_pixels(program, small_dncnn):
    model = Model("dncnn-pan", weights=small_dncnn)
    written = compare(program, model, (1, 1, 1, 33, 20), (3, 1, 2, 17, 64))
    twin = pickle.loads(pickle.dumps(written))
    views = random_views(1, 1, 2, 16, 16)
    np.testing.assert_array_equal(twin.restore(views), written.restore(views))


def test_what_pools_is_told_the_statistics_of_the_scene(monkeypatch, random_weights, tmp_path):
    def build():
        return REC(groups=2, blocks=1, width=16, reduction=4)

    entry = MODELS["l1bsr-rcan"]
    monkeypatch.setitem(MODELS, "l1bsr-rcan", type(entry)(entry.spec, build, entry.weights))
    weights, path = tmp_path / "r.safetensors", tmp_path / "r.onnx"
    safetensors.torch.save_file(random_weights(build(), 1.0), weights)
    export_model("l1bsr-rcan", path, weights=weights)
    model = Model("l1bsr-rcan", weights=weights)
    written = compare(path, model, (1, 1, 4, 24, 31))
    scene, tile = random_views(1, 1, 4, 40, 40), random_views(2, 1, 4, 24, 20)
    of_model, of_file = (m.scene_statistics([scene]) for m in (model, written))
    np.testing.assert_allclose(of_file["pooled"], of_model["pooled"], atol=1e-5)
    got, expected = (
        written.restore(tile, statistics=of_file),
        model.restore(tile, statistics=of_model),
    )
    np.testing.assert_allclose(got, expected, atol=0.01)
    assert np.abs(got - model.restore(tile)).max() > 0.01  # the statistics matter


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("l1bsr", "x.onnx", "l1bsr cannot be exported: it takes several frames or their motion"),
        ("csr", "x.onnx", "csr cannot be exported: it looks for motion"),
        ("csr-hourglass", "x.onnx", "cannot be exported: it looks for motion"),
        ("fastdvdnet", "x.pt2", "cannot be exported"),
        ("bicubic", "x.onnx", "is no network"),
        ("nix", "x.onnx", "there is no model"),
        ("dncnn", "x.pth", "ending in .onnx or .pt2"),
        ("dncnn", "nowhere/x.onnx", "there is no folder"),
    ],
)
def test_what_cannot_be_exported_says_so_in_a_line(tmp_path, name, file, words):
    with pytest.raises(BadOptionError, match=words):
        export_model(name, tmp_path / file)
    assert not os.listdir(tmp_path)


# ----------------------------------------------------------------- programs of strangers


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def pickled(place):
    buffer = io.BytesIO()
    torch.save(Payload(place), buffer)
    return buffer.getvalue()


def test_pickles_in_a_program_are_never_run(program, tmp_path):
    place = tmp_path / "was-run"
    torch.load(io.BytesIO(pickled(place)), weights_only=False)
    assert place.is_dir()  # the payload is a real one
    place.rmdir()

    def spoil_inputs(name, content):
        return pickled(place) if name.startswith("data/sample_inputs") else content

    views = random_views(1, 1, 2, 16, 16)
    harmless = Model.from_file(rewrite_archive(program, tmp_path / "a.pt2", spoil_inputs))
    np.testing.assert_array_equal(harmless.restore(views), Model.from_file(program).restore(views))

    def spoil_weights(name, content):
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return pickled(place) if name.startswith("data/weights/weight_") else content

    with pytest.raises(BadInputError, match="is a pickle, which can hold code"):
        Model.from_file(rewrite_archive(program, tmp_path / "b.pt2", spoil_weights))
    assert not place.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.hub.load",
        "torch.load",
        "os.system",
        "_operator.methodcaller",
        "torch.ops.aten.set_.source_Tensor",
        "torch.ops.aten.relu.out",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.as_strided.default",
        "#higher_order",
        "",
    ],
)
def test_only_operators_that_compute_are_called(program, tmp_path, target):
    assert find_operator(target) is None

    def change(name, content):
        old = b'"torch.ops.aten.conv2d.default"'
        return content.replace(old, json.dumps(target).encode()) if "models/" in name else content

    with pytest.raises(BadInputError, match="not among the operators"):
        Model.from_file(rewrite_archive(program, tmp_path / "x.pt2", change))


def test_expressions_in_a_program_are_not_evaluated(program, tmp_path):
    place = tmp_path / "was-run"

    def change(name, content):
        evil = f"__import__('os').mkdir('{place}')"
        if "models/" not in name:
            return content
        graph = json.loads(content)

        def spoil(part):
            for key, value in part.items() if isinstance(part, dict) else enumerate(part):
                if key == "expr_str":
                    part[key] = evil
                elif isinstance(value, dict | list):
                    spoil(value)

        spoil(graph)
        assert evil in json.dumps(graph)
        return json.dumps(graph).encode()

    Model.from_file(rewrite_archive(program, tmp_path / "x.pt2", change))
    assert not place.exists()


def _swap(old, new):
    return lambda name, content: content.replace(old, new)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swap(b"pt2", b"zip"), "not an archive of torch.export.save"),
        (_swap(b'"major": 8', b'"major": 9'), "version 9 of torch's schema"),
        (_swap(b"little", b"big"), "little-endian"),
        (_swap(b'"sizes"', b'"seizes"'), "KeyError"),
        (_swap(b'{"as_int": 4}', b'{"as_int": 4000000}'), "larger than what the file holds"),
        (lambda n, c: c[:7] if "weight_1" in n else c, "."),
        (lambda n, c: b"[" * 100000 if "models/" in n else c, "cannot be read|can be read here"),
        (lambda n, c: b"{}" if "models/" in n else c, "KeyError"),
    ],
)
def test_forged_programs_are_refused_in_a_line(program, tmp_path, change, words):
    with pytest.raises(BadInputError, match=words) as caught:
        Model.from_file(rewrite_archive(program, tmp_path / "x.pt2", change))
    assert "\n" not in str(caught.value)


def test_programs_that_are_cut_off_or_compressed(program, tmp_path):
    content = program.read_bytes()
    path = tmp_path / "x.pt2"
    for length in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(BadInputError):
            Model.from_file(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/archive_format", b"0" * 100_000)
    with pytest.raises(BadInputError, match="is compressed"):
        Model.from_file(path)
