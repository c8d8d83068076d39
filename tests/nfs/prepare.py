"""What the commands begin with, so small that a machine without a floating-point unit of its own trains it in seconds:
the demonstration's prompts and notes, the notes cut, and a Llama of one layer with random weights.

    prepare.py PROGRAM FOLDER     with tests/power on PYTHONPATH
"""
import json
import os
import random
import struct
import sys

from sweep import prepare, train

HIDDEN, INTERMEDIATE, WORDS = 32, 64, 30


def shapes(vocabulary):
    layer = "model.layers.0"
    return {
        "model.embed_tokens.weight": (vocabulary, HIDDEN), "model.norm.weight": (HIDDEN,),
        f"{layer}.input_layernorm.weight": (HIDDEN,), f"{layer}.post_attention_layernorm.weight": (HIDDEN,),
        **{f"{layer}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"},
        **{f"{layer}.mlp.{name}_proj.weight": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")},
        f"{layer}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
    }


def smaller_model(folder):
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config |= {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": 1, "head_dim": HIDDEN,
               "num_attention_heads": 1, "num_key_value_heads": 1, "torch_dtype": "float32"}
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    rng = random.Random(1)
    header, weights = {}, b""
    for name, shape in shapes(config["vocab_size"]).items():
        numbers = [rng.gauss(0, 0.1) for _ in range(shape[0] * (shape[1] if len(shape) == 2 else 1))]
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(weights), len(weights) + len(packed)]}
        weights += packed
    header = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + weights)


def shorter_notes(path):
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    for record in records:
        for name, value in record.items():
            if isinstance(value, str) and len(value.split()) > WORDS:
                record[name] = " ".join(value.split()[:WORDS])
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def main():
    program, work = os.path.abspath(sys.argv[1]), sys.argv[2]
    prepare(program, work)
    smaller_model(f"{work}/model")
    for name in ("explained", "data/train", "data/dev", "data/test"):
        shorter_notes(f"{work}/{name}.jsonl")
    train(program, work)


if __name__ == "__main__":
    main()
