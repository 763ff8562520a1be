"""Explanation of a document on the terminal: announced words in their two places, strong pairs with both texts."""

import math
import re
from typing import Any

from rich.panel import Panel
from rich.text import Text

from longlode.cli.console import plain, say, stdout, table
from longlode.cli.explain_profile import show_profile

HIGHLIGHT = "bold yellow"
NUM_HIGHLIGHTED = 8
"""Tokens of a pair that are highlighted and named."""
FACTORS = {
    "order": "passages need the text before them",
    "seams": "rare words link both sides of every cut",
    "names": "rare words come back far away",
}
"""Meaning of each factor of the coherence score."""


def show_explanation(found: dict[str, Any]) -> None:
    """Print what `api.explanation.explain` gave."""
    if found.get("explanation", {}).get("kind") == "profile":
        show_profile(found)
    else:
        _show_coherence(found)
    if "pairs" in found:
        _show_pairs(found)


def _show_coherence(found: dict[str, Any]) -> None:
    rows = [
        ("document", found["id"]),
        ("tokens", f"{found['num_tokens']:,} ({found['num_segments']:,} segments of {found['segment']})"),
        ("coherence score", _score(found)),
    ]
    for name, probability in found.get("factors", {}).items():
        rows.append((f"   {name}", f"{probability:.1%}  {FACTORS[name]}"))
    table("Document", ("what", ""), rows)
    if found["seam"] is not None:
        _show_seam(found["seam"])
    if found["order_contrast"] is not None:
        _show_words(found)


def _show_pairs(found: dict[str, Any]) -> None:
    first, stop = found["segments_read"]
    if not found["pairs"]:
        say(f"No pair of segments: the document has {found['num_segments']} of {found['segment']} tokens.")
        return
    say(
        f"[bold]Strongest pairs[/] among segments {first} to {stop - 1}: what an earlier text takes off a later one"
    )
    for pair in found["pairs"]:
        _show_pair(pair)


def _score(found: dict[str, Any]) -> str:
    if found["score"] is None:
        return f"none: {found['reason']}"
    odds = f"{1 / (1 + math.exp(-found['score'])):.1%}"
    return (
        f"{found['score']:.2f} +- {found['score_se']:.2f} (standard error) nats of log-odds: {odds} one text"
    )


def _show_seam(seam: dict[str, Any]) -> None:
    say(
        f"[bold]Weakest boundary[/]: of the rare words in the {seam['span']} words after it, {seam['share']:.0%} by "
        f"weight occur in the {seam['span']} before it (typical of this document: {seam['typical']:.0%})"
    )
    before, after = (re.sub(r"\s+", " ", plain(seam[part])) for part in ("before", "after"))
    line = Text(f"{'at ' + format(seam['character'], ','):>20}  ...", style="dim")
    line.append(before.lstrip(), style="not dim")
    line.append(" | ", style=f"not dim {HIGHLIGHT}")
    line.append(after.rstrip(), style="not dim")
    stdout().print(line.append("..."), soft_wrap=True)
    stdout().print()


def _show_words(found: dict[str, Any]) -> None:
    words = found["announcements"]
    if not words:
        say("No word is announced more often than any other part of the document would announce it.")
        return
    rows = [
        (
            one["word"].strip() or repr(one["word"]),
            one["contribution_nats"],
            f"{one['num_announced']} of {one['num_uses']}",
            f"{one['expected']:.0%}",
            one["used"]["token"] - one["announced"]["token"],
        )
        for one in words
    ]
    columns = ("word", "adds nats", "uses announced", "expected", "tokens back")
    near, span = found["near"], found["span"]
    table(f"Words announced in the {span:,} tokens before the last {near}", columns, rows)
    console = stdout()
    for one in words:
        for name in ("announced", "used"):
            console.print(_in_context(name, one[name]), soft_wrap=True)
        console.print()


def _in_context(label: str, place: dict[str, Any]) -> Text:
    """One line: the token highlighted between the words around it."""
    line = Text(f"{label:>9} at {place['token']:>9,}  ...", style="dim")
    before, word, after = (re.sub(r"\s+", " ", plain(place[part])) for part in ("before", "text", "after"))
    line.append(before.lstrip(), style="not dim")
    line.append(word, style=f"not dim {HIGHLIGHT}")
    line.append(after.rstrip(), style="not dim")
    return line.append("...")


def _show_pair(pair: dict[str, Any]) -> None:
    order = sorted(
        (piece for piece in pair["target_tokens"] if piece[1] is not None), key=lambda piece: -piece[1]
    )
    best = [piece for piece in order[:NUM_HIGHLIGHTED] if piece[1] > 0]
    least = best[-1][1] if best else float("inf")
    target = Text()
    for text, gain in pair["target_tokens"]:
        target.append(plain(text), style=HIGHLIGHT if gain is not None and gain >= least else "")
    source = Text(plain("".join(text for text, _ in pair["source_tokens"])))
    figures = f"strength {pair['strength']:.2f}, {pair['gain_nats']:.2f} nats per token"
    console = stdout()
    console.print(Panel(source, title=f"segment {pair['source']}", title_align="left", border_style="dim"))
    console.print(
        Panel(
            target,
            title=f"segment {pair['target']}, after segment {pair['source']}: {figures}",
            title_align="left",
        )
    )
    named = ", ".join(f"{plain(text).strip() or repr(text)} {gain:.1f}" for text, gain in best)
    console.print(Text(f"gained most (nats): {named}\n", style="dim"), soft_wrap=True)
