"""What is looked at on NFS, in the small machine that `run` makes: /a is the export, /b the same by another client,
/v3 by version 3, /mnt an export with little room, /squashed one where root is nobody. The last line is
`N passed, N failed`.
"""
import os
import shutil
import signal
import subprocess
import sys
import time

from sweep import COMMANDS, KILLS, Sweep, differing, files

PROGRAM = "/usr/bin/clsgen"
passed = failed = 0


def check(what, wrong):
    """Counts, and prints what is wrong, if anything."""
    global passed, failed
    if wrong:
        failed += 1
        print(f"FAIL {what}: {wrong}", flush=True)
    else:
        passed += 1
        print(f"ok   {what}", flush=True)


class Exported:
    """A folder of the export; what is gone on with is what the server has: the client's memory of it is dropped."""

    def __init__(self, work, number):
        self.path, self.number = f"{work}/mount", number

    def __str__(self):
        return f"point {self.number}"

    def begun(self, before):
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(before, self.path)
        return self

    def left(self):
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
            caches.write("3")
        return self

    def __enter__(self):
        return "mount"

    def __exit__(self, *_):
        pass


def outcome(told, code, words):
    """Of a command that ended: what is wrong with it."""
    if told.returncode != code or any(word not in told.stderr for word in words):
        return f"exit code {told.returncode}: {told.stderr[-800:]}"
    return None


def same_bytes():
    """Each at the same place, since an adapter names its base model's."""
    for name in COMMANDS:
        found = []
        for work in ("/tests/work", "/a/work", "/v3/third"):
            subprocess.run(["mount", "--bind", work, "/work"], check=True)
            sweep = Sweep(PROGRAM, "/work", name)
            sweep.fresh("compared")
            told = sweep.command("compared")
            check(f"{name} in {work}", outcome(told, 0, []))
            found.append(files("/work/compared", sweep.but_for))
            subprocess.run(["umount", "/work"], check=True)
        check(f"{name} writes on NFS what it writes on a local disk", differing(found[0], found[1]))
        check(f"{name} writes by version 3 what it writes on a local disk", differing(found[0], found[2]))


def locks():
    """A run that another client writes is refused, until that one's process ends."""
    sweep = Sweep(PROGRAM, "/a/work", "train")
    for name, work in (("another client", "/b/work"), ("this client", "/a/work"), ("version 3", "/v3/work")):
        sweep.fresh("locked")
        command = sweep.words("locked", ["--set", "train.epochs=20"])
        with subprocess.Popen(command, cwd="/a/work", stderr=subprocess.DEVNULL) as first:
            while not os.path.exists("/a/work/locked/metrics.jsonl"):
                time.sleep(0.1)
            first.send_signal(signal.SIGSTOP)
            second = subprocess.run(command, cwd=work, capture_output=True, text=True)
            check(f"a run in use is refused to {name}", outcome(second, 2, ["locked by process", "hint: "]))
            first.kill()
        third = subprocess.run([*command, "--resume"], cwd=work, capture_output=True, text=True)
        check(f"and lent to {name} when its process is killed", outcome(third, 0, []))


def open_elsewhere():
    """A file that somebody has open stays as .nfs…: its folder cannot be removed."""
    sweep = Sweep(PROGRAM, "/a/work", "train")
    sweep.fresh("watched")
    command = sweep.words("watched", ["--set", "train.epochs=10"])
    opened = []
    with subprocess.Popen(command, cwd="/a/work", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as training:
        while training.poll() is None:
            for at, _, names in os.walk("/a/work/watched/checkpoints"):
                for name in names:
                    if len(opened) < 200 and not name.startswith(".nfs"):
                        try:
                            opened.append(open(f"{at}/{name}", "rb"))
                        except OSError:
                            pass
            time.sleep(0.05)
        told = training.stderr.read()
    check(f"train whose checkpoints somebody reads ({len(opened)} files)",
          training.returncode != 0 and f"exit code {training.returncode}: {told[-800:]}")
    for file in opened:
        file.close()
    again = subprocess.run([*command, "--resume"], cwd="/a/work", capture_output=True, text=True)
    check("and goes on after it", outcome(again, 0, []))


def room():
    """Without room the message says so, and what was written before stays."""
    shutil.copytree("/a/work", "/mnt/work", ignore=shutil.ignore_patterns("demo", "locked", "watched"))
    sweep = Sweep(PROGRAM, "/mnt/work", "predict")
    sweep.fresh("compared")
    sweep.fresh("second")
    check("predict where there is room", outcome(sweep.command("compared"), 0, []))
    before = files("/mnt/work/compared", ())
    with open("/mnt/full", "wb") as full:
        try:
            while True:
                full.write(bytes(4096))
                full.flush()
                os.fsync(full.fileno())
        except OSError:
            pass
    check("predict where there is none", outcome(sweep.command("second"), 5, ["hint: free some space"]))
    check("and what was there before is whole", differing(before, files("/mnt/work/compared", ())))
    os.remove("/mnt/full")
    told = sweep.command("second")
    there = files("/mnt/work/second", sweep.but_for)
    check("and it goes on where there is room again",
          outcome(told, 0, []) or differing(files("/mnt/work/compared", sweep.but_for), there))


def squashed():
    """Where root is nobody, root's files belong to somebody else."""
    work = "/squashed/work"
    os.mkdir(work)
    subprocess.run(["cp", "-r", "/a/work/model", "/a/work/prompts", "/a/work/data", "/a/work/demo.toml",
                    "/a/work/explained.jsonl", "/a/work/trained", work], check=True)
    for name in COMMANDS:
        sweep = Sweep(PROGRAM, work, name)
        sweep.fresh("own")
        told = sweep.command("own")
        check(f"{name} where root is nobody", outcome(told, 0, []))


def server_gone():
    """The server is away for a while: the command waits, and its bytes are the same."""
    sweep = Sweep(PROGRAM, "/a/work", "train")
    sweep.fresh("compared")
    whole = sweep.command("compared")
    expected = files("/a/work/compared", sweep.but_for)
    sweep.fresh("mount")
    away = subprocess.Popen(["sh", "-c", "sleep 3; rpc.nfsd 0; sleep 15; rpc.nfsd 8"])
    told = sweep.command("mount")
    away.wait()
    there = files("/a/work/mount", sweep.but_for)
    check("train while the server is away for 15 seconds",
          outcome(whole, 0, []) or outcome(told, 0, []) or differing(expected, there))


def main():
    global passed, failed
    shutil.copytree("/tests/work", "/a/work")
    shutil.copytree("/tests/work", "/v3/third")
    locks()
    open_elsewhere()
    room()
    squashed()
    server_gone()
    same_bytes()
    for work, name in [("/a/work", name) for name in COMMANDS] + [("/v3/third", "train")]:
        wrong = Sweep(PROGRAM, work, name).run(f"NFS, {work}", Exported)
        passed, failed = passed + KILLS - wrong, failed + wrong
    print(f"{passed} passed, {failed} failed", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:  # The machine goes off after it, whatever it was.
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        print(f"{passed} passed, {failed + 1} failed", flush=True)
