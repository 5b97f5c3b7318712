"""`hdr doctor`: what works here, and what to install or mend."""

from typing import Annotated

import typer

from hdrcli.cli import render


def doctor(json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False) -> None:
    """Check this installation: packages, devices, models, space. Exit code 1 where something is broken."""
    from hdrcli.tasks.doctor import examine, record

    findings = []
    for finding in examine():
        findings.append(finding)
        if not json:
            render.data(f"{finding.state:<8}{finding.subject}: {finding.detail}")
            if finding.hint:
                render.data(f"{'':8}{finding.hint}")
    result = record(findings)
    if json:
        render.json_line(result)
    if not result["healthy"]:
        raise typer.Exit(1)
