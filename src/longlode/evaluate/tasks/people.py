"""Names of invented people for the generated tasks."""

import random

_FIRST = """
Ada Alma Amos Anna Ansel Bela Berta Boris Cara Celia Clara Cyrus Dalia Daria Dora Edgar Edith Elena Elias Emil Enid
Esra Ezra Felix Flora Frida Gerda Gideon Greta Hanna Hector Hedy Hugo Ida Ilse Imre Ines Ivo Jonas Judit Karel Kira
Lars Leila Lena Linus Lotte Luka Mabel Magda Marek Milan Mira Nadia Nils Nora Olga Oskar Otis Paula Petra Quinn Rasmus
Rosa Ruben Sadie Selma Silas Sonja Stella Tamar Tessa Tilda Ulrich Ursula Vera Viktor Walter Wanda Yusuf Zelda
"""
_LAST = """
Abbott Archer Barlow Becker Bishop Brandt Carver Chandler Clay Cooper Dalton Drake Dyer Ellis Falk Fisher Fletcher
Foster Frost Garner Glover Grant Hale Harper Hayes Holt Horner Hunter Keller Knox Lang Larsen Lindgren Mason Mercer
Miller Moss Nolan Novak Palmer Parker Penn Porter Potter Quist Rhodes Sawyer Shepherd Slater Sommer Stone Tanner
Thorne Turner Tyler Vance Vogel Wagner Walker Weaver Webb Winter Wolfe York
"""
FIRST_NAMES = tuple(_FIRST.split())
LAST_NAMES = tuple(_LAST.split())


def full_names(rng: random.Random, num: int) -> list[str]:
    """So many different names of a first and a last one; there are 5,000 and more."""
    pairs = rng.sample(range(len(FIRST_NAMES) * len(LAST_NAMES)), num)
    return [f"{FIRST_NAMES[pair // len(LAST_NAMES)]} {LAST_NAMES[pair % len(LAST_NAMES)]}" for pair in pairs]


_PLACE_STARTS = """
Al Ash Bal Bar Bel Bran Cal Car Cor Dal Dor Elm Fal Fen Gal Gram Hal Har Hol Kel Ken Kir Lam Lan Lin Mal Mar Mel Mor Nor
Oak Pen Per Ral Red Rox San Sel Sher Stan Tam Tor Ul Val Ver Wal Wen West Wil Win
"""
_PLACE_MIDDLES = ("", "a", "e", "i", "o", "an", "en", "er", "in", "or")
_PLACE_ENDS = """
borough bridge bury by church dale den field ford gate ham haven holm lea ley mere mont mouth port stead ton vale wick
wood worth
"""
_PLACES = (_PLACE_STARTS.split(), _PLACE_MIDDLES, _PLACE_ENDS.split())
MAX_PLACES = len(_PLACES[0]) * len(_PLACES[1]) * len(_PLACES[2])


def place_names(rng: random.Random, num: int) -> list[str]:
    """So many different names of invented places, at most `MAX_PLACES`."""
    starts, middles, ends = _PLACES
    found = []
    for number in rng.sample(range(MAX_PLACES), num):
        number, end = divmod(number, len(ends))
        start, middle = divmod(number, len(middles))
        found.append(starts[start] + middles[middle] + ends[end])
    return found
