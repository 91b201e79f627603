"""The Jinja environment of the pages and model cards."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(*packages: str, escape: bool = True) -> Environment:
    """Returns the environment for the templates of some packages; an undefined name in a template is an error.

    Args:
        *packages: names of the packages, searched in this order.
        escape: whether values are escaped for HTML.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, "") for package in packages]),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
