"""Data sets as people download them, each read into one table of records."""
