#!/usr/bin/env python3
"""The peer for inference: llama.cpp, through llama-cpp-python, on a GGUF of the same model. One line of JSON a process.

    llama_cpp_peer.py --gguf SMOLLM2.gguf --type bf16 --tokens 2048 [--rows 8] [--threads 2]

The GGUF, of whatever type, is first rewritten as --type in a temporary folder: what counts here is speed, not the weights' values.
"""
import argparse
import ctypes
import json
import os
import resource
import statistics
import tempfile
import time

import llama_cpp as ll

TYPES = {"f32": ll.LLAMA_FTYPE_ALL_F32, "bf16": 32, "q8_0": ll.LLAMA_FTYPE_MOSTLY_Q8_0}
UBATCH = 512
NEW = 16


def rewritten(gguf, kind, folder):
    params = ll.llama_model_quantize_default_params()
    params.ftype = TYPES[kind]
    params.allow_requantize = True
    path = os.path.join(folder, f"{kind}.gguf")
    if ll.llama_model_quantize(gguf.encode(), path.encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not rewrite {gguf} as {kind}")
    return path


def decode(context, batch, entries):
    """`entries`: (token, position, sequences, wants logits)."""
    batch.n_tokens = len(entries)
    for i, (token, position, sequences, logits) in enumerate(entries):
        batch.token[i], batch.pos[i], batch.logits[i], batch.n_seq_id[i] = token, position, logits, len(sequences)
        for j, sequence in enumerate(sequences):
            batch.seq_id[i][j] = sequence
    if ll.llama_decode(context, batch):
        raise SystemExit("llama_decode failed")


def measure(a, path):
    model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
    params = ll.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = a.tokens + a.rows * (NEW + 1), UBATCH, UBATCH, a.rows
    params.n_threads = params.n_threads_batch = a.threads
    params.kv_unified = True
    context = ll.llama_init_from_model(model, params)
    vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch, memory = ll.llama_batch_init(UBATCH, 0, a.rows), ll.llama_get_memory(context)
    prefill, generate = [], []
    for _ in range(a.steps + 1):
        ll.llama_memory_clear(memory, True)
        start = time.perf_counter()
        for first in range(0, a.tokens, UBATCH):
            rows = range(first, min(first + UBATCH, a.tokens))
            decode(context, batch, [(i * 7 % vocab, i, [0], i == a.tokens - 1) for i in rows])
        ll.llama_synchronize(context)
        prefill.append(time.perf_counter() - start)
        for row in range(1, a.rows):
            ll.llama_memory_seq_cp(memory, 0, row, -1, -1)
        start = time.perf_counter()
        for step in range(NEW):
            decode(context, batch, [((row * 31 + step) % vocab, a.tokens + step, [row], True) for row in range(a.rows)])
        ll.llama_synchronize(context)
        generate.append(time.perf_counter() - start)
    return dict(prefill=a.tokens / statistics.median(prefill[1:]), decode=a.rows * NEW / statistics.median(generate[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--type", choices=TYPES, default="bf16")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    a = parser.parse_args()
    quiet = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(quiet, None)
    ll.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(a, rewritten(a.gguf, a.type, folder))
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
