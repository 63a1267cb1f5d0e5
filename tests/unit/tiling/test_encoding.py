import numpy as np
import pytest

from l1bsr_geo.tiling.encoding import Encoding, choose_encoding


def encode(values, dtype="uint16", nodata=0.0, add_offset=0.0, valid=None):
    restored = np.asarray(values, np.float32)[None, None]
    mask = np.ones(restored.shape[1:], bool) if valid is None else np.asarray([valid])
    return Encoding(np.dtype(dtype), nodata, (add_offset,)).encode(restored, mask)[0, 0]


@pytest.mark.parametrize(
    ("value", "stored"),
    [(1.5, 2), (2.5, 2), (2.51, 3), (-3.0, 1), (0.4, 1), (65534.6, 65535), (1e9, 65535), (7.0, 7)],
)
def test_values_are_rounded_clipped_and_kept_off_nodata(value, stored):
    assert encode([value]) == [stored]


def test_without_a_nodata_value_zero_is_a_value():
    assert encode([0.4, -1.0, 5.0], nodata=None, valid=[True, True, False]).tolist() == [0, 0, 0]


def test_nodata_at_the_top_is_kept_off_downwards_and_saturation_survives():
    assert encode([65535.0, 3.0], nodata=65535.0).tolist() == [65534, 3]
    assert encode([65535.0, 70000.0], nodata=0.0).tolist() == [65535, 65535]
    assert encode([255.0], "uint8", nodata=255.0) == [254]


def test_the_offset_is_taken_off_again():
    assert encode([1100.5, 50.0], add_offset=100.0).tolist() == [1000, 1]
    assert encode([900.0], "int16", nodata=-9999.0, add_offset=1000.0) == [-100]


def test_what_is_not_valid_is_nodata_whatever_was_restored():
    stored = encode([np.nan, np.inf, 5.0, 1e30], nodata=7.0, valid=[False, False, True, False])
    assert stored.tolist() == [7, 7, 5, 7]


def test_floats_are_not_rounded():
    stored = encode([1.25, 0.0, 4.0], "float32", add_offset=-1.0, valid=[True, True, False])
    assert stored.tolist() == [2.25, 1.0, 0.0]
    assert encode([0.0], "float32")[0] == np.nextafter(np.float32(0), np.float32(1))
    assert np.isnan(encode([3.0], "float32", nodata=None, valid=[False]))[0]
    assert np.isnan(encode([3.0], "float64", nodata=float("nan"), valid=[False]))[0]


@pytest.mark.parametrize(
    ("source", "nodata", "asked", "dtype", "kept"),
    [
        ("uint16", 0, "source", "uint16", 0),
        ("uint8", None, "source", "uint8", None),
        ("int16", -9999, "uint16", "uint16", 0),
        ("int16", -9999, "float32", "float32", -9999),
        ("float32", float("nan"), "uint16", "uint16", 0),
        ("float64", 1e-300, "float32", "float32", float("nan")),
    ],
)
def test_nodata_stays_where_the_type_can_hold_it(make_scene, source, nodata, asked, dtype, kept):
    scene = make_scene(np.ones((1, 2, 2), source), nodata=nodata)
    encoding = choose_encoding(scene, asked)
    assert encoding.dtype == dtype
    assert encoding.nodata == kept or (np.isnan(kept) and np.isnan(encoding.nodata))
