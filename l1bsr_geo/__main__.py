"""``python -m l1bsr_geo`` is ``l1bsr-geo``."""

from l1bsr_geo.cli.main import main

main()
