"""What the README and the docs tell people to type exists, option by option, and their Python runs."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from longlode.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if not {"_build", "generated"} & set(path.parts)
    ),
)
GROUP = typer.main.get_command(app)
COMMANDS = {name: one for name, one in GROUP.commands.items() if not one.hidden}
OWN_OPTIONS = {"--help", *(option for parameter in GROUP.params for option in parameter.opts)}


def mentioned_commands(text: str) -> list[list[str]]:
    """Words of every `longlode ...` in code: inline, or an indented line with those that go on."""
    text = re.sub(r"\n {8,}(?=\[)", " ", text)
    inline = re.findall(r"`(longlode [^`]+)`", text.replace("\n", " "))
    lines = re.findall(r"^ {4,}(longlode .+)$", text, flags=re.MULTILINE)
    return [
        shlex.split(line.partition("#")[0].replace("'", "").replace('"', "")) for line in [*inline, *lines]
    ]


def faults(words: list[str]) -> list[str]:
    """What is wrong with a mentioned command: no such command, or no such option of it."""
    if words[1].startswith("-"):
        return [] if words[1] in OWN_OPTIONS else [f"no option {words[1]}"]
    if words[1] == "COMMAND":
        return []
    if words[1] not in GROUP.commands:
        return [f"no command {words[1]}"]
    known = {"--help"}
    for parameter in GROUP.commands[words[1]].params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    given = (word.strip("[]().,;|") for word in words[2:])
    return [
        f"{words[1]} has no option {word}"
        for word in given
        if word.startswith("-") and word != "-" and word not in known
    ]


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_the_page_exist(page):
    wrong = [
        fault
        for words in mentioned_commands((ROOT / page).read_text(encoding="utf-8"))
        for fault in faults(words)
    ]
    assert wrong == []


def test_the_readme_mentions_every_command():
    mentioned = {words[1] for words in mentioned_commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert set(COMMANDS) <= mentioned


def test_the_commands_page_lists_every_option():
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    alike = page.split("## What every command does alike\n")[1].split("\n## ")[0]
    of_all = {"--help", "--quiet", "--json"}
    assert all(f"`{option}`" in alike for option in of_all)
    for name, command in COMMANDS.items():
        section = page.split(f"## longlode {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            options = {*parameter.opts, *parameter.secondary_opts}
            if parameter.param_type_name == "option" and not of_all & options:
                assert any(option in section for option in options), f"{name}: {options}"


def test_examples_of_the_help_texts_exist():
    for name in COMMANDS:
        module = importlib.import_module(f"longlode.cli.{name.replace('-', '_')}")
        for line in module.EXAMPLES:
            words = shlex.split(line.rpartition("| ")[2])
            assert words[1] == name
            assert faults(words) == []


def test_the_checker_rejects_what_does_not_exist():
    assert faults(["longlode", "score", "x", "--no-such"]) == ["score has no option --no-such"]
    assert faults(["longlode", "sing"]) == ["no command sing"]
    assert mentioned_commands("Run `longlode score x\n--seed 1` now\n\n    longlode report a  # c\n") == [
        ["longlode", "score", "x", "--seed", "1"],
        ["longlode", "report", "a"],
    ]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_page_imports_what_exists(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_first_python_of_the_readme_runs():
    names: dict[str, object] = {}
    exec(compile(python_blocks("README.md")[0], "README.md", "exec"), names)  # our own file
    assert tuple(names["o"].shape) == (1, 1024, 4, 64)
    assert tuple(names["state"].shape) == (1, 4, 64, 64)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_the_page_links_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    if "<!-- demo-output -->" in text:  # the picture comes with the output of a real run
        links = {link for link in links if not link.endswith(".png")}
    assert sorted(link for link in links if not ((ROOT / page).parent / link).exists()) == []


def test_the_five_files_to_read_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paragraph = text.split("Read these five")[1].split("\n\n")[0]
    files = re.findall(r"`([\w/]+\.py)`", paragraph)
    assert len(files) == 5
    assert [name for name in files if not (ROOT / "src/longlode" / name).is_file()] == []


@pytest.mark.parametrize("url", ["", "https://example.org/some/where/"])
def test_links_of_the_package_description_are_absolute_where_the_address_is_known(url):
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "--long-description"],
        cwd=ROOT,
        env=os.environ | {"LONGLODE_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if not url:
        assert done.stdout.strip() == readme.strip()
        return
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", done.stdout)
    local = [
        link for _, link in re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", readme) if not re.match(r"\w+:|#", link)
    ]
    assert len(local) > 3
    assert [link for _, link in links if not re.match(r"https?:|#", link)] == []
    for mark, link in links:
        if link.startswith("https://example.org/"):
            folder = "raw" if mark else "blob"
            path = link.removeprefix(f"https://example.org/some/where/{folder}/HEAD/").partition("#")[0]
            assert (ROOT / path).exists()
