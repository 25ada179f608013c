"""Suites: the papers' tables and figures as recipes that can be run, stopped, shared and compared with what is in print."""
