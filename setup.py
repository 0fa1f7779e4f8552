"""The build of the optional extension, which pyproject.toml cannot declare.

WSFRAME_BUILD_EXT  auto (default): build the compiled kernels; if that fails, install without them
                   require: fail if the kernels cannot be built
                   no: do not build them; the wheel is pure Python
WSFRAME_SANITIZE   e.g. "address,undefined": build the kernels with these sanitizers
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

POLICY = os.environ.get("WSFRAME_BUILD_EXT", "auto")
SANITIZE = os.environ.get("WSFRAME_SANITIZE")

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
        super().run()
        if not all(os.path.exists(self.get_ext_fullpath(ext.name)) for ext in self.extensions):
            print(
                "wsframe: building the compiled kernels failed; the pure kernels will be used.",
                file=sys.stderr,
            )


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
    ext_modules=[] if POLICY == "no" else extensions,
    cmdclass={"build_ext": BuildKernels},
)
