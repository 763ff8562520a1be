"""longlode demo."""

EXAMPLES = ("longlode demo -o demo-out",)


def demo() -> None:
    """Demo."""
