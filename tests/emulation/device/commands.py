"""The program's commands on the emulated card beside the same on the CPU in f32: losses, gradient norms, logits.

    commands.py CLSGEN LIBRARIES     LIBRARIES: what `build` made; last line `N passed, N failed`
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

CLSGEN, LIBRARIES = (os.path.abspath(path) for path in sys.argv[1:])
# Removed with the process.
FOLDER = tempfile.TemporaryDirectory()
WORK = pathlib.Path(FOLDER.name)
PASSED, FAILED = [], []

# bf16 has 8 bits: a loss is a mean over tokens, a norm one over weights.
LOSS, NORM, LOGIT = 1e-2, 4e-2, 6e-2
# A divergence, small beside the log-probabilities that it is made of.
CONSISTENCY = 4e-2
# Activations of 4 bits: what lies beside a middle of two of these numbers goes the other way.
FP8 = 3e-2


def check(name, right, detail=""):
    (PASSED if right else FAILED).append(name)
    print(f"{'ok  ' if right else 'FAIL'} {name}: {detail}", flush=True)


def clsgen(*arguments, device, env=()):
    """Runs the program; false where it fails, with what it said."""
    env = {**os.environ, **dict(env), "LD_LIBRARY_PATH": LIBRARIES}
    command = [CLSGEN, *arguments, "--device", device, "--quiet"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=WORK, timeout=900)
    if done.returncode:
        print(done.stderr[-2000:])
    return done.returncode == 0


def settings(values):
    return [part for value in values for part in ("--set", value)]


def lines(path):
    return [json.loads(line) for line in open(path)]


def write(name, records):
    (WORK / name).write_text("".join(json.dumps(record) + "\n" for record in records))


def near(ours, reference, bound):
    return abs(ours - reference) <= bound * max(abs(reference), 1e-3)


# Short, so that a case takes seconds: two steps of two records.
SHORT = ["model.max_input_tokens=240", "model.max_output_tokens=48"]
TRAIN = SHORT + ["data.train=four.jsonl", "train.batch_size=2", "train.grad_accumulation=1", "train.epochs=1",
                 "train.warmup_steps=0", "train.learning_rate=1e-3", "lora.dropout=0.1"]
ALL = 'lora.targets=["q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"]'
BF16 = ["model.dtype=bf16"]
THREE = ['task.labels=["0:low","1:middle","2:high"]', "data.train=three.jsonl"]
# Name, settings of both, settings on the card, its environment. (In f32 the program first measures the card's peak,
# which takes minutes here.)
TRAININGS = [
    ("bf16", [], BF16, {}),
    ("bf16 on an 8.0", [], BF16, {"EMULATED_CAPABILITY": "8.0"}),
    ("bf16, all projections, adapters fused", [ALL], BF16, {"CLSGEN_LORA": "fused"}),
    ("bf16, all projections, backward in one pass", [ALL], BF16, {"CLSGEN_ATTENTION_BACKWARD": "one-pass"}),
    ("bf16 on an 8.9, backward in one pass", [], BF16,
     {"EMULATED_CAPABILITY": "8.9", "CLSGEN_ATTENTION_BACKWARD": "one-pass"}),
    ("bf16, recomputed", [], BF16 + ["train.activation_memory=recompute"], {}),
    ("text alone", ["train.objective=lm", "train.prompt_loss_weight=0.2"], BF16, {}),
    ("consistency, class weights", ["train.w_consistency=0.5", "train.class_weights=balanced"], BF16, {}),
    ("smoothing", ["train.label_smoothing=0.1"], BF16, {}),
    ("three classes", THREE, BF16, {}),
    ("int8", ["model.quantize=int8"], BF16, {}),
    ("nf4", ["model.quantize=nf4"], BF16, {}),
    ("fp8", ["model.quantize=fp8"], BF16, {}),
]
# Name, settings of both, settings on the card, its environment.
PREDICTIONS = [
    ("f32", [], [], {}),
    ("bf16", [], BF16, {}),
    ("int8", ["model.quantize=int8"], BF16, {}),
    ("nf4", ["model.quantize=nf4"], BF16, {}),
    ("fp8", ["model.quantize=fp8"], BF16, {}),
]


def steps(name, values, device, env=()):
    """The step lines of a training run."""
    run = WORK / "runs" / name.replace(" ", "-").replace(",", "")
    train = ["train", "--config", "demo.toml", "--run", str(run), *settings(TRAIN + values)]
    done = clsgen(*train, device=device, env=env)
    return [line for line in lines(run / "metrics.jsonl") if line["type"] == "step"] if done else []


def trainings():
    references = {}
    for name, both, card, env in TRAININGS:
        key = str(both)
        if key not in references:
            references[key] = steps(f"cpu {name}", both + ["model.dtype=f32"], "cpu")
        reference = references[key]
        ours = steps(f"card {name}", both + card, "cuda", env)
        right = len(ours) == len(reference) == 2
        worst = {}
        for our, exact in zip(ours, reference):
            for part in ("loss", "loss_gen", "loss_cls", "loss_consistency", "grad_norm"):
                if exact.get(part) is None:
                    right &= our.get(part) is None
                    continue
                bound = {"grad_norm": NORM, "loss_consistency": CONSISTENCY}.get(part, FP8 if name == "fp8" else LOSS)
                right &= near(our[part], exact[part], bound)
                distance = abs(our[part] - exact[part]) / max(abs(exact[part]), 1e-3)
                worst[part] = max(worst.get(part, 0), distance)
        check(f"train, {name}", right, " ".join(f"{part} {distance:.1e}" for part, distance in worst.items()))


def predicted(name, values, device, env=()):
    """The prediction file's bytes."""
    output = WORK / f"{name.replace(' ', '-').replace(',', '')}.jsonl"
    predict = ["predict", "--model", "runs/demo", "--input", "two.jsonl", "--output", str(output)]
    predict += settings(["model.max_input_tokens=700", *values])
    return output.read_bytes() if clsgen(*predict, device=device, env=env) else b""


