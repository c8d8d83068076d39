"""Makes cnn.json and cnn-classes-3.json: the CNN baseline's logits, loss and gradients in PyTorch, for src/baselines/cnn/tests.rs.

    pip install torch && python tests/golden/cnn.py

The network is torch.nn's own Conv1d, max, ReLU, Linear and cross_entropy. Weights of Conv1d, (F, D, k), are stored as ours, (F, k·D).
"""

import json
import pathlib

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
KERNELS, FILTERS, WIDTH, PROJECTION = [2, 3, 4, 5], 3, 4, 5


def stored(tensor):
    tensor = tensor.detach()
    if tensor.dim() == 3:
        tensor = tensor.permute(0, 2, 1).reshape(tensor.shape[0], -1)
    return {"shape": list(tensor.shape), "values": [float(f"{x:.9g}") for x in tensor.flatten().tolist()]}


def make(name, classes, labels):
    torch.manual_seed(20260411)
    table = torch.randn(9, WIDTH)
    ids = [[1, 2, 3, 4, 5, 6, 7], [8, 0, 8], [5, 5, 5, 5, 1, 2]]
    convs = {k: torch.nn.Conv1d(WIDTH, FILTERS, k) for k in KERNELS}
    projection, out = torch.nn.Linear(len(KERNELS) * FILTERS, PROJECTION), torch.nn.Linear(PROJECTION, classes)
    with torch.no_grad():  # A unit whose ReLU stands at exactly 0, where PyTorch's gradient is 0.
        projection.weight[2], projection.bias[2] = 0, 0

    rows = []
    for document in ids:
        x = table[document]
        x = F.pad(x, (0, 0, 0, max(0, KERNELS[-1] - len(document)))).T[None]
        rows.append(torch.cat([F.relu(convs[k](x)).amax(dim=2) for k in KERNELS], dim=1))
    logits = out(F.relu(projection(torch.cat(rows))))
    loss = F.cross_entropy(logits, torch.tensor(labels))
    loss.backward()

    layers = {**{f"conv{k}": conv for k, conv in convs.items()}, "projection": projection, "out": out}
    weights = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    golden = {
        "ids": ids,
        "labels": labels,
        "embeddings": stored(table),
        "weights": {name: stored(weight) for name, weight in weights.items()},
        "logits": stored(logits),
        "loss": loss.item(),
        "probabilities": stored(logits.softmax(dim=1)),
        "gradients": {name: stored(weight.grad) for name, weight in weights.items()},
    }
    pathlib.Path(__file__).with_name(name).write_text(json.dumps(golden) + "\n")


make("cnn.json", 2, [1, 0, 1])
make("cnn-classes-3.json", 3, [1, 0, 2])
