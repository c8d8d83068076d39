"""Each command that goes on where it was stopped, killed at a storage operation on a disk that is told to it and begun
again on what is left there: every byte is that of a run that was left alone.
"""
import json
import os
import shutil
import subprocess
import sys

KILLS = int(os.environ.get("CLSGEN_KILLS", "10"))
SETTINGS = [
    "model.max_output_tokens=24", "construct.max_output_tokens=48", "construct.trials=2",
    "construct.on_fail=rationalize", "eval.bootstrap=200", "lora.dropout=0.1", "train.epochs=2", "train.batch_size=2",
    "train.save_every_steps=1",
]
# Arguments, those of going on, what the folder begins with, and files that tell the time.
COMMANDS = {
    "train": (["train", "--run", "FOLDER", "--set", "data.train=explained.jsonl"], ["--resume"], None,
              {"run.json"}),
    "construct": (["construct", "--run", "FOLDER"], [], None, {"run.json"}),
    "predict": (["predict", "--model", "trained", "--input", "data/test.jsonl", "--output", "FOLDER/o.jsonl"], [], None,
                {"o.jsonl.meta.json"}),
    "eval": (["eval", "--run", "FOLDER", "--baselines", "label", "--runs", "2"], [], "trained",
             {"run.json", "report.html"}),
}
# What a line of metrics.jsonl tells of the time.
TIMES = {"seconds", "tokens_per_s", "mfu", "allreduce_seconds", "allreduce_share", "dev_seconds"}


def without_times(log):
    lines = [json.loads(line) for line in log.splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def files(folder, but_for):
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.relpath(f"{at}/{name}", folder)
            if name not in but_for and name != ".lock" and not path.startswith("tensorboard"):
                with open(f"{at}/{name}", "rb") as file:
                    found[path] = without_times(file.read()) if name == "metrics.jsonl" else file.read()
    return found


def differing(left, right):
    """Names of files that are not the same in both."""
    return sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))


class Sweep:
    def __init__(self, program, work, name):
        self.program, self.work, self.name = program, work, name
        self.arguments, self.again, self.begin, self.but_for = COMMANDS[name]

    def words(self, folder, more=()):
        arguments = [argument.replace("FOLDER", folder) for argument in self.arguments]
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        return [self.program, *arguments, "--config", "demo.toml", *settings, *more]

    def command(self, folder, more=(), point=None):
        environment = dict(os.environ) | ({"CLSGEN_FAULT": f"any:{point}"} if point else {})
        return subprocess.run(self.words(folder, more), cwd=self.work, env=environment, capture_output=True, text=True)

    def fresh(self, name):
        path = f"{self.work}/{name}"
        shutil.rmtree(path, ignore_errors=True)
        if self.begin:
            shutil.copytree(f"{self.work}/{self.begin}", path)
        else:
            os.mkdir(path, 0o700)
        return path

    def last(self):
        """The last storage operation at which it can be killed, or one of the few before it."""
        low, high = 1, 16
        killed = lambda point: (self.fresh("tried"), self.command("tried", point=point).returncode < 0)[1]
        while killed(high):
            low, high = high, high * 2
        while high - low > 16:
            middle = (low + high) // 2
            low, high = (middle, high) if killed(middle) else (low, middle)
        return low

    def point(self, point, disk, whole):
        """Killed there, and gone on; what is wrong, if anything."""
        with disk.begun(self.fresh("before")) as folder:
            told = self.command(folder, point=point)
        if told.returncode >= 0:
            return f"ended before point {point}: {told.stderr[-500:]}"
        with disk.left() as folder:
            told = self.command(folder, self.again)
            if told.returncode != 0:
                return f"point {point}, {disk}: exit code {told.returncode}: {told.stderr[-800:]}"
            there = files(f"{self.work}/{folder}", self.but_for)
        names = differing(whole, there)
        return f"point {point}, {disk}: {names} differ" if names else None

    def run(self, what, disk_of):
        """At KILLS points, each on a disk that `disk_of` makes of the work's folder and the point's number."""
        self.fresh("whole")
        told = self.command("whole")
        if told.returncode != 0:
            sys.exit(f"{self.name}: {told.stderr}")
        whole = files(f"{self.work}/whole", self.but_for)
        last = self.last()
        wrong = 0
        for kill in range(1, KILLS + 1):
            found = self.point(-(-last * kill // KILLS), disk_of(self.work, kill), whole)
            if found:
                wrong += 1
                print(f"FAIL {self.name}, {found}", flush=True)
        print(f"{what}: {KILLS} points of {last} of {self.name}, {KILLS - wrong} identical, {len(whole)} files",
              flush=True)
        return wrong


def prepare(program, work):
    """The demonstration's model, prompt and config, and six notes a split."""
    made = f"{work}/demo"
    subprocess.run([program, "demo", "--out", made, "--notes", "40"], check=True, capture_output=True)
    for name in os.listdir(made):
        if name in ("model", "prompts", "data", "demo.toml"):
            shutil.move(f"{made}/{name}", f"{work}/{name}")
    for split in ("train", "dev", "test"):
        with open(f"{work}/data/{split}.jsonl", encoding="utf-8") as file:
            lines = sorted(file, key=lambda line: json.loads(line)["label"])
        with open(f"{work}/data/{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(lines[:3] + lines[-3:])
    with open(f"{work}/data/train.jsonl", encoding="utf-8") as file:
        text = file.read()
    with open(f"{work}/explained.jsonl", "w", encoding="utf-8") as file:
        file.write(text.replace('"label":', '"explanation": "A note.", "label":'))


def train(program, work):
    """The folder `trained`, that predict and eval begin with."""
    sweep = Sweep(program, work, "train")
    sweep.fresh("trained")
    told = sweep.command("trained")
    if told.returncode != 0:
        sys.exit(told.stderr)
