"""Whether a load test passed: the SLO holds and errors stay under their bound."""

from dataclasses import dataclass

from loadtest.analyse.findings import Findings

PASSED, FAILED, INTERRUPTED = 0, 1, 130


@dataclass(frozen=True)
class Verdict:
    """The outcome in one exit code, every reason against it, and the bounds that were asked for."""

    exit_code: int
    reasons: tuple[str, ...]
    bounds: str

    @property
    def passed(self) -> bool:
        return self.exit_code == PASSED

    @property
    def words(self) -> str:
        """The outcome in one line, which claims no more than what was asked."""
        return f"Kept: {self.bounds}." if self.passed else "Not passed."


def judge(findings: Findings) -> Verdict:
    """Every loaded condition must keep the SLO (if given) and the error rate; a sweep must find a rate that
    does.

    The points of a sweep that lie above what the server can take are meant to fail, and count for nothing
    here.
    """
    plan = findings.plan
    reasons = []
    for summary in findings.summaries:
        if summary.phase not in ("alone", "load"):
            continue
        place = f"{summary.phase} ({summary.load}), depth {summary.depth}"
        if summary.error_rate > plan.max_error_rate:
            share = f"{summary.error_rate:.2%} of {summary.requests} requests"
            most = next(iter(summary.errors), "")
            reasons.append(
                f"{place}: {share} not answered, {plan.max_error_rate:.2%} allowed (mostly: {most})"
            )
        if summary.phase == "load" and plan.slo_p99_ms is not None and not summary.keeps(plan.slo_p99_ms):
            p99 = f"{summary.latency_ms.p99:.1f} ms" if summary.latency_ms else "unknown"
            reasons.append(f"{place}: p99 is {p99}, the SLO {plan.slo_p99_ms:g} ms")
    for found in findings.searches:
        if found.search.best is None:
            depth = "the mix" if found.depth is None else f"depth {found.depth}"
            reasons.append(f"sweep, {depth}: no rate was found that holds ({found.search.ended})")
    if not findings.summaries:
        reasons.append("nothing was measured")
    bounds = f"at most {100 * plan.max_error_rate:.3g} % of the requests unanswered"
    if plan.slo_p99_ms is not None:
        bounds = f"p99 within {plan.slo_p99_ms:g} ms, {bounds}"
    else:
        bounds += "; no latency was asked for (--slo-p99-ms)"
    if findings.interrupted:
        return Verdict(INTERRUPTED, ("interrupted before its end", *reasons), bounds)
    return Verdict(FAILED if reasons else PASSED, tuple(reasons), bounds)
