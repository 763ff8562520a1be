"""Builds the CPU kernels (src/longlode/ops/delta_rule/native/) where a C compiler is at hand.

Everything else stands in pyproject.toml. The library is plain C behind a C interface, loaded with ctypes: it belongs
to a platform, not to a version of Python, and the wheel's tag says so (py3-none-PLATFORM). Without a compiler the
installation succeeds all the same; the reason is kept beside the sources, `longlode doctor` shows it, and the op runs
in plain torch. CC, CFLAGS and LDFLAGS are honoured, as by any extension. LONGLODE_URL, the repository's address, makes
the links of README.md absolute in the package's metadata.
"""

import os
import platform
import re
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NAME = "longlode.ops.delta_rule.native.libdelta_rule"
SOURCE = "src/longlode/ops/delta_rule/native/"
FAILURE = "build-failure.txt"  # native.py reads it
HEADERS = (
    "delta_rule.h",
    "queue.h",
    "vector.h",
    "product.h",
    "solve.h",
    "chunk.h",
    "backward.h",
    "split.h",
    "token.h",
    "kernels.h",
    "rowwise.h",
    "rows.h",
    "short_conv.h",
    "norms.h",
    "matches.h",
)
COMMON = ["-std=gnu11", "-O3", "-g0", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-pthread"]
# The same kernels, once for each instruction set; delta_rule.c chooses at run time. Not -ffast-math: NaN and infinity
# must come through, and sums keep their order. Without errno a square root is an instruction, not a call.
SETS = {"kernels_baseline.c": [], "delta_rule.c": [], "rowwise.c": []}
if platform.machine() in ("x86_64", "AMD64"):
    avx512 = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
    SETS |= {"kernels_avx2.c": ["-mavx2", "-mfma"], "kernels_avx512.c": avx512}


def description(url: str) -> str:
    """README.md as a package index shows it; with the `url` of the repository, its links and pictures lead there.

    A package index knows no other file, so that relative links would lead nowhere. Without a url they stay as they are.
    """
    text = Path("README.md").read_text(encoding="utf-8")
    if not url:
        return text
    base = url.rstrip("/")
    text = re.sub(r"(!\[[^\]]*\]\()(?!\w+:|#)", rf"\g<1>{base}/raw/HEAD/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!\w+:|#)", rf"\g<1>{base}/blob/HEAD/", text)


class BuildLibrary(build_ext):
    """Compiles the one library; a failure is written down, not raised."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file without the suffix of a Python version."""
        return os.path.join(*fullname.split(".")) + ".so"  # noqa: PTH118 (setuptools wants a str)

    def build_extension(self, ext: Extension) -> None:
        """Compile each source with its own flags, and link; leave either the library or the reason why not."""
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        failure = library.with_name(FAILURE)
        failure.unlink(missing_ok=True)
        objects = []
        try:
            for source, flags in SETS.items():
                objects += self.compiler.compile(
                    [SOURCE + source],
                    output_dir=self.build_temp,
                    extra_postargs=COMMON + flags,
                    depends=ext.depends,
                )
            self.compiler.link_shared_object(objects, str(library), extra_postargs=["-pthread", "-lm"])
        except (
            Exception
        ) as error:  # no compiler, a broken one, one without these flags: all of them are a reason
            compiler = (getattr(self.compiler, "compiler", None) or ["the C compiler"])[0]
            text = str(error)  # often the whole command, with the exit status at its end
            reason = f"building it with {compiler} failed: {text if len(text) < 200 else '...' + text[-60:]}"
            failure.write_text(reason + "\n", encoding="utf-8")
            self.warn(f"longlode is installed without its CPU kernels: {reason}")

    def copy_extensions_to_source(self) -> None:
        """Put what was built among the sources (pip install -e), never a half-written file in the place of a whole."""
        built = Path(self.build_lib) / self.get_ext_filename(NAME)
        place = Path(SOURCE)
        for name in (built.name, FAILURE):
            target = place / name
            if (built.parent / name).exists():
                temporary = place / f"{name}.{os.getpid()}"
                temporary.write_bytes((built.parent / name).read_bytes())
                temporary.replace(target)
            else:
                target.unlink(missing_ok=True)


class PlatformWheel(bdist_wheel):
    """Tags the wheel for every Python 3 of this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """Keep the platform only."""
        return "py3", "none", super().get_tag()[2]


setup(
    long_description=description(os.environ.get("LONGLODE_URL", "")),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            NAME,
            sources=[SOURCE + name for name in sorted(SETS)],
            depends=[SOURCE + name for name in HEADERS],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
