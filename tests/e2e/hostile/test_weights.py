"""Weights, cards and recipes: nothing of them is run, little is believed."""

import struct
import warnings
import zipfile

import pytest
import safetensors.torch
import torch

from tests.synthetic import hostile
from tests.synthetic.confined import image
from tests.synthetic.weights import write_tiny_weights


@pytest.fixture
def picture(place):
    return hostile.write_raster(place / "i.tif", hostile.noise())


def with_weights(picture, weights, output, *more):
    return ("sr", picture, output, "--weights", weights, *more)


def test_pickles_do_not_run(run, process, picture, place):
    canary, output = place / "canary", place / "o.tif"
    pickles = hostile.write_pickles(place, canary)
    for path in pickles:
        run(*with_weights(picture, path, output, "--model", "l1bsr")).refused(path.name)
        run("models", "import", path, "--name", "dsa").refused(path.name)
    run(*with_weights(picture, pickles[1], output)).refused(pickles[1].name)
    process(*with_weights(picture, pickles[0], output)).refused(pickles[0].name, "run code")
    assert not canary.exists()


def test_headers_that_lie(run, picture, place):
    sound = write_tiny_weights(place / "sound.safetensors", "l1bsr")
    header, body = hostile.split_safetensors(sound)
    first = next(name for name in header if name != "__metadata__")
    path, output = place / "w.safetensors", place / "o.tif"

    def refuse():
        run(*with_weights(picture, path, output, "--model", "l1bsr")).refused("w.safetensors")

    for length in (2**63, 99_000_000, 0, 7):
        hostile.join_safetensors(path, header, body, length)
        refuse()
    for lie in (
        {"data_offsets": [-5, 10]},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [0, 0]},
        {"shape": [2**60, 2**60]},
        {"dtype": "F8_E4M3"},
        {"dtype": 3},
    ):
        hostile.join_safetensors(path, header | {first: header[first] | lie}, body)
        refuse()
    for text in (b'{"a":' * 50_000, b"{}", b"[]", b"{" + b"\xff" * 100):
        hostile.join_safetensors(path, text, body)
        refuse()
    for content in (b"", b"hello", b"\x80\x02}q", b"PK\3\4junk"):
        path.write_bytes(content)
        refuse()
    for content in hostile.flipped(sound.read_bytes(), 15, within=1500):
        path.write_bytes(content)
        output.unlink(missing_ok=True)
        run(*with_weights(picture, path, output, "--model", "l1bsr")).harmless(output)


NETWORKS = (
    '{"width": 1000000000}', '{"blocks": 1000000000}', '{"width": -5}', '{"width": 0}',
    '{"width": "x"}', '{"width": [1, 2]}', '{"width": NaN}', '{"width": 1e999}', "[1, 2]", '"x"',
    '{"nix": 1}', '{"scale": 3}', "[" * 100_000, "", '{"width": ' + "9" * 5000 + "}",
)  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS, ids=lambda text: text[:24])
def test_absurd_networks(run, picture, place, network):
    path = write_tiny_weights(place / "w.safetensors", "l1bsr", said={"network": network})
    run(*with_weights(picture, path, place / "o.tif")).refused("w.safetensors")


@pytest.mark.parametrize(
    "said",
    [
        {"recipe": "[" * 100_000},
        {"recipe": "x"},
        {"recipe": '{"data": 3}'},
        {"recipe": '{"validation": [1]}'},
        {"results": "[1]"},
        {"seconds": "9" * 5000},
        {"scale": "1000000000"},
        {"scale": "x"},
        {"model": "../../x"},
        {"licence": "\x1b[31m # \n\0"},
    ],
    ids=lambda said: "".join(f"{k} {v[:12]!r}" for k, v in said.items()),
)
def test_cards_of_files_that_say_anything(run, place, capsys, said):
    path = write_tiny_weights(place / "w.safetensors", "l1bsr", said=said)
    cache = place.parent / "cache"
    kept = run("models", "import", path, "--name", "l1bsr")
    if kept.code:
        kept.refused("w.safetensors")
        assert not cache.exists()
        return
    assert {p for p in kept.new if p.parent != cache} == {cache}
    shown = run("models", "show", "l1bsr")
    assert "\x1b" not in shown.stderr
    if shown.code:
        shown.refused()


def test_weights_that_are_no_numbers(run, picture, place):
    sound = write_tiny_weights(place / "sound.safetensors", "l1bsr")
    with safetensors.safe_open(sound, "pt") as file:
        said = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    path = place / "w.safetensors"
    for factor in (float("nan"), float("inf"), 1e30):
        broken = {name: value * factor for name, value in state.items()}
        safetensors.torch.save_file(broken, path, metadata=said)
        run(*with_weights(picture, path, place / "o.tif")).refused("not finite")


def test_torch_files_that_hold_traps(run, picture, place):
    loop = {}
    loop["model"] = loop
    with warnings.catch_warnings(action="ignore"):
        sparse = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (2**40,))
    path, output = place / "w.pth", place / "o.tif"
    for held in (
        loop,
        [1, 2],
        {"state_dict": {}},
        {"a": torch.zeros(1, dtype=torch.float16).expand(2**40)},
        {"a": torch.empty(2**40, device="meta")},
        {"a": sparse},
        {"a": torch.zeros(2, dtype=torch.complex64), 1: 2},
    ):
        torch.save(held, path)
        run(*with_weights(picture, path, output, "--model", "l1bsr")).refused("w.pth")
    run(*with_weights(picture, path, output)).refused("w.pth")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/data/0", bytes(100 << 20))
    run(*with_weights(picture, path, output)).refused("compressed")


def test_recipes_do_not_run(run, place):
    recipe = place / "r.yaml"
    for text in (
        f"!!python/object/apply:os.mkdir ['{place / 'canary'}']",
        f"a: !!python/object/new:os.mkdir ['{place / 'canary'}']",
        "a: &a [*a]",
        "[" * 2000,
        "\0",
        "",
    ):
        recipe.write_text(text)
        run("train", "l1bsr", recipe, "--out", place / "w").refused("r.yaml")
    assert not (place / "canary").exists()


def test_the_attacks_are_what_they_claim(sound, place):
    """Sound but for what they break; and the payload does run where it is unpickled."""
    jp2 = hostile.huge_jp2(image(sound).read_bytes())
    assert struct.unpack(">II", jp2[jp2.find(b"ihdr") + 4 :][:8]) == (2**31 - 1,) * 2
    assert len(set(hostile.flipped(b"x" * 500, 20))) == 20
    for path in hostile.write_pickles(place, place / "canary")[:2]:
        torch.load(path, weights_only=False)
        (place / "canary").rmdir()
