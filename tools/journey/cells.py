"""Runs the cells of a notebook in a Jupyter kernel, or one after another without it."""

import json
import sys

path = sys.argv[1]
try:
    import nbclient
    import nbformat
except ImportError:
    with open(path) as file:
        cells = [
            each for each in json.load(file)["cells"] if each["cell_type"] == "code"
        ]
    for cell in cells:
        exec("".join(cell["source"]))
else:
    nbclient.NotebookClient(nbformat.read(path, as_version=4), timeout=600).execute()
