"""An extension that is written from the documents alone works in a daemon; a bad one is named and stops
nothing."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from broker.client import call
from broker.wire import Failure, encode_call
from qubesd.api.call import Call
from tests.broker.rig import (
    PATIENCE,
    ROOT,
    answer,
    errors,
    exchange,
    lay_out,
    serving,
    start,
    wait_until_served,
)

DOCUMENT = (ROOT / "docs/extensions.md").read_text(encoding="utf-8")
TODAY = re.compile(rb"\d{4}-\d\d-\d\d")


def shown(language: str, word: str) -> str:
    """The block of the document in this language that has the word in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if word in block]
    return str(block)


def install(folder: Path, name: str, module: str, points: str | None = None) -> Mapping[str, str]:
    """A module and the metadata of its distribution; what a daemon has to have in its environment."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        points or f"[qubes_admin.extensions]\n{name} = {name}:EXTENSION\n", encoding="utf-8"
    )
    return {"PYTHONPATH": str(folder)}


def test_the_documents_example_works(tmp_path: Path) -> None:
    environment = install(
        tmp_path / "site", "keepsake", shown("python", "EXTENSION"), shown("ini", "keepsake")
    )
    root = tmp_path / "root"
    with serving(root, environment=environment) as daemon:
        assert "extension 'keepsake' (keepsake:EXTENSION) is in use" in errors(root)
        daemon.create("work")
        made_on = call(daemon.socket, "admin.vm.feature.Get", "work", "made-on")
        assert TODAY.fullmatch(made_on)
        call(daemon.socket, "admin.vm.Start", "work")
        assert f"qube 'work', made on {made_on.decode()}, has started" in errors(root)
        assert (root / "run/qubesdb/work/keepsake/made-on").read_bytes() == made_on
        call(daemon.socket, "admin.vm.Kill", "work")
        call(daemon.socket, "admin.vm.feature.Set", "work", "keep", b"1")
        reply = answer(daemon.socket, "admin.vm.Remove", "work")
        assert reply == Failure(
            "PermissionDenied", "qube 'work' is to be kept: remove its feature 'keep' first"
        )
        call(daemon.socket, "admin.vm.feature.Remove", "work", "keep")
        call(daemon.socket, "admin.vm.Remove", "work")


def test_the_example_is_what_an_installer_makes_of_its_project() -> None:
    point = shown("ini", "keepsake").splitlines()[1]
    assert f'{point.replace("= ", "= " + chr(34))}"' in shown("toml", "keepsake").splitlines()


BROKEN = {
    "imports": ("import no_such_module\n", "No module named 'no_such_module'"),
    "syntax": ("EXTENSION = \n", "SyntaxError"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit(3)"),
    "number": ("EXTENSION = 1\n", "no qubesd.extension.Extension but 'int'"),
    "nothing": ("", "has no attribute 'EXTENSION'"),
    "gui": ("EXTENSION = 1\n", "there is one of this name already"),
    "late": (
        "from qubesd.core.power_events import DomainStart\n"
        "from qubesd.extension import Extension, on\n"
        "EXTENSION = Extension(vetoes=(on(DomainStart, print),))\n",
        "DomainStart cannot be refused",
    ),
}
"""By name, the module and what the log is to say of it."""


def test_those_that_cannot_be_loaded_are_named_and_left_out(tmp_path: Path) -> None:
    site, root = tmp_path / "site", tmp_path / "root"
    for name, (module, _) in BROKEN.items():
        install(site, name, module)
    install(site, "misspelt", "", "[qubes_admin.extensions]\nmisspelt = no such:thing!\n")
    environment = install(site, "keepsake", shown("python", "EXTENSION"))
    with serving(root, environment=environment) as daemon:
        daemon.create("work")
        assert TODAY.fullmatch(call(daemon.socket, "admin.vm.feature.Get", "work", "made-on"))
        call(daemon.socket, "admin.vm.Start", "work")
        lines = errors(root).splitlines()
        # The tracebacks that they come with are no faults of the daemon's.
        (root / "errors").write_text("")
    left_out = {line.split("'")[1]: line for line in lines if "is left out" in line}
    assert left_out.keys() == {*BROKEN, "misspelt"}
    for name, (_, said) in BROKEN.items():
        assert said in left_out[name]


def test_one_that_hangs_holds_the_daemon_for_a_moment(tmp_path: Path) -> None:
    module = (
        "import time\n"
        "from qubesd.events import TagAdded\n"
        "from qubesd.extension import Extension, on\n"
        "def wait(view, event): time.sleep(1000)\n"
        "EXTENSION = Extension(watches=(on(TagAdded, wait),))\n"
    )
    root = tmp_path / "root"
    with serving(root, environment=install(tmp_path / "site", "slow", module)) as daemon:
        daemon.create("work")  # its tag says who made it
        assert "extension 'slow' is out of service" in errors(root)
        begun = time.monotonic()
        call(daemon.socket, "admin.vm.tag.Set", "work", "a")
        assert time.monotonic() - begun < PATIENCE / 10
        (root / "errors").write_text("")


DEAF = (
    "import os\n"
    "from qubesd.events import QubePreDelete, TagAdded\n"
    "from qubesd.extension import Extension, on\n"
    "def refuse_none(view, event): pass\n"
    "def compute(view, event):\n"
    "    if event.tag == 'hang': open(os.environ['AT_IT'], 'w').close(); sum(iter(int, 1))\n"
    "EXTENSION = Extension(\n"
    "    vetoes=(on(QubePreDelete, refuse_none),), watches=(on(TagAdded, compute),), saved=lambda v, q: {})\n"
)
"""It computes for ever outside of Python, where nothing can break it off; a file tells that it does."""


def end_while_at_work(root: Path, environment: Mapping[str, str], name: str, tag: str = "") -> str:
    """Have a daemon begin with what never ends, and do to it what the service manager does when it hears no
    more of it; what it wrote then."""
    lay_out(root, "")
    process = start(root, environment)
    try:
        if tag:
            wait_until_served(root, process)
            request = encode_call(Call("admin.vm.tag.Set", tag, "dom0", "work", b""))
            asking = threading.Thread(target=exchange, args=(root / "run/qubesd.sock", request))
            asking.start()
        deadline = time.monotonic() + PATIENCE
        while not Path(environment["AT_IT"]).exists():
            assert process.poll() is None, errors(root)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        noted = (root / "run/qubes/extension-at-work").read_bytes()
        assert noted.startswith(name.encode() + b"\0")
    finally:
        process.send_signal(signal.SIGABRT)
        process.wait(PATIENCE)
    if tag:
        asking.join(PATIENCE)
        (root / "run/qubesd.sock").unlink()
    said = errors(root)
    (root / "errors").write_text("")
    return said


def test_one_that_cannot_be_broken_off_is_named_and_the_next_daemon_does_not_call_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    environment = {**install(tmp_path / "site", "deaf", DEAF), "AT_IT": str(tmp_path / "at-it")}
    with serving(root, environment=environment) as daemon:
        daemon.create("work")
    assert re.search(
        r"Fatal Python error: Aborted.*deaf\.py\", line 6 in compute",
        end_while_at_work(root, environment, "deaf", "hang"),
        re.DOTALL,
    )
    with serving(root, environment=environment) as daemon:
        said = errors(root)
        assert "extension 'deaf' (deaf:EXTENSION) was at work when the daemon before this one ended" in said
        assert "extension 'deaf' is out of service until the daemon starts again" in said
        call(daemon.socket, "admin.vm.tag.Set", "work", "hang")
        reply = answer(daemon.socket, "admin.vm.Remove", "work")
        assert isinstance(reply, Failure)
        assert "out of service" in reply.message
    with serving(root, environment=environment) as daemon:
        call(daemon.socket, "admin.vm.Remove", "work")


def test_one_that_hangs_as_it_is_imported_keeps_one_daemon_from_starting(tmp_path: Path) -> None:
    root = tmp_path / "root"
    module = "import os; open(os.environ['AT_IT'], 'w').close(); sum(iter(int, 1))\n"
    environment = {**install(tmp_path / "site", "deaf", module), "AT_IT": str(tmp_path / "at-it")}
    said = end_while_at_work(root, environment, "import deaf")
    assert 'deaf.py", line 1 in <module>' in said
    with serving(root, environment=environment) as daemon:
        daemon.create("work")
        assert "extension 'deaf' (deaf:EXTENSION) is left out: " in errors(root)
        (root / "errors").write_text("")  # with a traceback
