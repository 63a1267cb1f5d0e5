"""Model cards, and the commands that show them."""

import json

import pytest
from typer.testing import CliRunner

from l1bsr_geo.cli.models import app
from l1bsr_geo.errors import BadOptionError, L1bsrGeoError, MissingInputError, WeightsError
from l1bsr_geo.models.cards import SECTIONS, write_card
from l1bsr_geo.models.published import import_weights
from l1bsr_geo.models.registry import MODELS
from l1bsr_geo.models.shipped import ship
from l1bsr_geo.models.stored import hash_file


def sections(card):
    """Heading to text."""
    parts = card.split("\n## ")
    return dict(part.strip().split("\n\n", 1) for part in parts[1:])


def run(*words):
    """What the command prints on a narrow terminal; raises what it raised."""
    done = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"}).invoke(app, list(words))
    if isinstance(done.exception, L1bsrGeoError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def row_of(listed, name, scale):
    """Cells of a row of the list."""
    rows = [[c.strip() for c in ln.split("│")[1:-1]] for ln in listed.splitlines() if "│" in ln]
    (row,) = [row for row in rows if row[:2] == [name, scale]]
    return row


def test_a_card_says_what_the_file_says(tiny_weights):
    path = tiny_weights("dsa", 3, licence="Apache-2.0", limits="No clouds.\nNo cars.")
    card = write_card(path, {"T = 5": {"PSNR": 45.123, "SSIM": 0.98}, "T = 16": {"PSNR": 49.0}})
    assert card.startswith("# dsa x3\n")
    told = sections(card)
    assert tuple(told) == SECTIONS
    count = sum(v.numel() for v in MODELS["dsa"].shapes_for(path).values())
    assert f"{count} parameters, stored as float32" in told["What it is"]
    assert "  - width: 4" in told["What it is"]
    assert '  - images: ["city/*.jpg"]' in told["Data"]
    assert "- iterations done: 20" in told["Schedule"]
    assert "  - lr: 0.001" in told["Schedule"]
    assert "- hardware: 2 cores fp32\n- time: 2.0 h" in told["Hardware and time"]
    assert told["Seeds"] == "- training: 5\n- data: 3"
    assert "|  | PSNR | SSIM |" in told["Held-out metrics"]
    assert "| T = 5 | 45.12 | 0.98 |\n| T = 16 | 49 |  |" in told["Held-out metrics"]
    assert "score 41.25" in told["Held-out metrics"]
    assert told["Limits"].startswith("- No clouds.\n- No cars.\n")
    assert told["Licence"] == "Apache-2.0"
    command = "l1bsr-geo train dsa l1bsr_geo/models/weights/dsa-x3.yaml --data DATA\n"
    assert command in told["How to retrain"]
    assert hash_file(path) in told["File"]
    assert f"`dsa-x3.safetensors`, {path.stat().st_size} bytes" in told["File"]


def test_what_a_file_does_not_say_is_not_made_up(tiny_weights):
    unsaid = ["method", "recipe", "schedule", "iterations", "seconds", "hardware", "seed"]
    told = sections(write_card(tiny_weights("l1bsr", without=[*unsaid, "figures", "licence"])))
    assert tuple(told) == SECTIONS
    for head in ("Data", "Schedule", "Hardware and time", "Seeds", "How to retrain"):
        assert told[head] == "The file does not say."
    assert told["Held-out metrics"] == "None were measured."
    assert told["Licence"].startswith("None is stated")


def test_results_in_the_file_and_single_figures(tiny_weights):
    path = tiny_weights("dsa", results=json.dumps({"end-point error [px]": 0.08, "of": "B08"}))
    text = sections(write_card(path))["Held-out metrics"]
    assert "|  | value |\n| --- | --- |\n| end-point error [px] | 0.08 |\n| of | B08 |" in text


@pytest.mark.parametrize("facts", [{"recipe": "{"}, {"results": "[1]"}, {"schedule": "none"}])
def test_what_nobody_can_read_is_refused_in_one_line(tiny_weights, facts):
    with pytest.raises(WeightsError, match="is no JSON object") as error:
        write_card(tiny_weights("dsa", **facts))
    assert "\n" not in str(error.value)


def test_a_file_without_a_name_needs_one(tiny_weights):
    path = tiny_weights("dsa", without=["model"])
    with pytest.raises(BadOptionError, match="no model ''"):
        write_card(path)
    assert write_card(path, name="dsa").startswith("# dsa x2\n")


def test_the_list_says_where_weights_are(shipped, tiny_weights):
    path = ship(tiny_weights("dsa"), "dsa", {})
    import_weights(tiny_weights("l1bsr"))
    import_weights(tiny_weights("dsa", 3, licence="MIT"))
    listed = run("list")
    megabytes = f"{path.stat().st_size / 1e6:.2f} MB"
    assert row_of(listed, "dsa", "x2")[3:6] == ["shipped", megabytes, "Apache-2.0"]
    assert row_of(listed, "dsa", "x3")[3] == "cached"
    assert row_of(listed, "dsa", "x3")[5] == "MIT"
    assert row_of(listed, "l1bsr", "x2")[3] == "cached"
    assert row_of(listed, "l1bsr", "x2")[5] == "none stated"
    assert row_of(listed, "geometric", "x2")[3] == "needs none"
    assert row_of(listed, "highres-net", "x3")[3] == "to train"
    assert row_of(listed, "l1bsr-rcan", "x2")[3:] == ["to fetch", "", "GPL-3.0"]
    assert row_of(listed, "hdr-dsp", "x2")[3:] == ["to fetch", "", "none stated"]
    assert row_of(listed, "hdr-dsp", "x3")[3] == "to train"
    import_weights(tiny_weights("dsa"))
    assert row_of(run("list"), "dsa", "x2")[3] == "cached"  # the user's own comes first


def test_show(shipped, tiny_weights):
    path = ship(tiny_weights("dsa", 3), "dsa", {"PSNR": 40.0})
    assert run("show", "dsa", "--scale", "3") == path.with_suffix(".md").read_text()
    assert run("show", "dsa", "--scale", "3", "--recipe") == path.with_suffix(".yaml").read_text()
    assert run("show", "geometric").endswith("It needs no weights.\n")
    with pytest.raises(MissingInputError, match="dsa needs trained weights"):
        run("show", "dsa")
    cached = import_weights(tiny_weights("l1bsr"))
    assert hash_file(cached) in run("show", "l1bsr")
    with pytest.raises(BadOptionError, match="its recipe is not here"):
        run("show", "l1bsr", "--recipe")
    with pytest.raises(BadOptionError, match="no scale 5"):
        run("show", "dsa", "--scale", "5")
