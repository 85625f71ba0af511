"""Names that fit into a table."""

__all__ = ["short_names"]


def short_names(names: list[str]) -> list[str]:
    """Return names without the words that all of them begin with."""
    parts = [name.split("_") for name in names]
    while len(parts) > 1 and len({part[0] for part in parts}) == 1 and all(p[1:] for p in parts):
        parts = [part[1:] for part in parts]
    return ["_".join(part) for part in parts]
