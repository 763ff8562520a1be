"""Solvers of the generated tasks: each reads a question's text, never how it was made, and gives the answers."""

import json
import re
import statistics
from collections import Counter, defaultdict


def needles(q):
    """All values of the asked keys, in the order in which the question names them, then of the text."""
    found = defaultdict(list)
    for key, value in re.findall(r"One of the special magic \w+ for (\S+) is: ([\w-]+)\.", q.context):
        found[key].append(value)
    (named,) = re.findall(r"name for (.*), in the order", q.ask)
    return [value for key in re.split(r", | and ", named) for value in found[key]]


def variables(q):
    text = q.context.rsplit("\n\n", 1)[1]  # after the worked example
    (value,) = re.findall(r"have the value (\d+)", q.ask)
    known = []
    for name, source in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", text):
        if source == value or source in known:
            known.append(name)
    return known


def common_words(q):
    words = re.findall(r"\d+\. (\w+)", q.context.rsplit("\n\n", 1)[1])
    return sorted(word for word, _ in Counter(words).most_common(10))


def frequent_words(q):
    words = Counter(re.findall(r"[a-z]{6}\b", q.context.split(":", 1)[1]))
    return [word for word, _ in words.most_common(3)]


def number_pairs(q):
    known = dict(re.findall(r"(\d+) (\d+);", q.context))
    asked = [re.search(r"\d+", text)[0] for text in (q.ask, *q.joint)]
    return [known[key] for key in asked]


def groups(q):
    kept = {}
    for line in q.context.strip().splitlines():
        room, rest = line.rstrip(".").split(": ", 1)
        kept |= {(room, place): value for place, value in re.findall(r"(\w+) = (\w+)", rest)}
    asked = [re.search(r"(\w+): (\w+) =", text.replace("Again: ", "")).groups() for text in (q.ask, *q.joint)]
    return [kept[pair] for pair in asked]


def pairs_of(q):
    return json.loads(
        q.context.split("\n")[1], object_pairs_hook=lambda pairs: pairs
    )  # a key may stand there twice


def json_values(q):
    known = dict(pairs_of(q))
    return [known[key] for key in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", q.ask)]


def marked_values(q):
    return [value for key, value in pairs_of(q) if key.startswith("*")]


def chains(q):
    """The end of the longest walk from each named key, by trying every branch."""
    links = defaultdict(list)
    for key, value in pairs_of(q):
        links[key].append(value)

    def walk(name):
        ends = [walk(value) for value in links.get(name, [])]
        best = max(ends, default=(-1, name))
        return best[0] + 1, best[1]

    return [walk(key)[1] for key in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", q.ask)]


def phone_number(q):
    known = dict(line.split(": ") for line in q.context.strip().splitlines())
    return [known[q.ask.rsplit("Looked up: ", 1)[1].rstrip(":")]]


def copied(q):
    return q.context.strip().splitlines()[1:]


def passage(q):
    return re.search(r"She wrote: ([a-z ]+)\.", q.context)[1].split()[5:]


def parity(q):
    return ["odd" if q.context.count("1") % 2 else "even"]


def arithmetic(q):
    (line,) = re.findall(r"^\d.*$", q.context, re.M)
    assert re.fullmatch(r"[0-4]( [-+*] [0-4])+", line)
    return [str(eval(line) % 5)]  # the pattern above is all that is evaluated


def disjoint(q):
    first, second = (
        set(line.rstrip(".").split(": ")[1].split(", ")) for line in q.context.strip().splitlines()
    )
    return ["yes" if first & second else "no"]


def list_operations(q):
    """A stack machine over the tokens, from right to left."""
    operators = {
        "[MIN": min,
        "[MAX": max,
        "[MED": lambda values: int(statistics.median(values)),
        "[SM": lambda values: sum(values) % 10,
    }
    stack = []
    for token in reversed(q.context.splitlines()[1].split()):
        if token in operators:
            values = []
            while stack[-1] != "]":
                values.append(stack.pop())
            stack[-1] = operators[token](values)
        else:
            stack.append(token if token == "]" else int(token))
    (result,) = stack
    return [str(result)]


def symbol_values(q):
    """The digits after the last place of each asked key, up to the next letter."""
    found = re.findall(r"([a-z](?: [a-z])*) ((?:\d ?)+;|\d)", q.context)
    fuzzy = ";" in q.context
    known = {key if fuzzy else key.split()[-1]: value for key, value in found}
    asked = [re.sub(r"^\nAgain: ", "", text).strip() for text in (q.ask, *q.joint)]
    return [known[key] for key in asked]


def without_blanks(q):
    return q.context.replace(".", "").split()


def next_symbols(q):
    """What came after the longest run of the symbols before that the strings have; whole beginnings come first."""
    shown = [text.split() for text in q.context.rstrip("|").split("|")]
    seen = {}
    for text in shown:
        for stop in range(len(text)):
            for start in range(stop + 1):
                seen[(start == 0, *text[start:stop])] = text[stop]
    before, answers = q.ask.split(), []
    for joint in (*q.joint, ""):
        runs = [(True, *before), *((False, *before[start:]) for start in range(len(before)))]
        runs += [(True, *run[1:]) for run in runs[1:]]
        answers.append(
            seen[max((run for run in runs if run in seen), key=lambda run: (run == runs[0], len(run)))]
        )
        before += [answers[-1], *joint.split()]
    return answers


ORACLES = {
    "fuzzy_recall": symbol_values,
    "noisy_recall": symbol_values,
    "selective_copying": without_blanks,
    "regular_language": next_symbols,
    "phonebook": phone_number,
    "copy": copied,
    "verbatim_memory": passage,
    "parity": parity,
    "modular_arithmetic": arithmetic,
    "disjoint_small_first": disjoint,
    "disjoint_large_first": disjoint,
    "listops": list_operations,
    **dict.fromkeys(
        [
            "niah_single_1",
            "niah_single_2",
            "niah_single_3",
            "niah_multikey_1",
            "niah_multikey_2",
            "niah_multikey_3",
            "niah_multivalue",
            "niah_multiquery",
        ],
        needles,
    ),
    "variable_tracking": variables,
    "common_words": common_words,
    "frequent_words": frequent_words,
    "mqar": number_pairs,
    "joint_recall": groups,
    "json_recall": json_values,
    "needles_many": json_values,
    "needles_conditional": marked_values,
    "needle_thread": chains,
    "needle_threads": chains,
    "needle_branches": chains,
}
