"""A daemon that starts with the system as it was before the last write: a flaw to be found."""

import os
import sys
from pathlib import Path

store = Path(sys.argv[sys.argv.index("--root") + 1]) / "var/lib/qubes/qubes.xml"
previous = store.with_name("qubes.xml.previous")
if previous.exists():
    previous.replace(store)
os.execv(sys.executable, [sys.executable, "-m", "broker.daemon", *sys.argv[1:]])
