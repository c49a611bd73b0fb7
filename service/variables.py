"""Environment variables that look like ours and are none: most often a setting whose name was mistyped."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from service.settings import PREFIX, Settings, variable_of

OLD = {  # names from before: what took their place
    "FATHOM_QUEUE_STEPS": "FATHOM_QUEUE_SECONDS, in seconds of compute rather than in steps",
    "FATHOM_MAX_LATENT_BYTES": "FATHOM_MAX_EVENT_BYTES, for one request, and FATHOM_MAX_HELD_BYTES, for all",
}
OF_OTHERS = re.compile(
    r"FATHOM_(LOADTEST_.+|RAY_.+"  # commands and deployments with variables of their own
    r"|BIND|BUNDLES|CPUS|MEMORY|REPLICAS|IMAGE|(GPU|PROXY)_(PORT|IMAGE|MEMORY|EXTRA|READ_ONLY)"  # compose's
    r"|SERVICE_(HOST|PORT.*)|PORT_\d+_(TCP|UDP).*)"  # Kubernetes' links to a service of this name
)
CLOSE = 0.8  # how alike two names must be for one to be a mistyped other


def complaints(environment: Mapping[str, str], of_commands: frozenset[str] = frozenset()) -> list[str]:
    """A sentence for each variable FATHOM_… that does nothing. of_commands: what other commands read."""
    known = {variable_of(name) for name in Settings.model_fields} | of_commands
    found = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or OF_OTHERS.fullmatch(name):
            continue
        if name in OLD:
            found.append(f"{name} is not read any more; it is now {OLD[name]}")
        else:
            alike = difflib.get_close_matches(name, known, 1, CLOSE)
            hint = f"; did you mean {alike[0]}?" if alike else "; docs/settings.md lists those that are"
            found.append(f"{name} is no setting, and does nothing{hint}")
    return found
