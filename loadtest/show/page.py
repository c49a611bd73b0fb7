"""report.html: one self-contained page with every picture and table, for light and dark screens."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl

from loadtest.analyse.estimates import Spread
from loadtest.analyse.rows import Row, load_words
from loadtest.experiment import Findings
from loadtest.show.live import probe_words
from loadtest.show.pictures import draw_all
from loadtest.show.style import DARK, LIGHT

_EXPLAINED = {
    "latency_against_depth": "Median latency by steps used, the band up to p99, and the fitted line.",
    "distribution": "Every percentile of every depth; the right end is the tail.",
    "throughput_against_p99": "What a higher rate costs: a line that bends upwards has reached saturation.",
    "time_spent": "The server's own account against the client's total.",
    "steps_in_stream": "How long until the first step can be read, and between steps.",
    "used_depth": "With a halting rule, requests stop before their budget.",
    "quality_against_latency": "What deeper thinking buys, with 95 % intervals.",
    "head_of_line": "The farther right the coloured line, the longer shallow requests wait behind deep ones.",
    "latency_over_time": "A stall shows as a peak, in open loop with every request that it delayed.",
}
_PHASES = {
    "alone": "Alone, closed loop: one request at a time",
    "load": "Under load",
    "sweep": "Sweep, open loop",
    "probe": "The probe's deep load",
}
_STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2933; --soft: #5c6873; --line: #d9dee4; --paper: #fff; --card: #f6f8fa;
  --good: #1f7a4d; --bad: #b3402a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ee; --soft: #9aa5b1; --line: #39424e; --paper: #14181d; --card: #1c2229;
    --good: #5fd3a2; --bad: #ff8a70;
  }
}
body {
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1120px; margin: 2rem auto; padding: 0 1rem;
}
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict {
  padding: .7rem 1rem; border-left: 4px solid var(--good); background: var(--card); border-radius: 4px;
}
.verdict.bad { border-color: var(--bad); }
.verdict ul { margin: .3rem 0 0; padding-left: 1.2rem; }
.pictures {
  display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr));
}
figure { margin: 0; padding: .8rem; background: var(--card); border-radius: 8px; }
figure img { width: 100%; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def write_page(report: dict[str, Any], findings: Findings, out: Path) -> None:
    """Draws every picture twice, for light and for dark, and writes `pictures/*.png` (light) and
    `report.html`.
    """
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    light, dark = draw_all(findings, LIGHT), draw_all(findings, DARK)
    pictures = []
    # Fixed ids and no date: the same findings make the same file.
    with mpl.rc_context({"svg.hashsalt": "fathom", "svg.fonttype": "path"}):
        for name, figure in light.items():
            figure.savefig(folder / f"{name}.png", dpi=160, facecolor="white")
            pictures.append(_picture(name, _svg(figure), _svg(dark[name])))
    (out / "report.html").write_text(_page(report, findings, pictures), encoding="utf-8")


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _picture(name: str, light: str, dark: str) -> str:
    alt = escape(name.replace("_", " "))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{dark}">'
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{light}">'
    caption = f"<figcaption>{escape(_EXPLAINED[name])}</figcaption>"
    return f"<figure><picture>{source}{image}</picture>{caption}</figure>"


def _page(report: dict[str, Any], findings: Findings, pictures: list[str]) -> str:
    target = report["target"]
    title = f"{target['model']} {target['version'] or ''}".strip()
    phases = [
        f"<h2>{escape(title)}</h2>{_rows_table([row for row in findings.rows if row.phase == phase])}"
        for phase, title in _PHASES.items()
        if any(row.phase == phase for row in findings.rows)
    ]
    parts = [
        f"<h1>Latency against depth: {escape(title)}</h1>",
        f'<p class="soft">{escape(target["url"])} · {findings.plan.loop} loop · {report["created"]}</p>',
        _verdict(report),
        f'<h2>Pictures</h2><div class="pictures">{"".join(pictures)}</div>',
        _fits(findings),
        _sweep(findings),
        f"<p>{escape(probe_words(findings.probe))}.</p>" if findings.probe else "",
        *phases,
        '<p class="soft">Milliseconds; ~ marks a percentile with fewer than ten requests beyond it.</p>',
        _facts(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}: load test</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _verdict(report: dict[str, Any]) -> str:
    verdict, client = report["verdict"], report["client"]
    limits = [cell["limit"] for cell in client["cells"] if cell["limit"]]
    notes = [*verdict["reasons"]]
    if limits:
        notes.append(
            f"the client was the limit in {len(limits)} of {len(client['cells'])} cells: {limits[0]}"
        )
    notes += [cell["full"] for cell in client["cells"] if cell["full"]][:1]
    words = "Every bound was kept." if verdict["passed"] else "Not passed."
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    kind = "verdict" if verdict["passed"] else "verdict bad"
    return f'<div class="{kind}"><strong>{words}</strong>{f"<ul>{items}</ul>" if items else ""}</div>'


def _rows_table(rows: Sequence[Row]) -> str:
    heads = ["load", "depth", "ok", "refused", "failed", "timed out", "p50", "p90", "p95", "p99", "max"]
    heads += ["queue p50", "compute p50", "used", "offered/s", "achieved/s", "goodput/s", "right"]
    lines = []
    for row in rows:
        cells = [row.load, row.depth, *(str(count or "") for count in row.outcomes.values())]
        cells += [_percentile(row.latency_ms, name) for name in ("p50", "p90", "p95", "p99", "max")]
        cells += [_number(spread.p50 if spread else None) for spread in (row.queue_ms, row.compute_ms)]
        cells += [_number(row.steps_used), _number(row.rates.offered), _number(row.rates.achieved)]
        cells += [_number(row.rates.goodput), f"{row.accuracy.share:.1%}" if row.accuracy else ""]
        lines.append(cells)
    return _table(heads, lines)


def _fits(findings: Findings) -> str:
    if not findings.fits:
        return ""
    lines = []
    for line in findings.fits:
        fit = line.fit
        worst = max(fit.residuals, key=lambda residual: abs(residual.residual_ms))
        lines.append(
            [
                f"{line.phase} ({load_words(line.loop, line.level)})",
                f"{fit.a_ms:.2f}",
                f"{fit.a_interval95[0]:.2f} to {fit.a_interval95[1]:.2f}",
                f"{fit.b_ms:.3f}",
                f"{fit.b_interval95[0]:.3f} to {fit.b_interval95[1]:.3f}",
                f"{fit.r_squared:.4f}",
                f"{worst.residual_ms:+.2f} at {worst.steps} steps",
                "yes" if fit.linear else "no",
            ]
        )
    heads = [
        "latency = a + b·steps",
        "a (ms)",
        "95 %",
        "b (ms/step)",
        "95 %",
        "R²",
        "worst residual (ms)",
        "linear",
    ]
    return f"<h2>Fit</h2>{_table(heads, lines)}"


def _sweep(findings: Findings) -> str:
    if not findings.searches:
        return ""
    lines = [
        [
            "mix" if found.depth is None else f"depth {found.depth}",
            "none" if found.search.best is None else f"{found.search.best:.4g}",
            "" if found.search.broken is None else f"{found.search.broken:.4g}",
            found.search.ended,
        ]
        for found in findings.searches
    ]
    return f"<h2>Highest rates</h2>{_table(['', 'holds (1/s)', 'fails (1/s)', 'the search ended at'], lines)}"


def _facts(report: dict[str, Any]) -> str:
    facts = {**report["target"], **report["plan"], **report["environment"]}
    shown = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_words(value))}</dd>"
        for name, value in facts.items()
        if value not in (None, [], (), {})
    )
    return f"<h2>Circumstances</h2><dl>{shown}</dl>"


def _words(value: object) -> str:
    """A JSON value without the punctuation: {"python": "3.11"} -> python 3.11."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which no line has anything to say."""
    kept = [place for place in range(len(heads)) if any(line[place] for line in lines)]
    head = "".join(f"<th>{escape(heads[place])}</th>" for place in kept)
    body = "".join("<tr>" + "".join(f"<td>{escape(line[p])}</td>" for p in kept) + "</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _percentile(spread: Spread | None, name: str) -> str:
    return "" if spread is None else ("~" if name in spread.thin else "") + _number(getattr(spread, name))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
