"""impala-report as a command."""

import subprocess
import sys

from impala_mp import __version__
from tests.support import run_folder

_COMMAND = [sys.executable, "-m", "impala_mp.cli.report"]


def _run(*arguments):
    return subprocess.run([*_COMMAND, *arguments], capture_output=True, text=True)


def test_the_page_is_written_and_named(tmp_path):
    run_folder.write(tmp_path)
    done = _run(f"--workdir={tmp_path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/report.html\n"
    done = _run(str(tmp_path), f"--output={tmp_path}/r.html")
    assert done.stdout == f"{tmp_path}/r.html\n"
    page = (tmp_path / "r.html").read_text()
    assert page.endswith("</html>\n")


def test_bad_input_is_a_sentence(tmp_path):
    done = _run(str(tmp_path))
    assert done.returncode == 2
    assert "has no run" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help():
    assert _run("--version").stdout.strip().endswith(__version__)
    assert "impala-report DIR [--output=FILE]" in _run("--help").stdout


def test_it_starts_without_torch():
    code = "import sys, impala_mp.monitoring.report_page; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
