"""How --dry-run shows what work would take."""

from collections.abc import Sequence

GIB = 2.0**30


def size_text(count: float) -> str:
    """Bytes as GiB, or as MiB or KiB where they are few."""
    for unit, size in (("GiB", GIB), ("MiB", 2.0**20)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1024:.3g} KiB"


def plan_table(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Named figures under a title."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name.ljust(width)}  {text}" for name, text in rows)])
