import hashlib
import json
import os

import pytest
import safetensors.torch
import torch

from l1bsr_geo.errors import MissingInputError, WeightsError
from l1bsr_geo.models.checkpoint import (
    PublishedWeights,
    check_fits,
    find_shipped,
    find_weights,
    hash_file,
    hash_git_blob,
    read_checkpoint,
    read_facts,
    read_provenance,
)
from l1bsr_geo.models.stored import find_cached


class Bomb:
    """Unpickling it runs a command."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.fixture
def state():
    return {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2), "steps": torch.tensor(4)}


def same(found, expected):
    assert list(found) == list(expected)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}},
        lambda s: {"model": s},
        lambda s: {"module." + k: v for k, v in s.items()},
        lambda s: {"model_state_dict": {"module.model." + k: v for k, v in s.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_as_authors_publish_them(tmp_path, state, wrap, zipped):
    torch.save(wrap(state), tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    same(read_checkpoint(tmp_path / "x.pth.tar"), state)


def test_safetensors_and_half_precision(tmp_path, state):
    safetensors.torch.save_file({k: v.half() for k, v in state.items()}, tmp_path / "x.safetensors")
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert {v.dtype for v in found.values()} == {torch.float32}
    torch.testing.assert_close(found["a.bias"], state["a.bias"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    path, witness = tmp_path / "x.pt", tmp_path / "ran"
    torch.save({"a": Bomb(witness)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"more than weights.*it was not loaded") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither safetensors"),
        (b"<html>not found</html>", "neither safetensors"),
        (b"\x80\x02}q", "not a torch checkpoint, or a damaged one: IndexError"),
        (b"PK\3\4nothing in it", "not a torch checkpoint, or a damaged one: BadZipFile"),
    ],
)
def test_what_is_no_weights_file_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        read_checkpoint(tmp_path / "x.pt")
    assert "x.pt" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path, state):
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "x.pt").read_bytes()
    for length in (len(whole) // 3, len(whole) - 5):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(WeightsError) as error:
            read_checkpoint(tmp_path / "x.pt")
        assert "\n" not in str(error.value)


def test_a_torch_file_without_parameters_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="without parameters"):
        read_checkpoint(tmp_path / "x.pt")
    with pytest.raises(MissingInputError, match="no such weights file"):
        read_checkpoint(tmp_path / "y.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("b"), r"b is expected with shape 3 x 1, not found"),
        (lambda s: s.update(b=torch.ones(3, 2)), r"b .* shape 3 x 1, found 3 x 2"),
        (lambda s: s.update(c=torch.ones(1)), "c with shape 1 is not a parameter"),
        (lambda s: s.update(b=torch.full((3, 1), torch.nan)), "b has values that are not finite"),
    ],
)
def test_the_first_name_that_differs_is_named(change, message):
    state = {"a": torch.ones(2), "b": torch.ones(3, 1)}
    shapes = {k: v.shape for k, v in state.items()}
    check_fits(state, shapes, "the file")
    change(state)
    with pytest.raises(WeightsError, match="the file: " + message):
        check_fits(state, shapes, "the file")


def test_hashes(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"what is up, doc?")
    # the example of the book Pro Git
    assert hash_git_blob(path) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert hash_file(path) == hashlib.sha256(b"what is up, doc?").hexdigest()


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("L1BSR_GEO_CACHE", str(tmp_path))
    assert find_cached("csr") == tmp_path / "csr.safetensors"
    assert find_cached("csr", tmp_path / "other") == tmp_path / "other/csr.safetensors"
    assert find_cached("dsa", scale=3) == tmp_path / "dsa-x3.safetensors"


def test_shipped_weights_are_taken_last(shipped, tmp_path, state):
    assert find_shipped("csr") is None
    with pytest.raises(MissingInputError, match="csr needs trained weights, none are published"):
        find_weights("csr", None, None)
    for folder in (shipped, tmp_path / "cache"):
        folder.mkdir(exist_ok=True)
        safetensors.torch.save_file(state, folder / "csr.safetensors")
        assert find_weights("csr", None, None) == folder / "csr.safetensors"
        assert find_shipped("csr") == shipped / "csr.safetensors"
    safetensors.torch.save_file(state, tmp_path / "mine.safetensors")
    assert find_weights("csr", tmp_path / "mine.safetensors", None) == tmp_path / "mine.safetensors"


def test_what_a_file_says_of_itself(tmp_path, state):
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(state, path, metadata={"model": "dsa", "scale": "3"})
    assert read_facts(path) == {"model": "dsa", "scale": "3"}
    safetensors.torch.save_file(state, path)
    assert read_facts(path) == {}
    torch.save(state, path)
    assert read_facts(path) == {}
    path.write_bytes(b"nothing of the kind")
    assert read_facts(path) == {}


def test_provenance(tmp_path, state):
    ours, theirs = tmp_path / "x.safetensors", tmp_path / "x.pt"
    safetensors.torch.save_file(state, ours, metadata={"licence": "MIT"})
    torch.save(state, theirs)
    published = PublishedWeights("o/r", "c", "p", hash_git_blob(theirs), "GPL-3.0")
    assert read_provenance(ours, published) == {"licence": "MIT"}
    assert read_provenance(theirs, published)["licence"] == "GPL-3.0"
    torch.save({**state, "b": torch.ones(1)}, theirs)
    assert read_provenance(theirs, published) == {}
    ours.with_suffix(".json").write_text(json.dumps({"sha256": "0"}))
    with pytest.raises(WeightsError, match="changed or damaged"):
        read_provenance(ours, published)