def predictions():
    for name, both, card, env in PREDICTIONS:
        reference = predicted(f"cpu {name}", both + ["model.dtype=f32"], "cpu")
        ours = predicted(f"card {name}", both + card, "cuda", env)
        pairs = list(zip(map(json.loads, ours.splitlines()), map(json.loads, reference.splitlines())))
        right = len(pairs) == 2
        worst = 0
        for our, exact in pairs:
            right &= our["parsable"] and our["error"] is None and our["prompt_tokens"] == exact["prompt_tokens"]
            size = max(abs(logit) for logit in exact["logits"])
            worst = max([worst] + [abs(a - b) / size for a, b in zip(our["logits"], exact["logits"])])
        check(f"predict, {name}", right and worst <= LOGIT, f"logits {worst:.1e}")
    usual = predicted("card bf16", BF16, "cuda")
    graph = {"CLSGEN_GRAPH": "on"}
    for env in [graph, {**graph, "EMULATED_BREAK": "1"}, {"CLSGEN_DECODE": "shared"}, {"CLSGEN_UNINIT": "nan"}]:
        name = " ".join("=".join(asked) for asked in env.items())
        other = predicted(f"card {name}", BF16, "cuda", env)
        check(f"predict, {name}", usual and other == usual, "the same bytes")


def constructs():
    for device in ("cpu", "cuda"):
        values = ["construct.trials=2", "construct.max_output_tokens=60", 'construct.splits=["train"]']
        values += ["data.train=two-labelled.jsonl"]
        construct = ["construct", "--config", "demo.toml", "--run", f"runs/construct-{device}", *settings(values)]
        done = clsgen(*construct, device=device)
        statistics = WORK / f"runs/construct-{device}/construct/stats.json"
        detail = json.loads(statistics.read_text())["splits"]["train"]["statistics"]["original"] if done else "stopped"
        check(f"construct, {device}", done, detail)


def main():
    if not clsgen("demo", "--notes", "40", "--out", "runs/demo", device="cpu"):
        sys.exit("the demonstration does not run")
    demo = WORK / "runs/demo"
    text = (demo / "demo.toml").read_text()
    for name in ("prompts/lcd30.toml", "data/", "model"):
        text = text.replace(f'"{name}', f'"runs/demo/{name}')
    kept = [line + "\n" for line in text.splitlines() if not line.startswith("dev =")]
    (WORK / "demo.toml").write_text("".join(kept))
    explained = lines(demo / "construct/train.jsonl")
    chosen = [[record for record in explained if record["label"] == label][:2] for label in (0, 1)]
    four = [record for pair in zip(*chosen) for record in pair]
    write("four.jsonl", four)
    write("three.jsonl", [{**record, "label": i % 3} for i, record in enumerate(four)])
    write("two.jsonl", lines(demo / "data/new.jsonl")[:2])
    train = lines(demo / "data/train.jsonl")
    write("two-labelled.jsonl", [next(record for record in train if record["label"] == label) for label in (0, 1)])
    trainings()
    predictions()
    constructs()
    print(f"{len(PASSED)} passed, {len(FAILED)} failed")
    sys.exit(bool(FAILED))


main()
