"""Turns the docstrings of this project, plain text with `code` in backticks, into reStructuredText for autodoc.

A docstring is a summary line, paragraphs, and sections that begin with a word such as "Args:" at the start of a line.
Inside a section each line that is indented least, `name: what it is`, is an entry; deeper lines go on with it.
"""

import re
import textwrap
from typing import Any

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Cost|Source|Laws)\b(?: \([^)]*\))?:\s*", re.IGNORECASE)
_ENTRY = re.compile(r"^(\*{0,2}[\w., *\[\]]{1,60}?): (.*)$", re.DOTALL)
_CODE = re.compile(r"(`[^`\n]+(?:\n[^`\n]+)?`)")


def _escaped(text: str) -> str:
    """Plain text in which nothing means anything to reStructuredText, except that `code` stays code."""
    pieces = _CODE.split(text)
    out = []
    for piece in pieces:
        if _CODE.fullmatch(piece):
            # The backslash-blank pairs end to nothing: inline markup needs a boundary on both sides.
            out.append("\\ ``" + " ".join(piece.strip("`").split()) + "``\\ ")
        else:
            out.append(re.sub(r"([\\*`_|])", r"\\\1", piece))
    return "".join(out)


def _paragraphs(lines: list[str]) -> list[str]:
    """Ordinary lines as paragraphs; a block that is indented is shown as it is written."""
    out: list[str] = []
    block: list[str] = []

    def flush() -> None:
        if not block:
            return
        if all(line.startswith(("    ", "  ")) for line in block):
            out.extend(
                ["::", "", *("    " + line for line in textwrap.dedent("\n".join(block)).split("\n")), ""]
            )
        else:
            out.extend([_escaped("\n".join(line.strip() for line in block)).replace("\n", " "), ""])
        block.clear()

    for line in lines:
        if line.strip():
            block.append(line)
        else:
            flush()
    flush()
    return out


def _section(title: str, lines: list[str]) -> list[str]:
    """A titled section: a list of its entries, or one paragraph where it has none."""
    entries: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).split("\n"):
        if not line.strip():
            continue
        if entries and line.startswith(" "):
            entries[-1] += " " + line.strip()
        else:
            entries.append(line.strip())
    named = [_ENTRY.match(entry) for entry in entries]
    out = [f"**{title}**", ""]
    if len(entries) > 1 and all(named[:1]):
        for entry, match in zip(entries, named, strict=True):
            text = f"``{match[1]}``: {_escaped(match[2])}" if match else _escaped(entry)
            out += [f"- {text}"]
    else:
        out.append(_escaped(" ".join(entries)))
    return [*out, ""]


def to_rst(lines: list[str]) -> list[str]:
    """Convert one docstring, as autodoc has dedented it."""
    out: list[str] = []
    plain: list[str] = []
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        found = _SECTION.match(line)
        if not found:
            plain.append(line)
            continue
        out += _paragraphs(plain)
        plain = []
        body = [line[found.end() :]] if line[found.end() :].strip() else []
        while (
            rest
            and (not rest[0].strip() or rest[0].startswith(" "))
            and not (not rest[0].strip() and len(rest) > 1 and not rest[1].startswith(" "))
        ):
            body.append(rest.pop(0))
        if len(body) > 1 and not line[found.end() :].strip():
            out += _section(found[1].capitalize(), body)
        else:
            out += _section(found[1].capitalize(), [" ".join(part.strip() for part in body)])
    return out + _paragraphs(plain)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
