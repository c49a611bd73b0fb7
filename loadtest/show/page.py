"""report.html: one self-contained page with every picture and table, for light and dark screens."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from loadtest.analyse.capacity import capacity
from loadtest.analyse.findings import Findings
from loadtest.show.words import capacity_words, fit_cells, probe_words, summary_cells, sweep_words

_EXPLAINED = {
    "latency_against_depth": "Median latency by steps used, the band up to p99, and the line where one fits.",
    "distribution": "Every percentile of every depth; the right end is the tail.",
    "throughput_against_p99": "What a higher rate costs: a line that bends upwards has reached saturation.",
    "server_over_time": "What callers saw, and under it what the server said of itself at the time.",
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
figure a { color: var(--soft); margin-left: .6rem; }
.quote { font-size: 1.15rem; margin: 1rem 0; }
select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); }
[hidden] { display: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th, td { white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .85rem; }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


_SELECT = """
const select = document.getElementById('level');
const show = () => document.querySelectorAll('figure[data-load]').forEach(
  figure => { figure.hidden = figure.dataset.load !== select.value; });
if (select) { select.addEventListener('change', show); show(); }
"""


def write_page(
    report: Mapping[str, Any], findings: Findings, out: Path, formats: Sequence[str]
) -> str | None:
    """Writes `report.html`, and its pictures as `pictures/*` in each of `formats`.

    Returns what is not installed if pictures could not be drawn: then the page has tables alone.
    """
    figures: list[str] = []
    missing = None
    try:
        from loadtest.show.export import save_pictures
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
    else:
        figures = [_figure(*drawn) for drawn in save_pictures(findings, out / "pictures", formats)]
    (out / "report.html").write_text(_page(report, findings, figures), encoding="utf-8")
    return missing


def _figure(name: str, load: str | None, light: str, dark: str) -> str:
    """A figure for light and dark screens, that can be saved; shown when its level is selected."""
    light, dark = (base64.b64encode(svg.encode()).decode() for svg in (light, dark))
    alt = escape(name.replace("_", " "))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml;base64,{dark}">'
    image = f'<img alt="{alt}" src="data:image/svg+xml;base64,{light}">'
    save = f'<a download="{name}.svg" href="data:image/svg+xml;base64,{light}">SVG</a>'
    caption = f"<figcaption>{escape(_EXPLAINED[name])}{save}</figcaption>"
    level = "" if load is None else f' data-load="{escape(load)}"'
    return f"<figure{level}><picture>{source}{image}</picture>{caption}</figure>"


def _page(report: Mapping[str, Any], findings: Findings, figures: list[str]) -> str:
    target = report["target"]
    title = f"{target['model']} {target['version'] or ''}".strip()
    phases = []
    for phase, heading in _PHASES.items():
        lines = [summary_cells(summary) for summary in findings.summaries if summary.phase == phase]
        if lines:
            phases.append(f"<h2>{escape(heading)}</h2>{_table(lines)}")
    loads = list(dict.fromkeys(re.findall(r'<figure data-load="([^"]*)"', "".join(figures))))
    options = "".join(f"<option>{load}</option>" for load in loads)  # escaped already
    level = f'<p><label>Level: <select id="level">{options}</select></label></p>'
    parts = [
        f"<h1>Latency against depth: {escape(title)}</h1>",
        f'<p class="soft">{escape(target["url"])} · {findings.plan.loop} loop · {report["created"]}</p>',
        f'<p class="quote">{escape(report["headline"])}</p>',
        _verdict(report),
        "<h2>Pictures</h2>" if figures else "",
        level if len(loads) > 1 else "",
        f'<div class="pictures">{"".join(figures)}</div>',
        f"<h2>Fit</h2>{_table([fit_cells(line) for line in findings.fits])}" if findings.fits else "",
        _sweep(findings),
        f"<p>{escape(probe_words(findings.probe))}.</p>" if findings.probe else "",
        *phases,
        '<p class="soft">Milliseconds; ~ marks a percentile with fewer than ten requests beyond it.</p>',
        _facts(report),
        f"<script>{_SELECT}</script>" if len(loads) > 1 else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}: load test</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _verdict(report: Mapping[str, Any]) -> str:
    verdict, client = report["verdict"], report["client"]
    limits = [cell["limit"] for cell in client["cells"] if cell["limit"]]
    notes = [*verdict["reasons"]]
    if limits:
        notes.append(
            f"the client was the limit in {len(limits)} of {len(client['cells'])} cells: {limits[0]}"
        )
    notes += [cell["full"] for cell in client["cells"] if cell["full"]][:1]
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    kind = "verdict" if verdict["passed"] else "verdict bad"
    reasons = f"<ul>{items}</ul>" if items else ""
    return f'<div class="{kind}"><strong>{escape(verdict["words"])}</strong>{reasons}</div>'


def _sweep(findings: Findings) -> str:
    lines = []
    for found in findings.searches:
        lines.append(sweep_words(found))
        if findings.plan.plan:
            lines.append(capacity_words(capacity(found, findings.plan.plan)))
    items = "".join(f"<li>{escape(line)}.</li>" for line in lines)
    return f"<h2>Highest rates</h2><ul>{items}</ul>" if lines else ""


def _facts(report: Mapping[str, Any]) -> str:
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


def _table(lines: Sequence[Mapping[str, str]]) -> str:
    """A table of lines with the same columns, without those in which no line has anything to say."""
    names = [name for name in lines[0] if any(line[name] for line in lines)]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(line[n])}</td>" for n in names) + "</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
