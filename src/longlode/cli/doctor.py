"""longlode doctor: report on this machine, and a check of the kernels on it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from longlode.cli.console import finish, say, table
from longlode.cli.guard import EXIT_UNEXPECTED
from longlode.cli.habits import Ended

if TYPE_CHECKING:
    from longlode.ops.delta_rule.accuracy import OpCheck

EXAMPLES = (
    "longlode doctor",
    "longlode doctor --ops",
)


def doctor(
    ops: Annotated[
        bool, typer.Option("--ops", help="Also test the results of every delta-rule backend.")
    ] = False,
) -> dict[str, Any]:
    """Show what longlode finds on this machine: torch, device, threads, speed of bfloat16, backends, disk.

    Paste the output into bug reports. With --ops every backend is compared with the plain recurrence, forward
    and gradients, on random and on near-identical keys; one that fails is named and the exit status is 1.
    """
    from longlode.api.checks import OPTIONAL
    from longlode.api.checks import doctor as look

    found = look(ops=ops)
    say(escape(f"longlode {found['longlode']}, Python {found['python']} ({found['executable']})"))
    say(f"{found['platform']}, {found['cores']} CPU cores")
    table("Torch", ("what", "found"), list(found["torch"].items()))
    table("Delta-rule backends", ("backend", "state"), list(found["backends"].items()))
    packages = [(name, version or "-", OPTIONAL[name]) for name, version in found["packages"].items()]
    table("Optional", ("package", "found", "for"), packages)
    room = [
        (f"{name} ({one['path']})", f"{one['free_gib']:,.1f} GiB", "yes" if one["writable"] else "no")
        for name, one in found["room"].items()
    ]
    table("Room", ("where", "free", "writable"), room)
    if ops:
        _show_checks(found)
    else:
        finish(
            "Nothing above needs more than reading.",
            then=["longlode doctor --ops   (are the kernels right here?)"],
        )
    return found


def _show_checks(found: dict[str, Any]) -> None:
    checks: list[OpCheck] = found["checks"]
    table(
        "Against the float64 recurrence (relative error)",
        ("backend", "device", "dtype", "keys", "forward", "gradients", "verdict"),
        [
            (
                c.backend,
                c.device,
                c.dtype,
                c.keys,
                f"{c.forward:.1e}",
                f"{c.gradient:.1e}",
                "ok" if c.passed else "WRONG",
            )
            for c in checks
        ],
    )
    failed = sorted({f"{c.backend} on {c.device}" for c in checks if not c.passed})
    if failed:
        say(f"[bold red]Do not use {', '.join(failed)}[/]: its results are wrong on this machine.")
        say("Pass another backend to delta_rule ('reference' is always right), and report the output above.")
        raise Ended(EXIT_UNEXPECTED, found)
    finish(f"All {len(checks)} checks passed.", then=["longlode demo"])


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: nothing was written."""
    return "Nothing was written."
