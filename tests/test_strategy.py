"""Training on several devices by `MirroredStrategy`: the same loss as on one."""

import json
import subprocess
import sys

import numpy as np
import pytest

from scene_utils import paths

# Devices are set up once a process, before TensorFlow first computes, hence one of its own.
PROGRAM = """
import contextlib, json, sys
from pathlib import Path
from scene_utils import quiet_tensorflow
import numpy as np
import tensorflow as tf
from scene_utils import words as text
from scene_utils.source import train as training

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
rng = np.random.default_rng(0)

def examples(number):
    low = rng.uniform(0.05, 0.45, (number, 2))
    return training.Examples(
        rng.standard_normal((number, 32)).astype(np.float16),
        rng.permutation(number).astype(np.int32),
        rng.integers(1, 20, (number, 12)).astype(np.int32),
        np.concatenate([low, low + 0.4], axis=1).astype(np.float32),
    )

train, val = examples(256), examples(64)
vocabulary = text.Vocabulary.of([text.PAD, text.UNKNOWN, *(f"w{i}" for i in range(18))])
embeddings = rng.standard_normal((20, 8)).astype(np.float32)
# Without dropout: replicas draw their own masks.
settings = training.Settings(epochs=4, batch_size=64, widths=(32,), dropout=0.0)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
found = {}
for name, scope in (("one", contextlib.nullcontext()), ("two", strategy.scope())):
    with scope:
        history = training.train(settings, train, val, embeddings, vocabulary, {},
                                 Path(sys.argv[1]) / name, progress=False)
    found[name] = history[["loss", "val_mean_iou"]].values.tolist()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        **{"capture_output": True, "text": True, "cwd": paths.ROOT},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    found = json.loads(answer.stdout.splitlines()[-1])
    one, two = np.array(found["one"]), np.array(found["two"])
    assert one[-1, 0] < one[0, 0], "the loss should fall"
    np.testing.assert_allclose(two, one, rtol=1e-4)
