"""One run of opensr-utils, in its own environment: INPUT OUTPUT NETWORK OPTIONS (JSON)."""

import json
import sys

import opensr_utils
from networks import make_network

if __name__ == "__main__":
    source, output, network, options = sys.argv[1:]
    opensr_utils.super_resolve(
        source, make_network(network), output, factor=2, device="cpu", **json.loads(options)
    )
