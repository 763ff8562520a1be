"""Findings of the demo in plain sentences: first the results, then the limits; each with its number of cases."""

from collections.abc import Mapping
from typing import Any

from longlode.demo.comparison import FAR, LABELS, NEAR, NUM_SEEDS, RANDOM, SCORE, Arm
from longlode.demo.curves import Gain
from longlode.demo.separation import Auc

DEFAULT, GZIP, OVERLAP, PROLONG = "default", "gzip", "overlap", "ProLong"
LIMITS = (
    "The text is source code of one library, whose words return more than those of prose; and the packaged weights of "
    "the score were fitted on other files of this library and on the same kinds of fake. Expect less on text that is "
    "unlike either; docs/mining.md has figures on prose, other languages and kinds that nothing was fitted on.",
    "ProLong was published with a far larger model and more pairs of segments per document (arXiv 2405.17915); its "
    "figures here are those of its formulas with this model, on a few documents, with wide intervals.",
)
ONE_MODEL = (
    "Nothing here shows that a model gets better by training on what scores best: one model was trained, for about a "
    "minute, to show that the path works. longlode demo --full compares training on three choices of text."
)
SMALL_MODELS = (
    "The training comparison is of models of about a million parameters and less than a million tokens, on source code "
    "in rows of 4,096 tokens: it says nothing about larger ones."
)


def about_score(found: Mapping[str, Mapping[str, Auc]]) -> list[str]:
    """Separation of real documents from each kind of fake by the default score. Args: found, kind -> signal -> AUC."""
    rows = {kind: signals[DEFAULT] for kind, signals in found.items() if DEFAULT in signals}
    if not rows:
        return ["The score could not be tested: no real or no fake document has a score."]
    told = [kind for kind, one in rows.items() if one.low > 0.5]
    wrong = [kind for kind, one in rows.items() if one.high < 0.5]
    rest = [kind for kind in rows if kind not in (*told, *wrong)]
    weakest = min(rows, key=lambda kind: rows[kind].value)
    mean = sum(one.value for one in rows.values()) / len(rows)
    sentences = [
        f"The default score tells real files from {_count(len(told), len(rows))} kinds of fake long text: its AUC is "
        f"{mean:.2f} in the mean, {rows[weakest].value:.2f} on the hardest kind, {weakest} (0.5 is chance, 1 perfect; "
        f"{_sizes(rows)})."
    ]
    if rest:
        sentences.append(
            f"At this number of documents it cannot be said to tell {_listed(rest)} from real files."
        )
    if wrong:
        sentences.append(f"It is upside down on {_listed(wrong)}: those fakes score above the real files.")
    return sentences


def about_other(found: Mapping[str, Mapping[str, Auc]], signal: str, how: str) -> list[str]:
    """Separation by another signal, beside the default score. Args: how, a clause that describes it."""
    rows = {kind: signals[signal] for kind, signals in found.items() if signal in signals}
    if not rows:
        return []
    mean = sum(one.value for one in rows.values()) / len(rows)
    told = sum(one.low > 0.5 for one in rows.values())
    wrong = [kind for kind, one in rows.items() if one.high < 0.5]
    upside = (
        f"; it puts fakes of the kind{'s' * (len(wrong) > 1)} {_listed(wrong)} above real files"
        if wrong
        else ""
    )
    return [
        f"{signal} ({how}) tells {_count(told, len(rows))} kinds: mean AUC {mean:.2f}{upside} ({_sizes(rows)})."
    ]


def about_selection(num_best: int, num_real_of_best: int, num_documents: int) -> str:
    """Sources of the best-ranked documents. Args: num_best, their number: as many as there are real ones."""
    return (
        f"Of the {num_best} best-ranked of {num_documents} documents, {num_real_of_best} are real, "
        f"{num_real_of_best / num_best:.0%}; a random draw would have {num_best / num_documents:.0%}."
    )


def about_pair(explained: list[dict[str, Any]]) -> list[str]:
    """Difference between the profiles of a glued and of a real document."""
    told = [(one, one["explanation"]) for one in explained if one["explanation"]["profile"]]
    if len(told) < 2 or any(one["gate"] is None or not one["profile"]["octaves"] for _, one in told):
        return []
    (real, first), (glued, second) = told
    far = max(one["first_tokens"] for one in first["profile"]["octaves"])
    gains = [
        next((o["gain_nats"] for o in one["profile"]["octaves"] if o["first_tokens"] == far), None)
        for one in (first, second)
    ]
    sides = [f"{gain:+.3f}" for gain in gains if gain is not None]
    adds = (
        f"context {far // 1024}k to {far // 512}k tokens back adds {' against '.join(sides)} nats per token; "
    )
    return [
        f"The real file of median score ({real['id']}) beside the glued one ({glued['id']}), n = 1 each: "
        f"{adds if len(sides) == 2 else ''}they are {first['gate']['probability']:.0%} and "
        f"{second['gate']['probability']:.0%} likely to be one text in its order."
    ]


