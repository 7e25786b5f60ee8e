"""Whatever goes wrong, every wait ends as the true history of its run demands, and no mail goes out twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_faults_at_random_are_survived() -> None:
    command = [sys.executable, "-m", "tests.reliability.soak", "--seed", "20260101", "--seconds", "5"]
    soak = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert soak.returncode == 0, (soak.stdout + soak.stderr)[-4000:]
    assert soak.stdout.rstrip().endswith("ok")
