"""Builds the native kernels of `nextword.ops.native`, which are optional.

Without a C++ compiler, or without the headers of XLA that come with jaxlib, the package is
installed all the same and computes with the portable operations of Keras.
"""

import importlib.util
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/nextword/ops/native")


def xla_headers() -> Path | None:
    """Return the directory of XLA's headers, if they are there."""
    jaxlib = importlib.util.find_spec("jaxlib")
    if jaxlib is None or jaxlib.origin is None:
        return None
    headers = Path(jaxlib.origin).parent / "include"
    return headers if headers.is_dir() else None


def kernels() -> list[Extension]:
    """Return the extension, if it can be built."""
    headers = xla_headers()
    if headers is None:
        return []
    return [
        Extension(
            "nextword.ops.native._kernels",
            sources=sorted(map(str, SOURCES.glob("*.cc"))),
            depends=sorted(map(str, [*SOURCES.glob("*.h"), *SOURCES.glob("*.inc")])),
            include_dirs=[str(headers)],
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-w"],
            language="c++",
            optional=True,
        )
    ]


setup(ext_modules=kernels())
