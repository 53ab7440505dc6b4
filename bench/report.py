"""What a run found, as tables for the terminal, as Markdown and as a bar chart."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from xml.sax.saxutils import escape

from measure import Record
from rich.console import Console
from rich.markup import escape as plain
from rich.table import Table

BACKEND_TITLES = {"sqlite": "SQLite", "postgres": "Postgres"}
CONSOLE_COLUMNS = 140
NOTHING = "–"


@dataclass
class Comparison:
    """One workload on one backend: the records of all rounds, ours and the incumbent's."""

    workload: str
    title: str
    unit: str
    backend: str
    target: float
    ours: list[Record] = field(default_factory=list)
    incumbent: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def rate(self, side: str) -> float | None:
        """Operations per second, from the median of the seconds."""
        records = self.records(side)
        return records[0]["operations"] / median(r["seconds"] for r in records) if records else None

    def records(self, side: str) -> list[Record]:
        return self.ours if side == "ours" else self.incumbent

    @property
    def ratio(self) -> float | None:
        ours, incumbent = self.rate("ours"), self.rate("incumbent")
        return ours / incumbent if ours and incumbent else None

    @property
    def ratio_range(self) -> tuple[float, float] | None:
        pairs = list(zip(self.ours, self.incumbent, strict=False))
        ratios = [
            incumbent["seconds"] / incumbent["operations"] / (ours["seconds"] / ours["operations"])
            for ours, incumbent in pairs
        ]
        return (min(ratios), max(ratios)) if ratios else None

    @property
    def reached(self) -> bool:
        return self.ratio is not None and self.ratio >= self.target

    def middle(self, side: str, figure: str) -> float | None:
        values = [record[figure] for record in self.records(side) if figure in record]
        return median(values) if values else None


@dataclass
class Grid:
    """A table before anybody has decided how it looks."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def number(value: float | None, digits: int | None = None) -> str:
    """Three significant digits or so, with separators; a dash for what was not measured."""
    if value is None:
        return NOTHING
    if digits is None:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def pair(comparison: Comparison, figure: str) -> str:
    ours, incumbent = comparison.middle("ours", figure), comparison.middle("incumbent", figure)
    return NOTHING if ours is None and incumbent is None else f"{number(ours)} / {number(incumbent)}"


def ratio_grid(comparisons: Iterable[Comparison]) -> Grid:
    grid = Grid(
        "Throughput, ours against the incumbent",
        ["workload", "database", "ours", "incumbent", "per second", "ratio", "rounds", "target", ""],
        notes=["Medians of all rounds; *rounds* is the lowest and the highest ratio of a single round."],
    )
    for c in comparisons:
        spread = c.ratio_range
        grid.rows.append(
            [
                c.title,
                BACKEND_TITLES[c.backend],
                number(c.rate("ours")),
                number(c.rate("incumbent")),
                c.unit,
                NOTHING if c.ratio is None else f"{number(c.ratio)}x",
                NOTHING if spread is None else f"{number(spread[0])}–{number(spread[1])}",
                f"{c.target:g}x",
                "failed" if c.problems else "reached" if c.reached else "missed",
            ]
        )
    return grid


def beside_grid(comparisons: Iterable[Comparison]) -> Grid:
    grid = Grid(
        "Beside it: ours / incumbent",
        ["workload", "database", "step p50 ms", "step p99 ms", "peak memory MB", "CPU seconds"],
        notes=["Step latencies are what the workflow sees, under the load of the workload."],
    )
    for c in comparisons:
        figures = [pair(c, figure) for figure in ("p50_ms", "p99_ms", "rss_mb", "cpu_seconds")]
        grid.rows.append([c.title, BACKEND_TITLES[c.backend], *figures])
    return grid


def print_grid(grid: Grid, console: Console) -> None:
    table = Table(title=grid.title, title_justify="left", title_style="bold", min_width=60)
    for i, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=i > 0)
    for row in grid.rows:
        table.add_row(*[plain(cell) for cell in row])
    console.print()
    console.print(table)
    for note in grid.notes:
        console.print(plain(note.replace("*", "")), style="dim", highlight=False)


def open_console() -> Console:
    """Wide even when the output is a file, where the default of 80 columns would fold every row."""
    console = Console()
    return console if console.is_terminal else Console(width=CONSOLE_COLUMNS)


def to_markdown(facts: list[str], grids: list[Grid]) -> str:
    lines = [f"- {fact}" for fact in facts]
    for grid in grids:
        rule = ["---" if i < 2 else "---:" for i in range(len(grid.columns))]
        lines += ["", f"### {grid.title}", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in [grid.columns, rule, *grid.rows]]
        for note in grid.notes:
            lines += ["", note]
    return "\n".join(lines) + "\n"


BAR_PIXELS, BAR_GAP_PIXELS, GROUP_GAP_PIXELS = 16, 3, 16
LABEL_PIXELS, PLOT_PIXELS, MARGIN_PIXELS, HEAD_PIXELS = 300, 440, 24, 64
COLOURS = {"sqlite": "#2a7ab0", "postgres": "#e0863b"}


def to_svg(comparisons: list[Comparison]) -> str:
    """Horizontal bars, one group per workload; a tick on each bar marks the target."""
    shown = [c for c in comparisons if c.ratio is not None]
    largest = max([c.ratio or 0.0 for c in shown] + [c.target for c in shown], default=1.0)
    scale = PLOT_PIXELS / largest
    width = MARGIN_PIXELS * 2 + LABEL_PIXELS + PLOT_PIXELS + 60
    body: list[str] = []
    y = HEAD_PIXELS
    for workload in dict.fromkeys(c.workload for c in shown):
        group = [c for c in shown if c.workload == workload]
        height = len(group) * (BAR_PIXELS + BAR_GAP_PIXELS)
        label_y = y + height / 2 + 3
        body.append(_text(MARGIN_PIXELS + LABEL_PIXELS - 12, label_y, group[0].title, "end"))
        for c in group:
            ratio = c.ratio or 0.0
            x = MARGIN_PIXELS + LABEL_PIXELS
            tick = x + c.target * scale
            body.append(_rectangle(x, y, ratio * scale, BAR_PIXELS, COLOURS[c.backend]))
            body.append(_rectangle(tick, y - 2, 2, BAR_PIXELS + 4, "#222222"))
            body.append(_text(max(x + ratio * scale, tick + 2) + 6, y + BAR_PIXELS - 4, f"{number(ratio)}x"))
            y += BAR_PIXELS + BAR_GAP_PIXELS
        y += GROUP_GAP_PIXELS
    legend = [_text(MARGIN_PIXELS, 26, "Throughput, times the incumbent (dbos 3.4.0)", weight="bold")]
    for i, (backend, colour) in enumerate(COLOURS.items()):
        x = MARGIN_PIXELS + i * 90
        legend += [_rectangle(x, 38, 10, 10, colour), _text(x + 15, 47, BACKEND_TITLES[backend])]
    x = MARGIN_PIXELS + len(COLOURS) * 90
    legend += [_rectangle(x + 4, 36, 2, 14, "#222222"), _text(x + 15, 47, "target")]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="#222222">'
    )
    return "\n".join([head, _rectangle(0, 0, width, y, "#ffffff"), *legend, *body, "</svg>"]) + "\n"


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
