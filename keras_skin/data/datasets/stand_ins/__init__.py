"""Drawn stand-ins of the data sets, in their official layouts: for demos and tests."""
