"""Whether a load test passed: the SLO holds and errors stay under their bound."""

from dataclasses import dataclass

from loadtest.experiment import Findings

PASSED, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Verdict:
    """The outcome in one exit code, and every reason against it in words."""

    exit_code: int
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.exit_code == PASSED


def judge(findings: Findings) -> Verdict:
    """Every loaded condition must keep the SLO (if given) and the error rate; a sweep must find a rate that
    does.

    The points of a sweep that lie above what the server can take are meant to fail, and count for nothing
    here.
    """
    plan = findings.plan
    reasons = []
    for row in findings.rows:
        if row.phase not in ("alone", "load"):
            continue
        place = f"{row.phase} ({row.load}), depth {row.depth}"
        if row.error_rate > plan.max_error_rate:
            share = f"{row.error_rate:.2%} of {row.requests} requests"
            most = next(iter(row.errors), "")
            reasons.append(
                f"{place}: {share} not answered, {plan.max_error_rate:.2%} allowed (mostly: {most})"
            )
        if row.phase == "load" and plan.slo_p99_ms is not None and not row.keeps(plan.slo_p99_ms):
            p99 = f"{row.latency_ms.p99:.1f} ms" if row.latency_ms else "unknown"
            reasons.append(f"{place}: p99 is {p99}, the SLO {plan.slo_p99_ms:g} ms")
    for found in findings.searches:
        if found.search.best is None:
            depth = "the mix" if found.depth is None else f"depth {found.depth}"
            reasons.append(f"sweep, {depth}: no rate was found that holds ({found.search.ended})")
    if not findings.rows:
        reasons.append("nothing was measured")
    if findings.interrupted:
        return Verdict(INTERRUPTED, ("interrupted before its end", *reasons))
    return Verdict(FAILED if reasons else PASSED, tuple(reasons))
