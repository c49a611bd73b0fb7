"""The comparison of two reports as a table."""

from pathlib import Path

from rich.console import Console

from loadtest.analyse.comparison import LEAST_REPEATS, compare, differences
from loadtest.errors import LoadTestError
from loadtest.show.report import read_report
from loadtest.show.tables import table

_COLOURS = {"slower": "red", "faster": "green", "within the noise": "dim", "too few repeats": "dim"}


def print_comparison(a: Path, b: Path) -> None:
    """Raises LoadTestError for files that are not reports of this version, or have nothing in common."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    first, second = read_report(a), read_report(b)
    for difference in differences(first, second):
        console.print(f"[yellow]differs[/] {difference}")
    compared = list(compare(first, second))
    if not compared:
        raise LoadTestError(
            "the two reports have no condition in common: same loop, level and depths are needed"
        )
    lines = [
        {
            "condition": line.condition,
            "figure": line.figure,
            "A": f"{line.a:.4g}",
            "B": f"{line.b:.4g}",
            "B/A": f"{line.ratio:.3f}",
            "noise": "" if line.noise is None else f"±{(line.noise - 1):.1%}",
            "": f"[{_COLOURS[line.verdict]}]{line.verdict}[/]",
        }
        for line in compared
    ]
    console.print(table("B against A", lines, console.width))
    if any(line.noise is None for line in compared):
        console.print(
            f"How much two runs of the same thing differ is unknown with fewer than {LEAST_REPEATS} "
            "--repeats: nothing is called faster or slower there."
        )
