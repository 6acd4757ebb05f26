"""The command line: ``omnicache demo``, ``bench``, ``run``, ``report``, ``calibrate``, ``tune``, ``methods``, ``doctor``."""

from __future__ import annotations

import sys

import typer

from omnicache.cli import bench, calibrate, demo, doctor, methods, report, run, tune
from omnicache.errors import OmniCacheError

app = typer.Typer(
    help="Diffusion models faster, by reusing and forecasting what was already computed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("bench")(bench.bench)
app.command("run")(run.run)
app.command("report")(report.report)
app.command("calibrate")(calibrate.calibrate)
app.command("tune")(tune.tune)
app.command("methods")(methods.methods)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr and exit status 2."""
    try:
        app()
    except OmniCacheError as problem:
        print(f"omnicache: {problem}", file=sys.stderr)
        raise SystemExit(2) from None