def about_context(gains: Mapping[str, Gain], num_steps: int, num_tokens: int, few_tokens: int) -> list[str]:
    """Distance at which models use context. Args: gains, by model, the one trained here first."""
    sentences = []
    for number, (name, one) in enumerate(gains.items()):
        few = number == 0 and num_tokens < few_tokens
        sure = one.low is not None and one.low > 0
        if few and not sure:
            sentences.append(
                f"{name} read {num_tokens:,} tokens in {num_steps:,} steps: too few to say how far it reads "
                f"(n = {one.num_texts} files). More time: longlode demo --minutes 10"
            )
            continue
        training = f" after {num_steps:,} steps ({num_tokens:,} tokens)" if number == 0 else ""
        sentences.append(
            f"{name} {'reads far' if sure else 'shows no use of far context'}{training}: with {one.far:,} tokens of "
            f"context instead of {one.near:,} its loss on the same tokens changes by {-one.mean:+.3f} nats per token"
            f"{_interval(one)} (n = {one.num_texts} files that it has not read)."
            + (" These are too few steps to judge its loss by." if few else "")
        )
    return sentences


def about_training(arms: Mapping[str, Arm], num_tokens: int, few_tokens: int) -> list[str]:
    """Effects of a choice of text on training. Args: num_tokens, read by each model; few_tokens, too few to judge."""
    if num_tokens < few_tokens:
        return [
            f"The models of the training comparison read {num_tokens:,} tokens each: too few to compare the choices."
        ]
    labels, score = arms[LABELS], arms[SCORE]
    can = _sure(labels.loss_less_random) < 0 or _sure(labels.gain_less_random) > 0
    verdict = (
        "so a choice by order can make a difference at this size"
        if can
        else "so at this size no choice by order can be shown to help"
    )
    return [
        f"Training comparison ({NUM_SEEDS} seeds; {num_tokens:,} distinct tokens of the same files per model): text "
        f"chosen by its labels, all of it in order, changes the loss after {FAR:,} tokens by "
        f"{_difference(labels.loss_less_random)} nats per token against a random choice, and the gain from {NEAR} to "
        f"{FAR:,} tokens by {_difference(labels.gain_less_random)}; {verdict}.",
        f"What the default score chooses there is {score.in_order:.0%} text in order (random: "
        f"{arms[RANDOM].in_order:.0%}). It changes the loss by {_difference(score.loss_less_random)}, the gain by "
        f"{_difference(score.gain_less_random)}. {_verdict(score)}",
    ]


def _verdict(score: Arm) -> str:
    loss, gain = _sure(score.loss_less_random), _sure(score.gain_less_random)
    if not loss and not gain:
        return "Neither interval excludes 0: it made no difference that could be seen."
    parts = [
        *([f"a {'lower' if loss < 0 else 'higher'} loss"] if loss else []),
        *([f"{'more' if gain > 0 else 'less'} gain from far context"] if gain else []),
    ]
    return f"Its models have {' and '.join(parts)}."


def _sure(interval: tuple[float, float, float] | None) -> int:
    """The sign of a difference whose interval excludes 0, else 0."""
    if interval is None:
        return 0
    _, low, high = interval
    return 1 if low > 0 else -1 if high < 0 else 0


def _difference(interval: tuple[float, float, float] | None) -> str:
    return "-" if interval is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*interval)


def _interval(one: Gain) -> str:
    if one.low is None or one.high is None:
        return ", too few files for an interval"
    return f", 95 % interval {-one.high:+.3f} to {-one.low:+.3f}"


def _count(some: int, every: int) -> str:
    return f"all {every}" if some == every else f"{some} of {every}"


def _sizes(rows: Mapping[str, Auc]) -> str:
    fakes = sorted({one.num_fake for one in rows.values()})
    each = str(fakes[0]) if len(fakes) == 1 else f"{fakes[0]} to {fakes[-1]}"
    return f"{next(iter(rows.values())).num_real} real, {each} fakes per kind"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
