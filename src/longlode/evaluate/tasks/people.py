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
