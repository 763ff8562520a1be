"""Which files are found, under which names, and what is said of those left out."""

import os
from pathlib import Path

import pytest

from longlode.core.errors import InputError
from longlode.corpus import Document, find_files, plan, read, read_unit


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


def names(files):
    return [file.name for file in files]


def left_out(files):
    return {file.name: (file.status, file.reason) for file in files if file.status}


def test_a_folder_is_walked_in_order_and_every_file_accounted_for(tmp_path):
    root = make(
        tmp_path / "in",
        *("b.txt", "a/z.py", "a/b.md", "README", "photo.png", "data.bin", "noend", ".hidden", ".git/config"),
        *("__pycache__/x.pyc", "a/c.JSONL", "records.json", "value.json.gz", "t.tar.gz"),
    )
    files = find_files(root)
    assert names(files) == sorted(names(files))
    assert names(file for file in files if file.kind) == ["README", "a/b.md", "a/c.JSONL", "a/z.py", "b.txt"]
    reasons = left_out(files)
    assert set(reasons) == {
        ".git",
        ".hidden",
        "__pycache__",
        "data.bin",
        "noend",
        "photo.png",
        "records.json",
        "value.json.gz",
        "t.tar.gz",
    }
    assert {status for status, _ in reasons.values()} == {"skipped"}
    assert reasons[".git"][1] == "a hidden folder"
    assert "suffix '.png' is not one of text, source or records" in reasons["photo.png"][1]
    assert "a name without a suffix" in reasons["noend"][1]
    rows = list(read(root))
    assert len(rows) == len(files)
    assert [row for unit in plan(root) for row in read_unit(unit)] == rows


def test_links(tmp_path):
    root = make(tmp_path / "in", "a.txt")
    make(tmp_path / "elsewhere", "b.txt")
    (root / "file.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "broken.txt").symlink_to(tmp_path / "none")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.txt")
    files = find_files(root)
    assert names(file for file in files if file.kind) == ["a.txt", "file.txt"]
    assert left_out(files) == {
        "broken.txt": ("failed", "a link that leads nowhere"),
        "folder": ("skipped", "a link to a folder, not followed"),
        "loop": ("skipped", "a link to a folder, not followed"),
        "pipe.txt": ("skipped", "not a regular file"),
    }
    root_link = tmp_path / "root"
    root_link.symlink_to(tmp_path / "elsewhere")
    assert names(find_files(root_link)) == ["b.txt"]


def test_a_name_that_is_not_utf8(tmp_path):
    root = make(tmp_path / "in", "a.txt")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.txt")).write_text("x")
    rows = list(read(root))
    assert [(row.id, getattr(row, "reason", "")) for row in rows] == [
        ("a.txt", ""),
        ("caf\\xe9.txt", "the file's name is not UTF-8"),
    ]
    assert [row for unit in plan(root) for row in read_unit(unit)] == rows


def test_globs(tmp_path, monkeypatch):
    root = make(tmp_path, "in/a.txt", "in/b.md", "in/deep/c.txt", "in/deep/d.png")
    assert names(find_files(f"{root}/in/*.txt")) == ["a.txt"]
    assert names(find_files(f"{root}/in/**/*.txt")) == ["a.txt", "deep/c.txt"]
    files = find_files(f"{root}/*/dee?")
    assert names(files) == ["in/deep/c.txt", "in/deep/d.png"]
    assert set(left_out(files)) == {"in/deep/d.png"}
    with pytest.raises(InputError, match=r"\*\.parquet matches no file"):
        find_files(f"{root}/in/*.parquet")
    make(tmp_path, "odd[1].txt")
    assert names(find_files(tmp_path / "odd[1].txt")) == ["odd[1].txt"]
    monkeypatch.chdir(root)
    assert names(find_files("in/*.txt")) == ["a.txt"]


