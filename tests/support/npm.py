"""JavaScript libraries from npm, which pages of examples load from a CDN."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, Route

from .tools import missing_tool
from .waiting import TIMEOUT

# Packages are kept, so that tests do not need the network each time.
KEPT = Path(__file__).parent.parent.parent / "build" / "npm"
CDN = re.compile(r"https://cdn\.jsdelivr\.net/npm/((?:@[\w-]+/)?[\w.-]+@[\d.]+)/(.+)")


def _npm() -> str:
    """Return the path of npm; skip the test if it is missing."""
    return shutil.which("npm") or missing_tool("npm")


def file_of(npm: str, package: str, name: str) -> bytes:
    """Return a file of a package, such as "htmx.org@4.0.1"."""
    archive = KEPT / f"{package.strip('@').replace('/', '-').replace('@', '-')}.tgz"
    if not archive.exists():
        _download(npm, package, archive)
    with tarfile.open(archive) as files:
        file = files.extractfile(f"package/{name}")
        assert file is not None
        return file.read()


def _download(npm: str, package: str, archive: Path) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as directory:
        command = [npm, "pack", package, "--silent", "--pack-destination", directory]
        subprocess.run(command, check=True, timeout=12 * TIMEOUT, stdout=subprocess.DEVNULL)
        (downloaded,) = Path(directory).iterdir()
        downloaded.replace(archive)  # another process may do the same


def serve_cdn(context: BrowserContext) -> None:
    """Answer the requests of pages to the CDN with files of the packages."""
    npm = _npm()  # a skip inside of a callback would be an error of the browser

    def answer(route: Route) -> None:
        match = CDN.fullmatch(route.request.url)
        assert match is not None
        route.fulfill(
            body=file_of(npm, match[1], match[2]),
            content_type="text/javascript",
            headers={"Access-Control-Allow-Origin": "*"},
        )

    context.route(CDN, answer)
