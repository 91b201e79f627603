"""Figures of reports, drawn with matplotlib and written to files.

Every figure function takes `path`, the file to write, whose suffix decides the format; often `title`, the heading; and
`synthetic`, which marks the figure as drawn from stand-in data. It returns `path`, or None without a file if there is nothing to
draw.
"""
