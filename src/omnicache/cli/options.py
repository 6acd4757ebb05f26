"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Pipe = Annotated[str, typer.Argument(help="A model of the zoo (emoji) or a diffusers folder.")]
Inputs = Annotated[list[str], typer.Option("--input", "-i", help="Prompt, or class by number or name; may repeat.")]
PlanSteps = Annotated[int, typer.Option(min=1, help="Sampler steps; the plan is made for exactly these.")]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale. If not given, that of the card of a model of the zoo, else the pipeline's own."),
]
RunGuidance = Annotated[
    float | None,
    typer.Option(
        help="Guidance scale. If not given, that of a plan file, else of the card of a model of the zoo, else the pipeline's own."
    ),
]
MethodOptions = Annotated[list[str], typer.Option("--option", "-o", help="An option of the method, name=value.")]
PlanFile = Annotated[Path, typer.Option(help="The plan file.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, and nothing else.")]
