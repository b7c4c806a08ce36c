"""``tools/bench SUITE``."""

import argparse
import importlib
import json

SUITES = ("policy", "broker", "daemon", "alone", "reload", "exec", "core", "storage")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench", description="Measure a suite; the report is JSON.")
    parser.add_argument("suite", choices=SUITES)
    suite = importlib.import_module(f"tools.benchmarks.{parser.parse_args().suite}")
    print(json.dumps({"results": [result.row() for result in suite.run()]}, indent=1))


main()
