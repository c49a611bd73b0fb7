"""What was found, in sentences and figures: the terminal and the page say the same."""

from loadtest.analyse.capacity import Capacity
from loadtest.analyse.estimates import Spread
from loadtest.analyse.findings import DepthSearch, Findings, LineFit, Probe
from loadtest.analyse.summaries import Summary, load_words


def number(value: float | None) -> str:
    """Three significant figures or so; nothing for an unknown one."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def percentile(spread: Spread | None, name: str) -> str:
    """A percentile, with ~ where too few samples lie beyond it."""
    return "" if spread is None else ("~" if name in spread.thin else "") + number(getattr(spread, name))


def summary_cells(summary: Summary) -> dict[str, str]:
    """One line of a table of summaries, in ms, medians where no percentile is named."""
    spreads = {
        "queue": summary.queue_ms,
        "compute": summary.compute_ms,
        "first step": summary.first_step_ms,
        "between": summary.between_steps_ms,
    }
    return {
        "load": summary.load,
        "depth": summary.depth,
        **{outcome.replace("_", " "): str(count or "") for outcome, count in summary.outcomes.items()},
        **{name: percentile(summary.latency_ms, name) for name in ("p50", "p90", "p95", "p99", "max")},
        **{name: number(spread.p50 if spread else None) for name, spread in spreads.items()},
        "used": number(summary.steps_used),
        "offered/s": number(summary.rates.offered),
        "achieved/s": number(summary.rates.achieved),
        "goodput/s": number(summary.rates.goodput),
        "right": f"{summary.accuracy.share:.1%}" if summary.accuracy else "",
    }


def fit_cells(line: LineFit) -> dict[str, str]:
    """One line of the table of fits."""
    fit = line.fit
    worst = max(fit.residuals, key=lambda residual: abs(residual.residual_ms))
    return {
        "latency = a + b·steps": f"{line.phase} ({load_words(line.loop, line.level)})",
        "a ms": f"{fit.a_ms:.2f}",
        "a, 95 %": f"{fit.a_interval95[0]:.2f} to {fit.a_interval95[1]:.2f}",
        "b ms/step": f"{fit.b_ms:.3f}",
        "b, 95 %": f"{fit.b_interval95[0]:.3f} to {fit.b_interval95[1]:.3f}",
        "b is": slope_words(line),
        "R²": "" if fit.r_squared is None else f"{fit.r_squared:.4f}",
        "linear": {None: "not tested: two depths", True: "yes", False: "no"}[fit.linear],
        "worst residual": "" if fit.linear is None else f"{worst.residual_ms:+.2f} ms at {worst.steps} steps",
    }


def slope_words(line: LineFit) -> str:
    """What the slope of a fit is the cost of."""
    return {
        "steps": "a step",
        "shared": "a step beside those of others",
        "queueing": "waiting in a queue, not a step",
    }[line.slope]


def depth_words(depth: int | None) -> str:
    """`depth 8`, or `the mix`."""
    return "the mix" if depth is None else f"depth {depth}"


def sweep_words(found: DepthSearch) -> str:
    """What a sweep found and what stopped it, in one sentence."""
    search, where = found.search, depth_words(found.depth)
    if search.best is None:
        return f"Sweep, {where}: no rate was found that holds; {search.ended}"
    held = f"Sweep, {where}: {search.best:.4g} requests/s hold"
    if search.broken is None:
        return f"{held}, and the search ended there: {search.ended}"
    point = next(point for point in search.points if point.rate == search.broken)
    why = point.saturated or point.missed
    client = f" (but there the client was at its limit: {point.client})" if point.client else ""
    return f"{held}; {search.broken:.4g}/s do not: {why}{client}"


def probe_words(probe: Probe) -> str:
    """The probe's result in one sentence."""
    before, after = probe.control.latency_ms, probe.among.latency_ms
    if before is None or after is None or probe.added_ms is None or probe.added_interval95 is None:
        return "Probe: too few answers to say anything about head-of-line blocking"
    low, high = probe.added_interval95
    said = (
        f"Probe: the same depth-1 requests take {before.p50:.1f} ms by themselves and {after.p50:.1f} ms "
        f"(p99 {after.p99:.1f}) among requests of depth {probe.deep.depth}: "
        f"{probe.added_ms:+.1f} ms (95 %: {low:+.1f} to {high:+.1f})"
    )
    if not probe.blocks:
        return f"{said}, no blocking that can be told from noise"
    if probe.added_server_ms is not None:
        said += f", {probe.added_server_ms:+.1f} of it by the server's clock"
    return said + ("" if probe.added_steps is None else f": {probe.added_steps:.1f} steps of the load")


def capacity_words(found: Capacity) -> str:
    """How many servers, and what that is made of."""
    where = f"{found.rate:g} requests/s of {depth_words(found.depth)}"
    if found.servers is None:
        return f"Plan, {where}: unknown, since no rate was found that one server holds"
    beyond = "" if found.broken is None else f"; {found.broken:.4g} it does not"
    return (
        f"Plan, {where}: {found.servers} servers: {found.working} at 60 % use of the {found.best:.4g}/s that "
        f"one holds{beyond}, one for upgrades, one to lose (at their very limit {found.least} would do)"
    )


def headline(findings: Findings, model: str) -> str:
    """One sentence that a person can quote: the best that was measured, and what a step costs."""
    said = _highest_rate(findings, model) or _deepest_answer(findings, model)
    if not said:
        return f"{model}: nothing was answered."
    lines = [line for line in findings.fits if line.slope == "steps" and line.fit.linear]
    if lines:
        fit = lines[0].fit
        by = "alone" if lines[0].phase == "alone" else load_words(lines[0].loop, lines[0].level)
        said += f"; {by}, a request takes {fit.a_ms:.2f} ms and {fit.b_ms:.2g} ms a step"
    return f"{said}."


def _highest_rate(findings: Findings, model: str) -> str:
    if not findings.searches:
        return ""
    slo = findings.plan.slo_p99_ms
    bound = f" with 99 % within {slo:g} ms" if slo else ""
    held = [found for found in findings.searches if found.search.best is not None]
    if not held:
        return f"{model} held no rate that was tried{bound}"
    found = held[-1]
    return f"{model} keeps up with {found.search.best:.3g} requests/s of {depth_words(found.depth)}{bound}"


def _deepest_answer(findings: Findings, model: str) -> str:
    for phase in ("load", "alone"):
        known = [s for s in findings.summaries if s.phase == phase and s.latency_ms]
        if known:
            one = max(known, key=lambda summary: (summary.depth_to, summary.level))
            assert one.latency_ms is not None, "those without a latency are left out"
            return (
                f"{model} answers depth {one.depth} in {number(one.latency_ms.p50)} ms (p99 "
                f"{percentile(one.latency_ms, 'p99')}) at {number(one.rates.achieved)} answers/s ({one.load})"
            )
    return ""
