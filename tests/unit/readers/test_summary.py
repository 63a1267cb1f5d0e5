"""What `info` says."""

import json

import pytest

from l1bsr_geo.errors import GeometryWarning
from l1bsr_geo.readers.sentinel2_summary import summarize_product
from l1bsr_geo.simulation.demo import OVERPASS, make_demo_product
from l1bsr_geo.simulation.scenes import TEN_METRE_BANDS
from tests.synthetic.eopf_zarr import write_eopf_zarr


def test_real_metadata(shared):
    facts = summarize_product(shared / "data/sen2vm_tds1/L1B_SAFE")
    assert facts["platform"] == "S2A"
    assert facts["geometry"]["source"] == "model"
    assert len(facts["detectors"]) == 12
    assert facts["detectors"]["05"]["lines"] == [0, 13824]
    assert facts["bands"] == []  # the test data set has no images
    json.dumps(facts)


def test_eopf_zarr(tmp_path):
    made = make_demo_product(tmp_path)
    models = {(5, b): OVERPASS.model(5, b) for b in TEN_METRE_BANDS}
    path = tmp_path / "product.zarr"
    write_eopf_zarr(path, made.product, models)
    with pytest.warns(GeometryWarning):
        facts = summarize_product(path)
    assert facts["detectors"]["05"] == {"lines": [0, 1296], "columns": 2552}
    assert facts["geometry"]["source"] == "footprint"
    json.dumps(facts)
