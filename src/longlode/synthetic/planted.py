"""Documents with dependencies at known positions: ground truth for scores.

Background words are drawn independently, so nothing in them depends on anything. Names are separate words; each
occurs once as a definition and then in `num_uses` later uses. Occurrences of a planted name are one `distance` apart;
those of any other name are at random positions. Both are equally frequent, so a score that differs between them has
measured order, not words.
"""

import random

from longlode.core.errors import ConfigError

NUM_COMMON = 2000
_WORDS_PER_LINE = 12
_SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")
_JITTER = 0.1
_NUM_TEMPLATES = 5


def planted_document(
    rng: random.Random,
    *,
    num_words: int,
    num_planted: int,
    num_names: int = 64,
    distance: int = 512,
    num_uses: int = 1,
    repeated_share: float = 0.0,
) -> str:
    """Make a document of `num_words` words in lines of 12; `num_planted` of its `num_names` names are planted.

    Args: distance, words from one occurrence of a planted name to the next, within a tenth; num_uses, later uses of
      each name; repeated_share, the share of lines that are copies of five fixed ones.
    Raises: ConfigError when a planted name does not fit into the document.
    """
    reach = int(num_uses * distance * (1 + _JITTER)) + 1
    if num_planted > num_names or reach >= num_words:
        raise ConfigError(
            f"{num_planted} of {num_names} names at {num_uses} times {distance} words do not fit into {num_words} "
            "words; plant no more names than there are, over less than the document."
        )
    words = _background(rng, num_words, repeated_share)
    free = list(range(num_words))
    rng.shuffle(free)
    taken: set[int] = set()
    for number in range(num_names):
        name = "Q" + _word(number + NUM_COMMON)
        if number < num_planted:
            wanted = [rng.randrange(num_words - reach)]
            for _ in range(num_uses):
                wanted.append(wanted[-1] + round(distance * rng.uniform(1 - _JITTER, 1 + _JITTER)))
        else:
            wanted = [free.pop() for _ in range(num_uses + 1)]
        for place in wanted:
            while place in taken:
                place = (place + 1) % num_words
            taken.add(place)
            words[place] = name
    lines = (words[start : start + _WORDS_PER_LINE] for start in range(0, num_words, _WORDS_PER_LINE))
    return "\n".join(" ".join(line) for line in lines)


def _background(rng: random.Random, num_words: int, repeated_share: float) -> list[str]:
    """Draw lines of words by Zipf's law, some of them replaced by fixed ones."""
    weights = [1 / (rank + 1) for rank in range(NUM_COMMON)]
    num_lines = -(-num_words // _WORDS_PER_LINE)
    drawn = rng.choices(range(NUM_COMMON), weights, k=(num_lines + _NUM_TEMPLATES) * _WORDS_PER_LINE)
    words = [_word(number) for number in drawn]
    lines = [words[start : start + _WORDS_PER_LINE] for start in range(0, len(words), _WORDS_PER_LINE)]
    templates, lines = lines[:_NUM_TEMPLATES], lines[_NUM_TEMPLATES:]
    for number in range(num_lines):
        if rng.random() < repeated_share:
            lines[number] = rng.choice(templates)
    return [word for line in lines for word in line][:num_words]


def _word(number: int) -> str:
    """Make a word for each number: its digits in base 15, as syllables."""
    syllables = []
    while True:
        number, digit = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[digit])
        if not number:
            return "".join(syllables)
