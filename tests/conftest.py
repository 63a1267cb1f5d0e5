"""What every test may ask for."""

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# a shell lets what it runs in the background ignore Ctrl-C; commands that tests start would, too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and conformance vectors beside the checkout; skips without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("real data and golden vectors are not here (../shared); see CONTRIBUTING")
    return folder
