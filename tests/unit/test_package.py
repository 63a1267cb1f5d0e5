"""The package's public face."""

import importlib.metadata
import importlib.resources

import pytest

import l1bsr_geo


def test_every_public_name_is_there():
    for name in l1bsr_geo.__all__:
        assert getattr(l1bsr_geo, name) is not None
    assert dir(l1bsr_geo) == l1bsr_geo.__all__
    with pytest.raises(AttributeError, match="magic"):
        l1bsr_geo.magic  # noqa: B018 - the lookup is the test


def test_homes_are_the_public_names():
    assert sorted(l1bsr_geo._HOMES) == sorted(set(l1bsr_geo.__all__) - {"__version__"})


def test_is_typed_and_versioned():
    assert (importlib.resources.files(l1bsr_geo) / "py.typed").is_file()
    assert importlib.metadata.version("l1bsr-geo") == l1bsr_geo.__version__
