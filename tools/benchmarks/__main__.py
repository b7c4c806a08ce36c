"""``tools/bench SUITE``."""

import argparse
import importlib
import json

SUITES = {
    "policy": ("policy", "delegation"),
    "broker": ("broker", "events"),
    **{name: (name,) for name in ("daemon", "alone", "reload", "exec", "core", "storage")},
}
"""The modules of each, in order."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measure a suite; the report is JSON.")
    parser.add_argument("suite", choices=SUITES)
    names = SUITES[parser.parse_args().suite]
    modules = [importlib.import_module(f"tools.benchmarks.{name}") for name in names]
    print(json.dumps({"results": [result.row() for module in modules for result in module.run()]}, indent=1))


main()
