"""Options that many commands share, and what `--help` says of them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Scheduler = Annotated[str | None, Parameter(help="threads, local:N or tcp://host:port.")]
Quiet = Annotated[bool, Parameter(name=("--quiet", "-q"), negative="", help="No progress bar.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of text.")]
