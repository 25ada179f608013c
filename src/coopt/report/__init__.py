"""Figures of results. Nothing here computes a number or shows a window."""
