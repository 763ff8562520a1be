"""Procedures that the model has to write out step by step: path traversal, countdown, belief tracking.

After LongProc (arXiv 2501.05414), whose other three need data. The model writes the whole procedure, which rules judge:
`hard` is the final answer, `steps` the share of lines before the first wrong one. The surprisal is that of the right
procedure. Ours have shorter instructions than the published prompts, one worked example, and invented names.
"""

import itertools
import random
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from longlode.evaluate.tasks.base import MAIN, Example, Metric, Scores
from longlode.evaluate.tasks.generated import GeneratedTask, Question
from longlode.evaluate.tasks.people import FIRST_NAMES, MAX_PLACES, place_names
from longlode.evaluate.tasks.words import NOUNS

END = "\nEND"
_METRICS = (
    Metric(
        "hard",
        "the written procedure ends with the right answer, the mean over samples",
        "share",
        "higher",
        words="procedures with the right answer",
        headline=True,
        chance=0.0,
    ),
    Metric("steps", "lines written before the first wrong one", "share", "higher", words="right steps"),
    Metric("smooth", "log-probability of the right procedure", "nats/token", "higher"),
)


class ProcedureTask(GeneratedTask):
    """A task whose one answer is the text of a procedure, a line per step. Subclasses write `is_right` too."""

    suites = ("procedures",)
    metrics = _METRICS
    always_writes: ClassVar[bool] = True
    stop = (END,)

    @abstractmethod
    def is_right(self, answer: str, written: str) -> bool:
        """Tell if a written procedure ends as it should. Args: answer, the right procedure."""

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row: log-probability of the right procedure; `judge` adds the rest."""
        return [{"smooth": -scores[MAIN][0].mean_nats}]

    def judge(self, example: Example, written: Sequence[str]) -> dict[str, Any]:
        """The final answer, and the lines before the first wrong one, of all lines of the right procedure."""
        answer = example.target.strip().removesuffix(END)
        right = [self.is_right(answer, text.strip()) for text in written]
        steps = [right_lines(answer, text.strip()) for text in written]
        return {"hard": sum(right) / len(right), "steps": sum(steps) / len(steps)}

    def _asked(self, context: str, ask: str, lines: Sequence[str], num_steps: int) -> Question:
        answer = "\n".join(lines) + END
        return Question(context, ask, (answer,), meta={"depth": None, "num_steps": num_steps})


def right_lines(answer: str, written: str) -> float:
    """Share of the lines of `answer` that `written` begins with."""
    wanted, got = answer.split("\n"), written.split("\n")
    same = 0
    while same < min(len(wanted), len(got)) and wanted[same].strip() == got[same].strip():
        same += 1
    return same / len(wanted)


_WAYS = ("bus", "train", "plane", "ferry")
_ROUTE = "Each city has one connection, one way. Write the route, a line per step, then END.\n"


class PathTraversal(ProcedureTask):
    """The route between two cities, each of which leads to one other."""

    name = "path_traversal"
    about = "the route from one city to another, where each city leads to one other, step by step"
    smallest = 2
    largest = MAX_PLACES // 3 - 10

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` steps among twice as many connections; the example has three steps."""
        shown, shown_ask, shown_lines = self._world(3, rng)
        context, ask, lines = self._world(size, rng)
        example = f"{shown}{shown_ask} {chr(10).join(shown_lines)}{END}\n\n"
        return self._asked(_ROUTE + example + context, ask, lines, size)

    def is_right(self, answer: str, written: str) -> bool:
        """Every line of the route, and nothing more."""
        return right_lines(answer, written) == 1.0 and written.count("\n") == answer.count("\n")

    def _world(self, size: int, rng: random.Random) -> tuple[str, str, list[str]]:
        names = place_names(rng, 2 * size + 1)
        route, others = names[: size + 1], names[size + 1 :]
        links = [(a, rng.choice(_WAYS), b) for a, b in itertools.pairwise(route)]
        lines = [f"From {a}, take a {way} to {b}." for a, way, b in links]
        links += [(a, rng.choice(_WAYS), rng.choice([b for b in names[:40] if b != a])) for a in others]
        rng.shuffle(links)
        text = "".join(f"You can travel from {a} to {b} by {way}.\n" for a, way, b in links)
        return text, f"The route from {route[0]} to {route[-1]}:\n", lines


_COUNTDOWN = (
    "Reach the target with all four numbers, each used once, by +, -, * and / on two of them at a time, the larger "
    "first. Results are whole, positive and at most 2000. Try the pairs in order, write each trial, then the three "
    "equations after SOLUTION, then END.\n"
)
_MOST = 2000


class Countdown(ProcedureTask):
    """Search for an expression of four numbers, in a fixed order."""

    name = "countdown"
    about = "the search, trial by trial, for an expression of four numbers that comes to a target"
    smallest = 4
    largest = 600

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """A target that the search first reaches at its trial `size` or the last before it that has one."""
        shown, shown_ask, shown_lines, _ = self._search(4, rng)
        context, ask, lines, trials = self._search(size, rng)
        example = f"{shown}{shown_ask} {chr(10).join(shown_lines)}{END}\n\n"
        return self._asked(_COUNTDOWN + example + context, ask, lines, trials)

    def is_right(self, answer: str, written: str) -> bool:
        """Three right equations after SOLUTION that use the four numbers and end in the target."""
        _, found, equations = written.partition("SOLUTION\n")
        return bool(found) and solves(equations, *_given(answer))

    def _search(self, size: int, rng: random.Random) -> tuple[str, str, list[str], int]:
        numbers = tuple(rng.sample(range(2, 100), 4))
        trials: list[str] = []
        reached: dict[int, int] = {}
        paths: dict[int, tuple[str, ...]] = {}
        for line, result, path in search(numbers):
            if len(trials) == size:
                break
            trials.append(line)
            if result is not None:
                reached.setdefault(result, len(trials))
                paths.setdefault(result, path)
        target = max(reached, key=lambda one: reached[one])
        lines = [*trials[: reached[target]], "SOLUTION", *paths[target]]
        context = f"Numbers: {' '.join(map(str, numbers))}\nTarget: {target}\n"
        return context, "Search:\n", lines, reached[target]


