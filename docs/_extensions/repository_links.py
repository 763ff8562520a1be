"""Lets one Markdown file serve the repository's own pages and the site: links out of docs/ are led to where they are.

`../CHANGELOG.md` and the like are pages of the site that include the file; anything else outside docs/ becomes code.
"""

import re
from typing import Any

PAGES = {
    "../CHANGELOG.md": "/project/changelog.md",
    "../CONTRIBUTING.md": "/project/contributing.md",
    "../README.md": "/index.md",
    "../src/longlode/ops/delta_rule/README.md": "/concepts/delta_rule.md",
}
_LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def redirected(text: str) -> str:
    """`text` with its links out of docs/ replaced."""

    def new(match: re.Match[str]) -> str:
        page = PAGES.get(match[2])
        return f"[{match[1]}]({page}{match[3] or ''})" if page else f"{match[1]} (`{match[2][3:]}`)"

    return _LINK.sub(new, text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    source[0] = redirected(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
