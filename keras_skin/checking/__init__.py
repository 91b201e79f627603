"""Checks a data set on disk: files, masks, duplicates, labels, and shortcuts to the class."""
