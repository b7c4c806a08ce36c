"""A real libvirtd with the test driver in it, which a test can take away and bring back."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534
_PROGRAM = shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")

needs_libvirtd = pytest.mark.skipif(
    _PROGRAM is None, reason="libvirtd is not installed (Debian: libvirt-daemon)"
)


class Distant:
    """libvirtd with all its files in ``place``; never as root, who would share the host's own."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._socket = place / "libvirt-sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"test+unix:///default?socket={self._socket}"

    async def bring(self) -> None:
        assert _PROGRAM is not None
        (self._place / "libvirtd.conf").write_text(
            f'auth_unix_rw = "none"\nunix_sock_dir = "{self._place}"\n'
        )
        homes = (
            "HOME",
            *(f"XDG_{kind}" for kind in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME")),
        )
        self._socket.unlink(missing_ok=True)
        as_nobody = os.getuid() == 0
        self._process = subprocess.Popen(
            [_PROGRAM, "--config", str(self._place / "libvirtd.conf")],
            cwd=self._place,
            env={"PATH": os.environ["PATH"], **dict.fromkeys(homes, str(self._place))},
            user=_NOBODY if as_nobody else None,
            group=_NOBODY if as_nobody else None,
            extra_groups=[] if as_nobody else None,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while not self._socket.exists():
                assert self._process.poll() is None, "libvirtd ended at once"
                await asyncio.sleep(0.01)  # it has no other sign of being ready

    def take_away(self) -> None:
        """As a crash does it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def distant() -> Iterator[Distant]:
    """Not yet running. Its directory is one that the other user can reach and a socket's path can hold."""
    with tempfile.TemporaryDirectory(prefix="libvirtd-") as place:
        if os.getuid() == 0:
            os.chown(place, _NOBODY, _NOBODY)
        made = Distant(Path(place))
        try:
            yield made
        finally:
            made.take_away()
