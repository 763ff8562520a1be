"""Lets one Markdown file serve the repository's own pages and the site: links out of docs/ are led to where they are.

`../CHANGELOG.md` and the like are pages of the site that include the file; anything else outside docs/ becomes code.
"""

import posixpath
import re
from typing import Any

PAGES = {
    "CHANGELOG.md": "/project/changelog.md",
    "CONTRIBUTING.md": "/project/contributing.md",
    "README.md": "/index.md",
    "src/longlode/ops/delta_rule/README.md": "/concepts/delta_rule.md",
}
_LINK = re.compile(r"(!?)\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def redirected(text: str, docname: str) -> str:
    """Return the text of the page `docname` (`guides/scale`) with its links out of docs/ replaced."""
    folder = posixpath.join("docs", posixpath.dirname(docname))

    def new(match: re.Match[str]) -> str:
        mark, words, link, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, link))
        if path.startswith("docs/"):
            return match[0]
        page = PAGES.get(path)
        return f"{mark}[{words}]({page}{anchor or ''})" if page else f"{words} (`{path}`)"

    return _LINK.sub(new, text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    source[0] = redirected(source[0], docname)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
