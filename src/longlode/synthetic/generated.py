"""Controls that need no input text: logs, tables and the pages of a web site. See `synthetic.controls`."""

import json
import random
from collections.abc import Callable, Sequence

from longlode.core.errors import ConfigError

_APPLICATION_LINES = (
    "request {verb} /api/v1/{service}/{number} completed in {small}ms status={code}",
    "connection from 10.{byte}.{byte2}.{byte3} accepted by worker-{digit}",
    "cache miss for key {service}:{number} loading from shard={digit}",
    "heartbeat ok service={service} uptime={number}s",
    "retrying job {number} attempt {digit} of 9 after timeout",
    "user {number} logged in from 192.168.{byte}.{byte2}",
    "flushed {number} events to topic {service}-events partition {digit}",
    "disk usage on /dev/sd{letter} at {percent}% of {number} MB",
    "lock {service}.{digit} held for {small}ms by thread-{digit}",
    "scheduled task {service}_cleanup finished, removed {small} entries",
)
_SERVICES = ("auth", "billing", "gateway", "search", "cart", "mailer", "indexer", "scheduler")
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR")
_PATHS = ("/", "/index.html", "/login", "/static/app.js", "/favicon.ico", "/img/logo.png", "/search")
_PLACES, _GOODS, _MENU = (
    text.split(",")
    for text in (
        "Aldport,Brenwick,Corland,Dunmere,Eastholm,Farley,Gresham,Holton,Ivybridge,Kelby,Larne,Marston",
        "bolt,bracket,cable,clamp,filter,gasket,hinge,lamp,nozzle,panel,pump,relay,sensor,spring,valve,washer",
        "Home,News,Products,About us,Contact,Careers,Support,Blog,Events,Shop,Community,Help centre,Press",
    )
)


def synthetic_log(*, num_chars: int, rng: random.Random) -> str:
    """Write machine log lines with rising time stamps, to `num_chars`.

    The format is one of four: an application's log, a web server's, JSON lines, the system log of one machine; two to
    six message templates are used.
    """
    templates = rng.sample(_APPLICATION_LINES, rng.randint(2, 6))
    write: Callable[[int, str, random.Random], str] = rng.choice(
        (_application_line, _access_line, _json_line, _system_line)
    )
    lines: list[str] = []
    total, second = 0, rng.randrange(86_400)
    while total < num_chars:
        second += rng.randint(0, 3)
        lines.append(write(second, _message(templates, rng), rng))
        total += len(lines[-1]) + 1
    return "\n".join(lines)[:num_chars]


def synthetic_table(*, num_chars: int, rng: random.Random) -> str:
    """Write the rows of one table (comma-separated, Markdown, or columns of fixed width), to `num_chars`."""
    style = rng.choice(("csv", "markdown", "columns"))
    makers: dict[str, Callable[[int], str]] = {
        "id": lambda row: str(1000 + row),
        "place": lambda row: rng.choice(_PLACES),
        "item": lambda row: f"{rng.choice(_GOODS)} {rng.choice('ABCDE')}{rng.randint(1, 40)}",
        "quantity": lambda row: str(rng.randint(1, 500)),
        "price": lambda row: f"{rng.uniform(1, 900):.2f}",
        "date": lambda row: f"20{rng.randint(10, 25)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        "status": lambda row: rng.choice(("open", "shipped", "returned", "cancelled")),
        "share": lambda row: f"{rng.random():.3f}",
    }
    columns = rng.sample(sorted(makers), rng.randint(4, 7))
    lines = [_table_line(columns, style)]
    if style == "markdown":
        lines.append("|" + "---|" * len(columns))
    total = 0
    while total < num_chars:
        row = len(lines)
        lines.append(_table_line([makers[name](row) for name in columns], style))
        total += len(lines[-1]) + 1
    return "\n".join(lines)[:num_chars]


