"""A small GGUF on stdout: a Llama's metadata, a byte-level tokenizer of a few tokens, tensors in F32 and Q8_0."""
import struct
import sys

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TOKENS = ["<s>", "</s>", "a", "b", "ab", "Ġ"]
METADATA = [
    ("general.architecture", STRING, "llama"), ("llama.embedding_length", U32, 32),
    ("llama.feed_forward_length", U32, 32), ("llama.block_count", U32, 1), ("llama.attention.head_count", U32, 1),
    ("llama.attention.head_count_kv", U32, 1), ("llama.attention.key_length", U32, 32),
    ("llama.context_length", U32, 128), ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
    ("llama.rope.freq_base", F32, 1e4), ("llama.rope.scaling.type", STRING, "linear"),
    ("llama.rope.scaling.factor", F32, 2.0), ("tokenizer.ggml.model", STRING, "gpt2"),
    ("tokenizer.ggml.pre", STRING, "llama-bpe"), ("tokenizer.ggml.bos_token_id", U32, 0),
    ("tokenizer.ggml.eos_token_id", U32, 1), ("tokenizer.ggml.add_bos_token", BOOL, True),
    ("tokenizer.ggml.tokens", ARRAY, (STRING, TOKENS)), ("tokenizer.ggml.merges", ARRAY, (STRING, ["a b"])),
    ("tokenizer.ggml.token_type", ARRAY, (I32, [3, 3, 1, 1, 1, 1])),
    ("tokenizer.chat_template", STRING, "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"),
]
# Name, shape (the innermost first), GGML's type, bytes.
TENSORS = [("token_embd.weight", (32, len(TOKENS)), 0, 4 * 32 * len(TOKENS)), ("output_norm.weight", (32,), 0, 128),
           ("blk.0.attn_q.weight", (32, 32), 8, 34 * 32)]
ALIGNED = 32


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def value(kind, it):
    if kind == STRING:
        return string(it)
    if kind == ARRAY:
        inner, items = it
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], it)


def main():
    out = b"GGUF" + struct.pack("<IQQ", 3, len(TENSORS), len(METADATA))
    for key, kind, it in METADATA:
        out += string(key) + struct.pack("<I", kind) + value(kind, it)
    data = b""
    for name, shape, kind, size in TENSORS:
        data += bytes(-len(data) % ALIGNED)
        out += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += bytes(size)
    sys.stdout.buffer.write(out + bytes(-len(out) % ALIGNED) + data)


main()