def search(
    numbers: tuple[int, ...], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, int | None, tuple[str, ...]]]:
    """All trials, depth first: the line, the number reached (None where some are left), and the equations so far."""
    for one in range(len(numbers)):
        for other in range(one + 1, len(numbers)):
            large, small = max(numbers[one], numbers[other]), min(numbers[one], numbers[other])
            rest = tuple(number for place, number in enumerate(numbers) if place not in (one, other))
            results = [("+", large + small), ("-", large - small), ("*", large * small)]
            results += [("/", large // small)] if large % small == 0 else []
            for sign, result in results:
                if not 0 < result <= _MOST:
                    continue
                equation = f"{large} {sign} {small} = {result}"
                left = (*rest, result)
                equations = (*path, equation)
                if len(left) == 1:
                    yield equation, result, equations
                else:
                    yield f"{equation}, left {' '.join(map(str, left))}", None, equations
                    yield from search(left, equations)


def _given(answer: str) -> tuple[list[int], int]:
    """The four numbers and the target of a right procedure: what its equations use and do not make, and its last."""
    equations = answer.partition("SOLUTION\n")[2].strip().split("\n")
    used = [int(part) for line in equations for part in line.split(" ")[0:3:2]]
    made = [int(line.split(" = ")[1]) for line in equations]
    for number in made[:-1]:
        used.remove(number)
    return used, made[-1]


def solves(equations: str, numbers: Sequence[int], target: int) -> bool:
    """Tell if lines `a + b = c` are right, use each number once, and end in the target."""
    left = list(numbers)
    result = None
    for line in equations.strip().split("\n"):
        parts = line.strip().split(" ")
        if len(parts) != 5 or parts[3] != "=" or not all(part.isdigit() for part in parts[0::2]):
            return False
        first, second, result = (int(part) for part in parts[0::2])
        right = {"+": first + second, "-": first - second, "*": first * second}.get(parts[1])
        if parts[1] == "/":
            right = first // second if second and first % second == 0 else None
        if right != result or first not in left:
            return False
        left.remove(first)
        if second not in left:
            return False
        left.remove(second)
        left.append(result)
    return left == [target]


_ROOMS = ("kitchen", "cellar", "attic", "garden", "library", "workshop", "hall", "study")
_SPOTS = ("table", "shelf", "chest", "bench")
_BELIEFS = (
    "Whoever is in the same place as a thing sees it. Track where a person is, where an object is, and where the "
    "person believes that it is, a line per step, then the final answer, then END.\n"
)


class BeliefTracking(ProcedureTask):
    """Beliefs of a person on the place of an object, after every step of a story."""

    name = "belief_tracking"
    about = "where a person believes an object to be, after every step of a story of moves"
    smallest = 2

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` steps of two people and two objects; the example has three."""
        shown, shown_ask, shown_lines = self._story(3, rng)
        context, ask, lines = self._story(size, rng)
        example = f"{shown}{shown_ask} {chr(10).join(shown_lines)}{END}\n\n"
        return self._asked(_BELIEFS + example + context, ask, lines, size)

    def is_right(self, answer: str, written: str) -> bool:
        """The same last line."""
        return written.split("\n")[-1].strip() == answer.split("\n")[-1]

    def _story(self, size: int, rng: random.Random) -> tuple[str, str, list[str]]:
        people, objects = rng.sample(FIRST_NAMES, 2), rng.sample(NOUNS, 2)
        rooms = rng.sample(_ROOMS, 2)
        at = {person: rng.choice(rooms) for person in people}
        lies = {thing: (rng.choice(rooms), rng.choice(_SPOTS)) for thing in objects}
        who, what = people[0], objects[0]
        believed: tuple[str, str] | None = None
        told = [
            "; ".join(
                [f"{person} is in the {at[person]}" for person in people]
                + [f"the {thing} is on the {room}'s {spot}" for thing, (room, spot) in lies.items()]
            )
        ]
        states = []
        for number in range(size + 1):
            if number:
                told.append(_step(rng, people, rooms, at, lies))
            if at[who] == lies[what][0]:
                believed = lies[what]
            states.append(
                f"Step {number}: {who} in {at[who]}; {what} on {_place(lies[what])}; believed {_place(believed)}"
            )
        story = "".join(f"Step {number}: {line}.\n" for number, line in enumerate(told))
        ask = f"Where does {who} believe the {what} is?\n"
        return story, ask, [*states, f"Answer: {_place(believed)}"]


def _step(
    rng: random.Random,
    people: Sequence[str],
    rooms: Sequence[str],
    at: dict[str, str],
    lies: dict[str, tuple[str, str]],
) -> str:
    """Change the world by one move and say it: a person goes to the other room, or moves an object of theirs."""
    person = rng.choice(people)
    near = [thing for thing, (room, _) in lies.items() if room == at[person]]
    if not near or rng.random() < 0.5:
        at[person] = rooms[1 - rooms.index(at[person])]
        return f"{person} goes to the {at[person]}"
    thing = rng.choice(near)
    spot = rng.choice([one for one in _SPOTS if one != lies[thing][1]])
    lies[thing] = (at[person], spot)
    return f"{person} moves the {thing} to the {at[person]}'s {spot}"


def _place(place: tuple[str, str] | None) -> str:
    return "nowhere" if place is None else f"the {place[0]}'s {place[1]}"