def test_several_inputs(tmp_path):
    make(tmp_path, "a/x.txt", "b/x.txt", "b/y.txt")
    assert names(find_files([tmp_path / "b", tmp_path / "a" / "x.txt"])) == ["b/x.txt", "y.txt", "a/x.txt"]
    assert names(find_files([tmp_path / "b" / "y.txt", tmp_path / "b"])) == ["y.txt", "x.txt"]
    assert names(find_files(iter([str(tmp_path / "a")]))) == ["x.txt"]


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(InputError, match="No input was given"):
        find_files([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds nothing to read: 0 entries"):
        find_files(tmp_path / "empty")
    make(tmp_path / "pictures", "a.png", "b.png")
    with pytest.raises(
        InputError, match=r"pictures holds nothing to read: 2 entries, .* a\.png: suffix '\.png'"
    ):
        find_files(tmp_path / "pictures")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_forbidden_local_file_and_folder(tmp_path):
    root = make(tmp_path / "in", "a.txt", "b.jsonl", "c.txt", "d/e.txt")
    for name in ("a.txt", "b.jsonl", "d"):
        (root / name).chmod(0)
    try:
        rows = list(read(root))
    finally:
        (root / "d").chmod(0o700)
    assert [(row.id, isinstance(row, Document)) for row in rows] == [
        ("a.txt", False),
        ("b.jsonl", False),
        ("c.txt", True),
        ("d", False),
    ]


def test_the_source_of_a_file_is_the_folder_that_it_lies_in(tmp_path, monkeypatch):
    make(tmp_path / "books", "a.txt", "old/b.txt", "old/worn/c.txt", "d.jsonl")

    def sources(inputs):
        return {file.name: file.source for file in find_files(inputs)}

    whole = {"a.txt": "books", "old/b.txt": "old", "old/worn/c.txt": "old/worn", "d.jsonl": "d"}
    assert sources(tmp_path / "books") == whole
    assert sources(f"{tmp_path}/books/*.txt") == {"a.txt": "books"}
    assert sources(tmp_path / "books" / "a.txt") == {"a.txt": "books"}
    monkeypatch.chdir(tmp_path / "books" / "old")
    assert sources(".") == {"b.txt": "old", "worn/c.txt": "worn"}
    assert sources("b.txt") == {"b.txt": "old"}
    assert sources("..") == whole
    assert {row.source for row in read(tmp_path / "books" / "a.txt")} == {"books"}


def test_a_unit_of_another_source_has_another_name(tmp_path):
    for folder in ("books", "papers"):
        make(tmp_path / folder, "a.txt")
    books, papers = (plan(tmp_path / folder)[0] for folder in ("books", "papers"))
    assert books.files[0].content == papers.files[0].content
    assert books.fingerprint != papers.fingerprint


def test_globs_follow_no_loop_and_find_each_file_once(tmp_path):
    root = make(tmp_path / "d", "x.jsonl", "deep/y.jsonl", ".hidden/z.jsonl")
    (root / "again").symlink_to(".")
    (root / "deep" / "back").symlink_to("..")
    (root / "copy.jsonl").symlink_to("x.jsonl")
    assert names(find_files(f"{root}/**/*.jsonl")) == ["copy.jsonl", "deep/y.jsonl", "x.jsonl"]
    assert names(find_files(f"{root}/*/*.jsonl")) == ["again/copy.jsonl", "again/x.jsonl", "deep/y.jsonl"]
    assert names(find_files(f"{root}/*.jsonl")) == ["copy.jsonl", "x.jsonl"]
    assert names(find_files([f"{root}/*.jsonl", f"{root}/*/*.jsonl"]))[:2] == ["copy.jsonl", "x.jsonl"]
    found = [file.name for file in find_files(f"{root}/**") if file.kind]
    assert sorted(found) == ["copy.jsonl", "deep/y.jsonl", "x.jsonl"]


def test_a_glob_does_not_read_what_longlode_wrote(tmp_path):
    root = make(tmp_path / "data", "a.txt", "scores/parts/p.parquet", "run/notes.txt", "plain/b.txt")
    (root / "run" / "record.json").write_text('{"kind": "run", "made_with": {}}')
    (root / "plain" / "record.json").write_text('{"kind": "vinyl"}')
    own = root / "scores"
    for pattern in ("*", "**", "*/**"):
        files = find_files(f"{root}/{pattern}", exclude=own)
        assert not any("scores" in file.name for file in files)
        assert not any(file.kind for file in files if file.name.startswith("run"))
        assert "plain/b.txt" in names(files)
    with pytest.raises(InputError, match="matches no file"):
        find_files(f"{root}/**/*.parquet", exclude=own)
    files = find_files(root, exclude=own)
    assert left_out(files)["run"] == ("skipped", "an output folder of longlode")
    assert names(find_files(root / "run")) == ["notes.txt", "record.json"]


def test_two_names_that_print_alike_give_a_row_each(tmp_path):
    root = make(tmp_path / "in", "a.txt")
    bad = os.fsdecode(os.fsencode(root) + b"/a\xff.txt")
    for path in (bad, f"{root}/a\\xff.txt"):
        Path(path).write_text("x")
    for inputs in (root, [bad, f"{root}/a\\xff.txt", root / "a.txt"], f"{root}/*"):
        rows = list(read(inputs))
        assert sorted(row.file for row in rows) == ["a.txt", "a\\xff.txt", "a\\xff.txt~2"]
        assert sum(isinstance(row, Document) for row in rows) == 2
        assert sorted(row.file for unit in plan(inputs) for row in read_unit(unit)) == sorted(
            row.file for row in rows
        )
