"""Settings of the documentation site. Build it with `make docs`; warnings are errors."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent / "_extensions"))

project = "longlode"
author = "The longlode authors"
copyright = author
version = release = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generated_reference",
    "plain_docstrings",
    "repository_links",
]
exclude_patterns = [
    "_build",
    "_extensions",
    "reference/generated/columns.md",
]  # the last is included by a page
html_theme = "furo"
html_title = "longlode"
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
