"""Workflow, hooks, templates and citation say what the project does, and no more."""

import json
import re
import tomllib

import pytest
import yaml

import l1bsr_geo
from tests.e2e.pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_workflow_calls_the_targets_that_people_call():
    flow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert {"make test", "make docs", "make demo"} == set(commands)
    assert {command.removeprefix("make ") for command in commands} <= TARGETS
    assert flow["permissions"] == {"contents": "read"}
    versions = {f"Programming Language :: Python :: {v}" for v in python_versions(flow)}
    told = {c for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert versions == told
    assert f">={min(python_versions(flow), key=lambda v: int(v[2:]))}" == PROJECT["requires-python"]


def python_versions(flow) -> list[str]:
    return flow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_hooks_are_the_checks_of_make_test():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local"  # no versions beside those of make
    called = {hook["entry"].removeprefix("make ") for hook in repository["hooks"]}
    (line,) = re.findall(r"^test: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called == set(line.split()) - {"pytest"}


def test_a_report_of_a_bug_has_what_is_needed_to_mend_it():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    needed = {
        field["id"]: str(field["attributes"])
        for field in form["body"]
        if field.get("validations", {}).get("required")
    }
    assert "l1bsr-geo --version" in needed["version"]
    assert "gdalinfo" in needed["gdalinfo"]
    assert "command" in needed


def test_citation_is_of_this_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == l1bsr_geo.__version__
    assert cited["license"] == PROJECT["license"]
    assert {author["name"] for author in cited["authors"]} == {
        author["name"] for author in PROJECT["authors"]
    }


def test_papers_that_the_models_are_of_are_cited():
    """Those of the models' own sources, by their arXiv number."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    papers = {paper["doi"].removeprefix("10.48550/arXiv.") for paper in cited if "doi" in paper}
    for paper in cited:
        assert paper["title"]
        assert paper["authors"]
        assert 2017 < paper["year"] < 2027
    sources = "".join(path.read_text() for path in (ROOT / "l1bsr_geo").rglob("*.py"))
    named = set(re.findall(r"arXiv (\d{4}\.\d{5})", sources))
    assert papers <= named  # nothing is cited that nothing is of
    assert {"2304.06871", "2205.02031", "2004.06957", "1811.12766", "1905.05092"} <= papers


def test_what_is_said_of_uncertainty_was_measured():
    """The table of docs/benchmarks.md, on the file of the benchmark."""
    page = (ROOT / "docs/benchmarks.md").read_text().split("## Uncertainty")[1].split("\n## ")[0]
    told = re.findall(
        r"^\| `([\w-]+)` x(\d) \|.*\| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) %", page, re.M
    )
    rows = json.loads((ROOT / "docs/benchmarks/uncertainty.json").read_text())["rows"]
    assert len(told) == len(rows) > 5
    for model, scale, *figures in told:
        measured = rows[f"{model}-{scale}"]["figures"]["all"]
        expected = (measured["z"], 100 * measured["1 sigma"], 100 * measured["2 sigma"])
        assert [float(f) for f in figures] == pytest.approx(expected, abs=0.06)
