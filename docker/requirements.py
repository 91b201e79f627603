"""Prints the requirements that setup.cfg lists, and those of the extras that are named, for a layer of the image of their own."""

import configparser
import sys

settings = configparser.ConfigParser()
settings.read(sys.argv[1], encoding="utf-8")
print(settings["options"]["install_requires"].strip())
for extra in sys.argv[2:]:
    print(settings["options.extras_require"][extra].strip())