def boilerplate_pages(snippets: Sequence[str], *, num_chars: int, rng: random.Random) -> str:
    """Write the pages of one web site, each around a different snippet, to `num_chars`.

    Header, menu, cookie notice, side bar and footer are the same on every page, and longer than the snippets (of each
    the first 60 to 160 words are used, once); dates and counts change. The result is shorter if the snippets run out.
    Raises: ConfigError when there is no snippet.
    """
    if not snippets:
        raise ConfigError("Pages need at least 1 snippet of text; got 0.")
    name = f"{rng.choice(_PLACES)} {rng.choice(('Gazette', 'Online', 'Review', 'Hub', 'Daily', 'Forum'))}"
    menu = " | ".join(rng.sample(_MENU, rng.randint(6, 10)))
    header = f"{name}\nSkip to main content\n{menu}\nSearch {name} ...  Log in  Register  Basket (0)"
    cookies = (
        f"We use cookies and similar technologies to give you the best experience on {name}, to measure how our pages "
        "are used and to show you offers that fit your interests. You can change your choice at any time under Privacy "
        "settings. [Accept all] [Only what is necessary] [Manage my choices]"
    )
    side = "Most read\n" + "\n".join(
        f"{n}. {rng.choice(_MENU)} from {place}" for n, place in enumerate(_PLACES[:5], 1)
    )
    year = rng.randint(2012, 2025)
    footer = (
        f"Share this page: Mail  Print  Copy link\nSubscribe to our newsletter and never miss an update. Enter your "
        f"e-mail address [Sign up]\n{menu}\nTerms of use | Privacy policy | Cookie policy | Accessibility | Site map\n"
        f"(c) {year} {name}. All rights reserved. No part of this site may be reproduced without permission."
    )
    pages: list[str] = []
    total = 0
    for snippet in rng.sample(list(snippets), len(snippets)):
        if total >= num_chars:
            break
        words = snippet.split()[: rng.randint(60, 160)]
        meta = f"Posted on {rng.randint(1, 28)}/{rng.randint(1, 12)}/{year}  {rng.randint(0, 90)} comments"
        pages.append("\n\n".join((header, cookies, " ".join(words[:6]), meta, " ".join(words), side, footer)))
        total += len(pages[-1]) + 3
    return "\n\n\n".join(pages)


def _table_line(cells: Sequence[str], style: str) -> str:
    if style == "csv":
        return ",".join(cells)
    if style == "markdown":
        return "| " + " | ".join(cells) + " |"
    return "".join(f"{cell:<14}" for cell in cells).rstrip()


def _message(templates: Sequence[str], rng: random.Random) -> str:
    return rng.choice(templates).format(
        verb=rng.choice(("GET", "POST")),
        service=rng.choice(_SERVICES),
        number=rng.randint(1, 99_999),
        small=rng.randint(1, 900),
        code=rng.choice((200, 200, 404, 500)),
        digit=rng.randint(0, 9),
        percent=rng.randint(1, 99),
        letter=rng.choice("abcd"),
        byte=rng.randint(0, 255),
        byte2=rng.randint(0, 255),
        byte3=rng.randint(0, 255),
    )


def _clock(second: int) -> str:
    return f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def _application_line(second: int, message: str, rng: random.Random) -> str:
    day = 1 + second // 86_400
    return f"2026-03-{day:02d} {_clock(second)} {rng.choice(_LEVELS)} [{rng.choice(_SERVICES)}] {message}"


def _access_line(second: int, message: str, rng: random.Random) -> str:
    address = f"10.0.{rng.randint(0, 3)}.{rng.randint(1, 254)}"
    stamp = f"{1 + second // 86_400:02d}/Mar/2026:{_clock(second)} +0000"
    answer = f"{rng.choice((200, 200, 200, 304, 404))} {rng.randint(120, 90_000)}"
    return f'{address} - - [{stamp}] "GET {rng.choice(_PATHS)} HTTP/1.1" {answer} "-" "Mozilla/5.0 (X11; Linux x86_64)"'


def _json_line(second: int, message: str, rng: random.Random) -> str:
    stamp = f"2026-03-{1 + second // 86_400:02d}T{_clock(second)}Z"
    return json.dumps(
        {"ts": stamp, "level": rng.choice(_LEVELS), "logger": rng.choice(_SERVICES), "msg": message}
    )


def _system_line(second: int, message: str, rng: random.Random) -> str:
    program = f"{rng.choice(_SERVICES)}[{rng.randint(300, 32_000)}]"
    return f"Mar {1 + second // 86_400:2d} {_clock(second)} node-07 {program}: {message}"
