"""The pages and pictures that show what a run gained: the page about one plan, the demo's page, its grid and clips, the
comparison's page, and the calibration's pictures.

They are drawn with jinja2, altair, vl-convert and matplotlib, the ``report`` extra, imported on the first call.
"""

from omnicache.report.bench import write_bench
from omnicache.report.calibration import write_calibration
from omnicache.report.clips import write_clips
from omnicache.report.grid import write_grid
from omnicache.report.page import write_page
from omnicache.report.peers import write_peers
from omnicache.report.report import write_report

__all__ = ["write_bench", "write_calibration", "write_clips", "write_grid", "write_page", "write_peers", "write_report"]
