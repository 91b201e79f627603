"""Figures of reports, drawn with matplotlib and written to files."""
