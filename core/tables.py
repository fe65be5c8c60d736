"""Text tables of --dry-run."""

from collections.abc import Sequence

GIB = 2.0**30


def format_bytes(count: float) -> str:
    """Return bytes as text in GiB, MiB or KiB."""
    for unit, size in (("GiB", GIB), ("MiB", 2.0**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1024:.3g} KiB"


def plan_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return named figures under a title."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name.ljust(width)}  {text}" for name, text in rows)])
