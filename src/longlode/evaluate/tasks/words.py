"""Plain English material for the generated tasks: words and sentences written for them, from no data set."""

import random
import uuid

_NOUNS = """
anchor apple apron arrow barrel basket beacon bell blanket bottle bracelet branch bridge bucket button
cabin candle canoe carpet castle chain chalk chimney clock cloud coat coin comb cradle crown cup curtain
desk dice door drum eagle engine feather fence flag flute forest fork fountain garden gate ghost glove
goat hammer harbour harp hat helmet horn island jacket jar jewel kettle key kite knife ladder lamp
lantern leaf lemon letter lily lizard magnet mango map marble mask meadow mirror mitten monkey mountain
mushroom nail needle nest net oar olive onion orchard oven owl paddle paint parrot pebble pencil pepper
piano pillow pirate planet plate plum pocket pond potato puppet quilt rabbit radio raft ribbon ring
robot rocket rope saddle sail salt sandal saw scarf school shell ship shovel silk soap spider spoon
stamp statue stone stove sugar sword table tent thimble thread tiger towel tower train tulip tunnel
umbrella valley vase velvet violin wagon walnut wheel whistle window wolf yarn zebra
"""
_ADJECTIVES = """
amber ancient blue brave bright broken busy calm clever cold copper curly dark deep dry dusty early
empty fancy gentle giant golden green grey happy heavy hidden hollow humble icy jolly kind late lazy
little lonely long loud lucky narrow noisy old pale plain polite proud purple quick quiet red rough
round rusty shiny short silent silver sleepy slow small smooth soft sour steep stormy sweet tall tiny
warm white wild wooden yellow young
"""

NOUNS = tuple(_NOUNS.split())
ADJECTIVES = tuple(_ADJECTIVES.split())

_PEOPLE = (
    "the baker",
    "my aunt",
    "a neighbour",
    "the teacher",
    "the driver",
    "her brother",
    "an old friend",
    "the nurse",
)
_DEEDS = (
    "walked along the shore",
    "talked about the weather",
    "waited for the late bus",
    "read the morning paper",
    "asked for some advice",
    "went home before dark",
    "laughed at the same joke",
    "cooked a simple meal",
    "looked out over the hills",
    "told a story about the winter",
)
_TIMES = (
    "In the morning",
    "Later that day",
    "On Sunday",
    "After lunch",
    "Some weeks ago",
    "Now and then",
    "As usual",
)


def filler_sentence(rng: random.Random) -> str:
    """One harmless sentence; 560 different ones."""
    return f"{rng.choice(_TIMES)} {rng.choice(_PEOPLE)} {rng.choice(_DEEDS)}."


def distinct_words(rng: random.Random, num: int) -> list[str]:
    """So many different words: plain nouns and adjectives while they last, else two nouns in one, at most 30,000."""
    plain = NOUNS + ADJECTIVES
    if num <= len(plain):
        return rng.sample(plain, num)
    pairs = rng.sample(range(len(NOUNS) ** 2), num)
    return [NOUNS[pair // len(NOUNS)] + NOUNS[pair % len(NOUNS)] for pair in pairs]


def random_uuid(rng: random.Random) -> str:
    """A version 4 UUID."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
