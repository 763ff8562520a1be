"""The explanation of a profile score on the terminal: gate, boundary, octaves, and the words that carry the gain."""

import re
from typing import Any

from rich.text import Text

from longlode.cli.console import plain, say, stdout, table

HIGHLIGHT = "bold yellow"
NUM_SIGNS = 3
_LEAST_NATS = 0.05
"""Signs that move the log-odds by less are not shown, nats."""


def show_profile(found: dict[str, Any]) -> None:
    """Print a document's `explanation` of the kind "profile"."""
    told = found["explanation"]
    gate, profile = told["gate"], told["profile"]
    rows: list[tuple[str, object]] = [
        ("document", found["id"]),
        ("length", f"{told['num_words']:,} words, {told['num_tokens']:,} tokens of 4 bytes"),
        ("profile score", _score(told)),
    ]
    if gate is not None:
        odds = f"{gate['log_odds']:+.2f} nats of log-odds, {gate['probability']:.1%}"
        rows += [("one text in its order", odds), ("most likely else", _rivals(gate["rivals"]))]
        if len(gate["parts"]) > 1:
            whole, *stretches = (f"{nats:+.2f}" for nats in gate["parts"])
            rows.append(
                ("of which", f"the whole {whole}, stretches of it {', '.join(stretches)}; their mean counts")
            )
    if profile is not None and profile["octaves"]:
        rows += [
            ("far gain", f"{profile['gain_nats']:.4f} +- {profile['gain_se']:.4f} nats per token and octave"),
            ("dependency length", f"{profile['dependency_tokens']:,} tokens"),
            ("subtracted", _control(profile)),
        ]
    table("Document", ("what", ""), rows)
    if gate is not None:
        _show_signs(gate["signs"])
    if told["boundary"] is not None:
        _show_boundary(told["boundary"])
    if profile is not None and profile["octaves"]:
        _show_octaves(profile)
        _show_carriers(profile["carriers"])


def _score(told: dict[str, Any]) -> str:
    if told["score"] is None:
        return f"none: {told['reason']}"
    error = "" if told["score_se"] is None else f" +- {told['score_se']:.2f} (standard error)"
    return f"{told['score']:.2f}{error}" + (f"; {told['reason']}" if told["reason"] else "")


def _rivals(rivals: list[dict[str, Any]]) -> str:
    return "; ".join(f"{one['about']} ({one['share']:.0%})" for one in rivals if one["share"] >= 0.01)


def _control(profile: dict[str, Any]) -> str:
    name, share = profile["control"], profile["known_share"]
    if name == "own":
        return f"the document's own rate of each word; no table knows its language (best: {share:.0%} of its words)"
    return f"what other texts hold, by the table {name.partition(':')[2]} ({share:.0%} of its words known)"


def _show_signs(signs: list[dict[str, Any]]) -> None:
    for title, chosen in (
        ("For one text in its order", [one for one in signs if one["nats"] >= _LEAST_NATS]),
        ("Against it", [one for one in signs if one["nats"] <= -_LEAST_NATS]),
    ):
        if chosen:
            rows = [
                (f"{one['nats']:+.2f}", one["name"], one["about"], one["feature"])
                for one in chosen[:NUM_SIGNS]
            ]
            table(f"{title}, beside usual text", ("nats", "sign", "what it measures", "most by"), rows)


def _show_boundary(boundary: dict[str, Any]) -> None:
    say(
        f"[bold]Weakest boundary[/]: {boundary['span_tokens']:,} tokens on either side share {boundary['share']:.2f} "
        f"of what passages as far apart share in this document (median over cuts: {boundary['typical']:.2f})"
    )
    line = Text(f"{'at token ' + format(boundary['token'], ','):>20}  ...", style="dim")
    line.append(_flat(boundary["before"]).lstrip(), style="not dim")
    line.append(" | ", style=f"not dim {HIGHLIGHT}")
    line.append(_flat(boundary["after"]).rstrip(), style="not dim")
    stdout().print(line.append("..."), soft_wrap=True)
    stdout().print()


def _show_octaves(profile: dict[str, Any]) -> None:
    rows = [
        (
            f"{one['first_tokens'] // 1024}k to {one['last_tokens'] // 1024}k",
            f"{one['gain_nats']:+.4f}",
            f"{one['error_nats']:.4f}",
            (one["first_tokens"] < (profile["dependency_tokens"] or 0) and "yes") or "-",
        )
        for one in profile["octaves"]
    ]
    table("What context adds, nats per token", ("tokens back", "gain", "error", "pays"), rows)


def _show_carriers(carriers: list[dict[str, Any]]) -> None:
    if not carriers:
        say("No word and no pair comes back from far more often than in other texts.")
        return
    rows = [
        (
            one["text"],
            f"{one['gain_nats']:.4f}",
            one["num_returns"],
            one["returns"][0]["distance_tokens"] if one["returns"] else None,
        )
        for one in carriers
    ]
    columns = ("word or pair", "adds nats per token", "comes back", "furthest, tokens back")
    table("What carries the far gain", columns, rows)
    console = stdout()
    for one in carriers:
        if one["returns"]:
            console.print(_in_context("before", one["returns"][0]["before"]), soft_wrap=True)
            console.print(_in_context("again", one["returns"][0]["again"]), soft_wrap=True)
            console.print()


def _in_context(label: str, place: dict[str, Any]) -> Text:
    line = Text(f"{label:>9} at {place['token']:>9,}  ...", style="dim")
    line.append(_flat(place["before"]).lstrip(), style="not dim")
    line.append(_flat(place["text"]), style=f"not dim {HIGHLIGHT}")
    line.append(_flat(place["after"]).rstrip(), style="not dim")
    return line.append("...")


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", plain(text))
