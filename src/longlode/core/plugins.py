"""Registries of components by name: built in, announced by other packages, or any class by its address.

A registry holds the subclasses of one base class, each under its class attribute `name`:

- built in: every module of one of longlode's packages is searched once, when a name is first requested. To add one,
  add a file; there is no list to edit.
- announced: an entry point of the registry's group in any installed package's metadata,
  `name = "package.module:Class"`.
- by address: `package.module:Class` wherever a name is accepted.
- in this process: `registry.register(Class)`, also as a decorator.

Saved files name the package of each component (`provider`), so that loading them elsewhere can say what to
install.
"""

import difflib
import importlib
import inspect
import logging
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from typing import Generic, TypeVar

from longlode.core.errors import BackendError, ConfigError

T = TypeVar("T")

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_OURS = "longlode"


class Registry(Generic[T]):
    """The concrete subclasses of `base`, by name."""

    def __init__(self, what: str, base: type[T], *, package: str, group: str) -> None:
        """Make an empty registry; nothing is imported until a name is requested.

        Args: what: the component in words, for messages ("mixer"). base: the class of all members.
          package: dotted name of the package whose modules hold the built-in ones. group: the entry point group.
        """
        self.what = what
        self.base = base
        self.group = group
        self._package = package
        self._registered: dict[str, type[T]] = {}

    def __contains__(self, name: str) -> bool:
        """Return True if `name` is built in, registered or announced; addresses are not looked up."""
        return name in self._built_in or name in self._registered or name in self._announced

    def __iter__(self) -> Iterator[str]:
        """Iterate over `names()`."""
        return iter(self.names())

    def names(self) -> list[str]:
        """List all names: the built-in ones in alphabetical order, then those of this process and of other packages."""
        others = sorted({*self._registered, *self._announced} - set(self._built_in))
        return [*sorted(self._built_in), *others]

    def get(self, name: str, *, provider: str | None = None, saved: bool = False) -> type[T]:
        """Return the class called `name`, or at the address `name` (`package.module:Class`).

        Args:
          provider: the package that it came from when it was saved, if known.
          saved: the name was read from a file that somebody else may have written. Then an address is followed only
            into modules that are imported already or belong to an installed package, never into any other file.
        Raises: ConfigError for an unknown name, with similar ones, and for a class of another kind;
          BackendError when the package that provides it is not installed or does not load.
        """
        if _ADDRESS.fullmatch(name):
            return self._at(name, provider, saved)
        if name in self._built_in:
            return self._built_in[name]
        if name in self._registered:
            return self._registered[name]
        if name in self._announced:
            return self._load(self._announced[name])
        if provider is not None and provider != _OURS:
            raise self._missing(name, provider)
        close = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"There is no {self.what} {name!r}.{hint} Expected one of {', '.join(self.names())}; or the address of a "
            "class, package.module:Class."
        )

    def provider(self, name: str) -> str:
        """Return the package that provides `name`: "longlode" for built-in ones. Raises: as `get`."""
        if name not in self._built_in and name not in self._registered and name in self._announced:
            return _distribution_of(self._announced[name])
        return package_of(self.get(name))

    def name_of(self, kind: type[T]) -> str:
        """Return the name under which `get` finds this class: its own if registered, else its address."""
        own = kind.__dict__.get("name")
        if isinstance(own, str) and own in self and self.get(own) is kind:
            return own
        return f"{kind.__module__}:{kind.__qualname__}"

    def register(self, kind: type[T]) -> type[T]:
        """Add a class under its `name` in this process and return it, so that it works as a decorator.

        Raises: ConfigError when the class is of another kind, its name is invalid, or another class has the name.
        """
        self._check_kind(kind, f"{kind.__module__}:{kind.__qualname__}")
        name = self._own_name(kind)
        known = self._built_in.get(name) or self._registered.get(name)
        # A class that is defined again, as in a notebook's cell, replaces its earlier version.
        same = known is not None and (known.__module__, known.__qualname__) == (
            kind.__module__,
            kind.__qualname__,
        )
        if (known is not None and not same) or (known is None and name in self._announced):
            raise ConfigError(
                f"The name {name!r} is taken by another {self.what}; give {kind.__qualname__} another."
            )
        self._registered[name] = kind
        return kind

    @cached_property
    def _built_in(self) -> dict[str, type[T]]:
        """Collect every concrete class of the kind that defines its own name in the modules of the package."""
        package, found = importlib.import_module(self._package), {}
        for module_info in pkgutil.iter_modules(package.__path__, f"{self._package}."):
            module = importlib.import_module(module_info.name)
            for kind in vars(module).values():
                # Only where it is defined: importing a class into another module does not define it twice.
                if not (inspect.isclass(kind) and kind.__module__ == module.__name__):
                    continue
                if not issubclass(kind, self.base) or inspect.isabstract(kind) or "name" not in vars(kind):
                    continue
                name = self._own_name(kind)
                assert name not in found, f"two {self.what}s of {self._package} are called {name!r}"
                found[name] = kind
        return found

    @cached_property
    def _announced(self) -> dict[str, metadata.EntryPoint]:
        """Collect entry points by name. Raises ConfigError when two packages announce one name."""
        found: dict[str, metadata.EntryPoint] = {}
        for point in metadata.entry_points(group=self.group):
            if point.name in self._built_in:
                _log.warning(
                    "%s announces a %s called %r, which longlode has itself; longlode's is used",
                    *(_distribution_of(point), self.what, point.name),
                )
            elif point.name in found and found[point.name].value != point.value:
                names = sorted((_distribution_of(found[point.name]), _distribution_of(point)))
                raise ConfigError(
                    f"The packages {names[0]} and {names[1]} both announce a {self.what} called {point.name!r}; "
                    "uninstall one of them."
                )
            else:
                found[point.name] = point
        return found

    def _load(self, point: metadata.EntryPoint) -> type[T]:
        try:
            kind = point.load()
        # A third-party package: any error of its import means that it cannot be used here.
        except Exception as error:
            raise BackendError(
                f"The {self.what} {point.name!r} of the package {_distribution_of(point)} cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._check_kind(kind, point.value)

    def _at(self, address: str, provider: str | None, saved: bool) -> type[T]:
        """Import the class at `package.module:Class`."""
        module_name, _, class_name = address.partition(":")
        top = module_name.partition(".")[0]
        if saved and module_name not in sys.modules and top not in metadata.packages_distributions():
            if provider not in (None, _OURS, top):
                raise self._missing(address, str(provider))
            raise BackendError(
                f"The {self.what} {address!r} of a saved file is in no installed package, and files nearby are not run "
                f"unasked. Install the package that has {top!r}, or import {module_name} yourself first."
            )
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            if provider is not None and provider != _OURS:
                raise self._missing(address, provider) from error
            raise ConfigError(f"The {self.what} {address!r} cannot be imported: {error}.") from error
        if not hasattr(module, class_name):
            raise ConfigError(
                f"The module {module_name} has no {class_name!r}, which was asked for as a {self.what}."
            )
        return self._check_kind(getattr(module, class_name), address)

    def _check_kind(self, kind: object, where: str) -> type[T]:
        if not (inspect.isclass(kind) and issubclass(kind, self.base)) or inspect.isabstract(kind):
            raise ConfigError(
                f"{where} is no {self.what}; expected a class that is made from {self.base.__module__}."
                f"{self.base.__qualname__} and defines all that it asks for."
            )
        return kind

    def _own_name(self, kind: type[T]) -> str:
        name = vars(kind).get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(
                f"{kind.__qualname__}.name is {name!r}; expected small letters, digits, '_' and '-', a letter first."
            )
        return name

    def _missing(self, name: str, provider: str) -> BackendError:
        return BackendError(
            f"The {self.what} {name!r} comes from the package {provider}, which is not installed here: "
            f"pip install {provider}"
        )


def package_of(kind: type) -> str:
    """Return the installed package that `kind` comes from, or the name of its top module if there is none."""
    top = kind.__module__.partition(".")[0]
    if top == _OURS:
        return _OURS
    found = metadata.packages_distributions().get(top)
    return found[0] if found else top


def _distribution_of(point: metadata.EntryPoint) -> str:
    """Return the package that announces an entry point."""
    return point.dist.name if point.dist is not None else point.value.partition(".")[0].partition(":")[0]
