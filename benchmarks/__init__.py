"""Measurements: parity with recorded numbers, speed, memory. Each prints one table, or JSON with --json."""
