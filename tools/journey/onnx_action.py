"""Runs an exported policy with onnxruntime alone."""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
inputs = {
    each.name: np.zeros(
        [1 if not isinstance(n, int) else n for n in each.shape],
        {"tensor(int64)": np.int64, "tensor(float)": np.float32}.get(
            each.type, np.uint8
        ),
    )
    for each in session.get_inputs()
}
print(json.dumps([each.tolist() for each in session.run(None, inputs)])[:200])
