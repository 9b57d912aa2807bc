"""Draws the displays of a run as PNGs for the docs, from the files of real runs.

python tools/pictures.py --output=docs/guides/figures runs/keydoor
python tools/pictures.py --output=/tmp/figures --until=0.77 --sizes=80x24,200x50 runs/a

It writes dashboard_WIDTH.png for each size, dashboard_ascii.png, status.png,
learning_curve.png and report.png. A headless Chromium turns pages and the SVGs of rich
into PNGs.
"""

import argparse
import math
import os
import pathlib
import re
import subprocess
import tempfile

import rich.console
from PIL import Image
from rich import terminal_theme

from impala_mp import errors
from impala_mp.cli import command_line
from impala_mp.monitoring import (
    curves,
    dashboard,
    history,
    report_page,
    run_state,
    status,
)
from impala_mp.storage import metrics

_COLOURS = 64  # of a PNG, which keep it small
_REPORT = (1000, 1250)  # pixels: the upper half of a report
_MESSAGES = 20  # at most, under the box


def state_at(path: str, until: float) -> run_state.RunState:
    """Returns the state of the run in `path` after the share `until` of its steps.

    Raises:
      BadInput: there is no run, or it cannot be read.
    """
    state = status.load(path).state
    end = until * state.facts.total_agent_steps
    records = history.History()
    for record in metrics.read(path):
        if record["agent_steps"] <= end:
            records.add(record)
    return state._replace(
        facts=state.facts._replace(folder=os.path.relpath(path)),
        history=records,
        checkpoint_age_secs=12.0,
        is_running=until < 1.0,
    )


def messages(path: str, last: str) -> list[str]:
    """Returns the first messages of the run, without their times and its last one.

    Raises:
      BadInput: its log cannot be read.
    """
    log = pathlib.Path(path, "logs", "supervisor.log")
    try:
        text = log.read_text()
    except OSError as error:
        raise errors.BadInput(
            f"{log} cannot be read ({error}). Name a run that has its logs."
        ) from error
    lines = [line[20:] for line in text.splitlines()[:_MESSAGES]]
    return [line for line in lines if line != last]


def draw(
    browser: str, file: pathlib.Path, content: object, width: int, height: int
) -> None:
    """Writes a PNG of something that rich prints."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = rich.console.Console(
            record=True, width=width, height=height, file=nowhere, force_terminal=True
        )
        console.print(content, end="")
    svg = console.export_svg(title=file.stem, theme=terminal_theme.DIMMED_MONOKAI)
    match = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert match, "rich writes the size into its SVGs"
    size = [math.ceil(float(pixels)) for pixels in match.groups()]
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder, "page.html")
        page.write_text(f"<meta charset=utf-8><style>body{{margin:0}}</style>{svg}")
        photograph(browser, file, page, size[0], size[1])


def photograph(
    browser: str, file: pathlib.Path, page: pathlib.Path, width: int, height: int
) -> None:
    """Writes a PNG of an HTML page.

    Raises:
      BadInput: the browser is missing, or fails.
    """
    command = [
        *(browser, "--headless", "--no-sandbox", "--hide-scrollbars"),
        *(f"--screenshot={file}", f"--window-size={width},{height}"),
        page.as_uri(),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
        shrink(file)
    except (OSError, subprocess.CalledProcessError) as error:
        raise errors.BadInput(
            f"--browser={browser} drew no {file.name} ({error}). Name a Chromium."
        ) from error


def shrink(file: pathlib.Path) -> None:
    """Leaves few colours in a PNG."""
    with Image.open(file) as image:
        image.convert("RGB").quantize(_COLOURS).save(file, optimize=True)


def sizes(text: str) -> list[tuple[int, int]]:
    """Parses WIDTHxHEIGHT,WIDTHxHEIGHT,..."""
    found = []
    for each in text.split(","):
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", each):
            raise argparse.ArgumentTypeError(
                f"{each!r} is no size. Name WIDTHxHEIGHT, for instance 80x24."
            )
        width, height = each.split("x")
        found.append((int(width), int(height)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="DIR")
    parser.add_argument("--output", required=True, help="folder of the PNGs")
    parser.add_argument(
        "--sizes", type=sizes, default="80x24,120x40", help="of terminals"
    )
    parser.add_argument("--until", type=float, default=0.77, help="share of the run")
    parser.add_argument("--browser", default="chromium", help="name or path")
    arguments = parser.parse_args()
    output = pathlib.Path(arguments.output)
    state = state_at(arguments.run, arguments.until)
    report = status.read(arguments.run, processes=True)
    news = messages(arguments.run, state.bottleneck)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.BadInput(
            f"--output={output} cannot be made ({error}). Name a folder."
        ) from error
    frames = [
        (f"dashboard_{width}", width, height, False)
        for width, height in arguments.sizes
    ]
    frames.append(("dashboard_ascii", *arguments.sizes[0], True))
    for name, width, height, ascii_only in frames:
        lines = dashboard.lines(state, width, height, ascii_only, messages=news)
        content = rich.console.Group(*lines)
        draw(arguments.browser, output / f"{name}.png", content, width, height)
    draw(arguments.browser, output / "status.png", report.table, 100, 40)
    curve = output / "learning_curve.png"
    curves.plot({state.facts.environment: [arguments.run]}, str(curve))
    shrink(curve)
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(report_page.write(arguments.run, f"{folder}/report.html"))
        photograph(arguments.browser, output / "report.png", page, *_REPORT)


if __name__ == "__main__":
    command_line.run(main)
