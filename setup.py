"""The long description, the optional extensions and the sdist, which need code.

WSFRAME_BUILD_EXT  auto (default): build the compiled kernels; if that fails, install without them
                   require: fail if the kernels cannot be built
                   no: do not build them; the wheel is pure Python
WSFRAME_SANITIZE   e.g. "address,undefined": build the kernels with these sanitizers
SOURCE_DATE_EPOCH  seconds since 1970: the time of all files in reproducible archives
"""

import os
import re
import sys
import sysconfig
import tarfile
import tomllib
from glob import glob
from gzip import GzipFile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

POLICY = os.environ.get("WSFRAME_BUILD_EXT", "auto")
SANITIZE = os.environ.get("WSFRAME_SANITIZE")
EPOCH = os.environ.get("SOURCE_DATE_EPOCH")

if POLICY not in ("auto", "require", "no"):
    sys.exit(f"WSFRAME_BUILD_EXT must be auto, require or no, not {POLICY!r}")


class BuildKernels(build_ext):
    """A build of the kernels that reports a failure once."""

    def build_extension(self, ext):
        if self.compiler.compiler_type != "msvc":
            ext.extra_compile_args += ["-O3", "-std=c11", "-Wall", "-Wextra"]
            # Cython's output has unused functions and parameters.
            ext.extra_compile_args += ["-Wno-unused-function", "-Wno-unused-parameter"]
            if SANITIZE:
                flags = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
                ext.extra_compile_args += flags
                ext.extra_link_args += flags
        super().build_extension(ext)

    def run(self):
        try:
            super().run()
        except Exception:
            advise()
            raise
        if not all(os.path.exists(self.get_ext_fullpath(ext.name)) for ext in self.extensions):
            print(
                "wsframe: building the compiled kernels failed; the pure kernels will be used.",
                file=sys.stderr,
            )
            advise()


def advise():
    """Name the package that has Python's header files, if they are missing."""
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        print(
            "wsframe: Python.h is missing. Install the header files of Python (python3-dev on "
            "Debian and Ubuntu, python3-devel on Fedora), then install wsframe again.",
            file=sys.stderr,
        )


class ArchiveSources(sdist):
    """An sdist that depends only on the contents of its files, if SOURCE_DATE_EPOCH is set."""

    def make_archive(self, base_name, format, *args, **options):  # noqa: A002
        if format != "gztar" or EPOCH is None:
            return super().make_archive(base_name, format, *args, **options)
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            GzipFile("", "wb", fileobj=file, mtime=int(EPOCH)) as stream,
            tarfile.open(fileobj=stream, mode="w") as archive,
        ):
            archive.add(options["base_dir"], filter=anonymous)
        return path


def anonymous(member):
    """Remove from a member of an archive what depends on its builder."""
    member.mtime = int(EPOCH)
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


# In Markdown, a link or an image whose target is a file of the repository.
RELATIVE = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")
BLOCK_OF_CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


def long_description():
    """Return README.md; its links lead to the public address of the project, if it has one."""
    text = Path("README.md").read_text("utf-8")
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    address = project.get("urls", {}).get("Source")
    if address is None:
        return text

    def complete(link):
        image, title, target = link.groups()
        return f"{image}{title}({address}/{'raw' if image else 'blob'}/HEAD/{target})"

    parts = BLOCK_OF_CODE.split(text)
    parts[::2] = [RELATIVE.sub(complete, part) for part in parts[::2]]
    return "".join(parts)


kernels = Extension(
    "wsframe._kernels",
    sources=["src/wsframe/_kernels.pyx", *sorted(glob("src/wsframe/native/*.c"))],
    depends=sorted(glob("src/wsframe/native/*.h")),
    include_dirs=["src/wsframe/native"],
    optional=POLICY == "auto",
)

# Linux, because it uses epoll.
rounds = Extension(
    "wsframe.server._rounds",
    sources=["src/server/_rounds.pyx"],
    depends=["src/wsframe/_kernels.pxd"],
    include_dirs=["src"],
    optional=POLICY == "auto",
)
extensions = [kernels, rounds] if sys.platform == "linux" else [kernels]

setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    ext_modules=[] if POLICY == "no" else extensions,
    cmdclass={"build_ext": BuildKernels, "sdist": ArchiveSources},
)
