"""Record the README's picture: run the waiting job of the demo for real, and draw what the terminal showed as SVG.

python examples/picture.py        writes examples/quickstart/run.svg
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import TRAIN, Demo
from rich.console import Console
from rich.text import Text

COLUMNS = 96
COMMAND = ["submit", "--name", "train-later", "--duration", "25s", "--max-delay", "2m"]
PICTURE = TRAIN.with_name("run.svg")
WEB_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)  # a picture in a README loads nothing from elsewhere
SAMPLE = re.compile(r"^--- sample ---$.*?^-+$", re.DOTALL | re.MULTILINE)
BORING = ("note: this machine", "checkpoint", "still waiting", "step 5", "step 1")


def main() -> None:
    """Run, collect the lines worth showing, draw."""
    with tempfile.TemporaryDirectory(prefix="cs-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.prepare()
            shown = record(demo)
        finally:
            demo.run("server", "stop", "--force", check=False)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in shown:
        bold = line.startswith(("$", "Decision", "Receipt")) or "=>" in line or "CO2e  " in line[:10]
        console.print(Text(line.rstrip(), style="bold green" if "=>" in line else "bold" if bold else ""))
    svg = console.export_svg(title="carbon-sched submit")
    PICTURE.write_text(WEB_FONT.sub("", svg), encoding="utf-8")
    print(f"wrote {PICTURE}")


def record(demo: Demo) -> list[str]:
    """What the command printed, in order; the model's sample and repeated lines left out."""
    command = [sys.executable, "-m", "carbon_sched.cli.main", *COMMAND, str(TRAIN), "--steps", "300"]
    env = {**demo.environment, "COLUMNS": str(COLUMNS)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    lines = [
        line for line in SAMPLE.sub("", done.stdout).splitlines() if not line.startswith(BORING) and "INFO" not in line
    ]
    return [f"$ carbon-sched {' '.join(COMMAND)} train.py --steps 300", *lines]


if __name__ == "__main__":
    main()
