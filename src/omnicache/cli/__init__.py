"""The command line, ``omnicache``: each command is a function in a file of its name."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import omnicache
from omnicache.cli import bench, calibrate, check, demo, doctor, methods, report, run, tune
from omnicache.cli.common import plain_warnings, say
from omnicache.errors import OmniCacheError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"omnicache {omnicache.__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Diffusion models faster, by reusing and forecasting what was already computed."""
    context.with_resource(plain_warnings(say))


app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("calibrate")(calibrate.calibrate)
app.command("tune")(tune.tune)
app.command("check")(check.check)
app.command("methods")(methods.methods)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr and exit status 2."""
    try:
        app(prog_name="omnicache")
    except OmniCacheError as problem:
        print(f"omnicache: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
