"""Measurements: parity with recorded numbers, speed, memory. Each prints what it found; `--json FILE` writes the numbers too."""
