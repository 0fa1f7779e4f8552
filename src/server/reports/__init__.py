"""Reporting: statistics, logging that never blocks, and console output."""
