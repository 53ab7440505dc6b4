"""Run both programs and write what they found into docs/benchmarks.md and its chart.

python docs.py [--quick] [--skip-growth]

Everything between the headings "Conditions" and "Reading them" of that page is replaced; what is written below them is
for a person to bring in line.
"""

import argparse
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from environments import BENCH, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
CHART = ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "## Conditions\n", "## Reading them\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the work, to try this program")
    parser.add_argument("--skip-growth", action="store_true", help="leave out the million workflows, and memory")
    options = parser.parse_args()
    flags = ["--quick"] if options.quick else []
    with tempfile.TemporaryDirectory() as directory:
        tables = Path(directory) / "run.md"
        code = _run("run.py", *flags, "--markdown", str(tables), "--svg", str(CHART))
        facts, body = _parts(tables.read_text())
        if not options.skip_growth:
            growth = Path(directory) / "growth.md"
            code = _run("growth.py", *flags, "--markdown", str(growth)) or code
            body += "\n" + _parts(growth.read_text())[1]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    today = datetime.now(timezone.utc).date().isoformat()
    conditions = f"{BEGIN}\nA virtual machine, a local disk, {today}.\n\n{facts}\n"
    PAGE.write_text(f"{head}{conditions}\n{body}\n{END}{tail}")
    print(f"wrote {PAGE} and {CHART}", file=sys.stderr)
    return code


def _run(script: str, *flags: str) -> int:
    """The exit code; a row that failed is said in its table, so the page is written all the same."""
    return subprocess.run([sys.executable, str(BENCH / script), *flags]).returncode


def _parts(markdown: str) -> tuple[str, str]:
    """The list of facts at the top, and the tables, with headings as the page has them."""
    facts, _, body = markdown.partition("\n\n")
    return facts, body.replace("### ", "## ").strip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
