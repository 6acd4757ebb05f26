import subprocess
import sys

import omnicache.measure


def test_torchmetrics_waits_for_the_first_call():
    code = "import sys, omnicache, omnicache.measure; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_functions_though_files_share_them():
    for name in omnicache.measure.__all__:
        assert callable(getattr(omnicache.measure, name))
