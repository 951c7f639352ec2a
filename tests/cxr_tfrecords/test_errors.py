"""What every command of ours does before and after its own work."""

import os
import subprocess
import sys


def test_the_first_use_of_matplotlib_on_a_machine_logs_nothing(tmp_path):
    code = (
        "from cxr_tfrecords.errors import run_main\n"
        "def main(argv):\n"
        "    import matplotlib.font_manager\n"
        "run_main(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(tmp_path.glob("fontlist*.json"))
    assert "font_manager" not in done.stderr
