"""Run uvicorn's own WebSocket tests with our class: ``python -m tools.uvicorn_tests``.

The tests are taken from the source distribution of the installed version, into a temporary
directory. Our class is added to their list of implementations. It is tested wherever uvicorn's
fastest implementation is: a test that leaves that one out leaves ours out, too.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

OURS = "wsframe.uvicorn:WebSocketProtocol"
FASTEST, MODULE = "WebSocketsSansIOProtocol", "uvicorn.protocols.websockets.websockets_sansio_impl"
# The files with tests that use the list of implementations.
FILES = (
    "tests/protocols/test_websocket.py",
    "tests/protocols/test_http.py",
    "tests/middleware/test_logging.py",
    "tests/middleware/test_proxy_headers.py",
)
# The changes to these files, as regular expressions and their replacements.
CHANGES = (
    # Tests that accept only uvicorn's classes, or leave the fastest one out, do so with ours.
    (
        r"isinstance\(protocol, \((.*?)\)\)",
        r"isinstance(protocol, (\1, import_from_string('OURS')))",
    ),
    (rf'(\w+)\.__name__ == "{FASTEST}"', rf'\1.__name__ in ("{FASTEST}", "WebSocketProtocol")'),
    # Tests of the fastest class alone are tests of ours.
    (rf"\bws={FASTEST}\b", "ws=import_from_string('OURS')"),
    (
        r"\Afrom __future__ import annotations\n",
        r"\g<0>from uvicorn.importer import import_from_string\n",
    ),
)


def main() -> None:
    """Run the tests, and exit with the status of pytest."""
    with TemporaryDirectory() as directory:
        root = Path(directory)
        unpack(root)
        add_our_class(root)
        (root / "pytest.ini").write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"]
        selection = ["-k", "wsframe or test_send_binary_data_to_server_bigger", *FILES]
        sys.exit(subprocess.run([*command, *sys.argv[1:], *selection], cwd=root).returncode)


def unpack(root: Path) -> None:
    """Download the source distribution, and unpack its tests."""
    requirement = f"uvicorn=={version('uvicorn')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-binary", "uvicorn", "--dest", str(root)]
    subprocess.run([*pip, *options, requirement], check=True)
    (archive,) = root.glob("uvicorn-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    # Only the tests: the package beside them would hide the installed one.
    (unpacked,) = (path for path in root.glob("uvicorn-*") if path.is_dir())
    (unpacked / "tests").rename(root / "tests")


def add_our_class(root: Path) -> None:
    """Add our class to the list of implementations, and to the tests that name single ones."""
    conftest = root / "tests/conftest.py"
    text = conftest.read_text()
    listed = re.search(rf'pytest\.param\(\s*"{MODULE}:{FASTEST}".*?\)', text, re.DOTALL)
    assert listed is not None, "the list of implementations has changed"
    ours = f'pytest.param("{OURS}", id="wsframe"), '
    conftest.write_text(text[: listed.start()] + ours + text[listed.start() :])
    for name in FILES:
        file = root / name
        text = file.read_text()
        for pattern, replacement in CHANGES:
            text = re.sub(pattern, replacement.replace("OURS", OURS), text)
        file.write_text(text)


if __name__ == "__main__":
    main()
