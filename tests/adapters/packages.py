"""Packages that add a provider, as an installer would leave them in a folder of the path."""

from pathlib import Path


def install(folder: Path, package: str, *points: str) -> None:
    """Leave the metadata of an installed package; ``points`` are lines ``acme = module:object`` of our group."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[bydawn.providers]", *points, ""]))


def module(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(source)
