"""Compare training runs step by step: report.html, comparison.json, loss.png and a table.

    python -m ddpm_shared.compare runs/torch/A runs/tensorflow/B [runs/torch/C ...]

The first run is the baseline that every other is compared with. run_records.py reads the runs, gaps.py defines what a
gap is and when it is rounding, verdict.py puts it in words, comparison.py puts all of it together in the form that
records.py gives, charts.py, tables.py and report.py show it, and command.py is the command line.
"""

from ddpm_shared.compare.comparison import compare, set_up_differences
from ddpm_shared.compare.run_records import RunRecord, read_run, schema
from ddpm_shared.compare.tables import text

__all__ = ["RunRecord", "compare", "read_run", "schema", "set_up_differences", "text"]
