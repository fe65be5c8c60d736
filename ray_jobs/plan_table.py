"""How --dry-run shows what work would take."""

from collections.abc import Sequence

GIB = 2.0**30


def plan_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Named figures under a title."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name.ljust(width)}  {text}" for name, text in rows)])
