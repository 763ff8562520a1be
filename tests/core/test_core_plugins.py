"""Registries: built-in classes found by themselves, entry points, addresses, and what is said when none has a name."""

import subprocess
import sys

import pytest

from longlode.core.errors import BackendError, ConfigError
from longlode.core.plugins import Registry, package_of

BASE = """
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def sides(self): ...
"""
SQUARE = """
from shapes.base import Shape
class Square(Shape):
    name = "square"
    def sides(self): return 4
class Half(Shape):
    name = "half"
class Unnamed(Square):
    pass
"""
TRIANGLE = """
from shapes.base import Shape
from shapes.square import Square
class Triangle(Square):
    name = "triangle"
    def sides(self): return 3
"""
OUTSIDE = """
from shapes.base import Shape
class Pentagon(Shape):
    name = "pentagon"
    def sides(self): return 5
class NoShape:
    name = "no-shape"
"""
BROKEN = "raise OSError('no such device')"


def write_package(folder, name, modules, entry_points=""):
    """A package, and the metadata that an installed one has."""
    for module, text in modules.items():
        path = folder / name / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{name}\n")
    (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages: `shapes`, whose registry it is, and `more`, which adds to it."""
    write_package(tmp_path, "shapes", {"__init__": "", "base": BASE, "square": SQUARE, "triangle": TRIANGLE})
    points = {"pentagon": "outside:Pentagon", "broken": "broken:Broken", "odd": "outside:NoShape"}
    write_package(
        tmp_path,
        "more",
        {"__init__": "", "outside": OUTSIDE, "broken": BROKEN},
        "\n".join(["[test.shapes]", *(f"{name} = more.{where}" for name, where in points.items())]),
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shapes", "more", "stray")]:
        del sys.modules[name]


@pytest.fixture
def shapes(site):
    import shapes.base

    return Registry("shape", shapes.base.Shape, package="shapes", group="test.shapes")


def test_built_in_classes_are_found_where_they_are_defined(shapes):
    assert shapes.names() == ["square", "triangle", "broken", "odd", "pentagon"]
    assert shapes.get("triangle")().sides() == 3
    assert "square" in shapes
    assert "half" not in shapes, "abstract"
    assert list(shapes) == shapes.names()


def test_making_a_registry_imports_nothing(shapes):
    assert "shapes.square" not in sys.modules
    shapes.get("triangle")
    assert "shapes.square" in sys.modules
    assert "more" not in sys.modules


def test_entry_points_of_other_packages(shapes):
    assert shapes.get("pentagon")().sides() == 5
    assert shapes.provider("pentagon") == "more-dist"
    assert shapes.name_of(shapes.get("pentagon")) == "pentagon"
    with pytest.raises(BackendError, match=r"'broken' of the package more-dist .*OSError: no such device"):
        shapes.get("broken")
    with pytest.raises(ConfigError, match=r"more.outside:NoShape is no shape"):
        shapes.get("odd")


def test_addresses(shapes, site):
    assert shapes.get("more.outside:Pentagon")().sides() == 5
    assert shapes.provider("more.outside:Pentagon") == "more-dist"
    unnamed = shapes.get("shapes.square:Unnamed")
    assert shapes.name_of(unnamed) == "shapes.square:Unnamed"
    for address, error in {
        "more.outside:Hexagon": "has no 'Hexagon'",
        "more.nowhere:Pentagon": "cannot be imported: No module named 'more.nowhere'",
        "more.outside:NoShape": "is no shape",
        "shapes.square:Half": "is no shape; expected a class .* defines all that it asks for",
        "json:loads": "is no shape",
    }.items():
        with pytest.raises(ConfigError, match=error):
            shapes.get(address)


def test_an_address_from_a_file_does_not_run_stray_files(shapes, site):
    (site / "stray.py").write_text("raise SystemExit('run')")
    with pytest.raises(BackendError, match="import stray yourself first"):
        shapes.get("stray:Shape", saved=True)
    (site / "stray.py").write_text(OUTSIDE)
    assert shapes.get("stray:Pentagon")().sides() == 5
    assert shapes.get("stray:Pentagon", saved=True)().sides() == 5, "imported by now"
    assert shapes.get("more.outside:Pentagon", saved=True)().sides() == 5, "installed"


def test_a_missing_package_is_named(shapes):
    for name in ("octagon", "octa.shapes:Octagon"):
        for saved in (False, True):
            with pytest.raises(BackendError, match="pip install octa-dist"):
                shapes.get(name, provider="octa-dist", saved=saved)


def test_near_misses(shapes):
    with pytest.raises(ConfigError, match=r"no shape 'sqaure'.*'square'"):
        shapes.get("sqaure")
    with pytest.raises(ConfigError, match=r"no shape 'zzz'. Expected one of"):
        shapes.get("zzz")


def test_registered_in_this_process(shapes):
    @shapes.register
    class Line(shapes.base):
        name = "line"

        def sides(self):
            return 1

    assert shapes.get("line") is Line
    assert shapes.provider("line") == package_of(Line) == __name__
    assert shapes.names()[-3:] == ["line", "odd", "pentagon"]
    for name, error in (("square", "taken"), ("pentagon", "taken"), ("Not good", "Line.name is 'Not good'")):
        with pytest.raises(ConfigError, match=error):
            shapes.register(type("Line", (Line,), {"name": name, "__module__": "elsewhere"}))
    place = {"__qualname__": Line.__qualname__, "__module__": __name__}
    again = type("Line", (Line,), {"name": "line", **place})
    assert shapes.get(shapes.register(again).name) is again
    with pytest.raises(ConfigError, match="is no shape"):
        shapes.register(int)


def test_two_packages_with_one_name(site, shapes, caplog):
    write_package(
        site, "third", {"__init__": ""}, "[test.shapes]\npentagon = third:Five\nsquare = third:Four\n"
    )
    with pytest.raises(ConfigError, match=r"more-dist and third-dist .*'pentagon'"):
        shapes.names()
    assert shapes.get("square")().sides() == 4, "what is built in needs no other package"


def test_what_longlode_has_itself_is_not_replaced(site, shapes, caplog):
    write_package(site, "third", {"__init__": ""}, "[test.shapes]\nsquare = third:Four\n")
    assert shapes.names()[0] == "square"
    assert "third-dist announces a shape called 'square'" in caplog.text
    assert shapes.get("square")().sides() == 4


def test_the_module_is_light():
    code = "import sys, longlode.core.plugins; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
