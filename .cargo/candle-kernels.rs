//! candle-kernels' build script as clsgen wants it: `rustc.sh` compiles this file in the place of the crate's own.
//!
//! The crate's own spends 9 minutes on 2 cores, for the most part on kernels for quantized and mixture-of-experts
//! weights, which clsgen never launches (GGUF files are widened on the host): 35 MB of them in `libmoe.a`, instead of
//! which this project's build.rs has an archive of stubs, and 6 MB of PTX. Nearly all of the other 5 MB is for types
//! and functions that clsgen has kernels of its own for or no use of. What stays is the plain arithmetic, copies, casts
//! and sums that candle's tensors do around our kernels: [`KEPT`]. A kernel that is not there is an error of the call
//! that wants it.
//!
//! After a change here: `cargo clean --release -p candle-kernels`, since cargo does not know this file.

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::{exit, Command},
    thread,
};

/// Types that clsgen calculates with on a device.
const NUMBERS: &[&str] = &["f32", "bf16"];
/// Numbers, and the masks of comparisons.
const MASKS: &[&str] = &["f32", "bf16", "u8"];
/// Numbers, and the ids that rows are chosen by.
const IDS: &[&str] = &["f32", "bf16", "u32"];
/// Types of all the tensors that are copied and filled.
const ALL: &[&str] = &["f32", "bf16", "u8", "u32"];

/// Modules in the crate's order, the operations kept of each (a kernel's name up to its types), and their types. A
/// module without any is an empty text.
const KEPT: [(&str, &[&str], &[&str]); 11] = [
    ("affine", &["affine"], NUMBERS),
    ("binary", &["badd", "bsub", "bmul", "bdiv", "gt"], NUMBERS),
    ("cast", &["cast"], MASKS),
    ("conv", &[], &[]),
    ("fill", &["fill", "const_set", "copy2d"], ALL),
    // index_select
    ("indexing", &["is"], IDS),
    ("quantized", &[], &[]),
    ("reduce", &["sum", "fast_sum", "fast_sum_small"], NUMBERS),
    ("sort", &[], &[]),
    ("ternary", &[], &[]),
    ("unary", &["ucopy", "uneg", "usqr", "usqrt", "uabs"], ALL),
];

fn main() {
    for name in ["CUDA_HOME", "CUDA_PATH", "NVCC", "NVCC_CCBIN", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=src");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("OUT_DIR is not set")));
    let home = ["CUDA_HOME", "CUDA_PATH"].iter().find_map(env::var_os).map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
    let nvcc = env::var_os("NVCC").map_or_else(|| home.join("bin/nvcc"), PathBuf::from);
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".into());
    thread::scope(|scope| {
        for (module, operations, types) in KEPT {
            let (nvcc, path, capability) = (&nvcc, out.join(format!("{module}.ptx")), &capability);
            scope.spawn(move || {
                if operations.is_empty() {
                    return write(&path, "");
                }
                compile(nvcc, module, capability, &path);
                let text = fs::read_to_string(&path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
                write(&path, &kept(&text, |name| wanted(name, operations, types)));
            });
        }
    });
    let constant = |(module, ..): (&str, _, _)| {
        format!("pub const {}: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/{module}.ptx\"));\n", module.to_uppercase())
    };
    write(&out.join("ptx.rs"), &KEPT.into_iter().map(constant).collect::<String>());
    println!("cargo:rustc-link-lib=moe");
}

/// The crate's own flags.
fn compile(nvcc: &Path, module: &str, capability: &str, to: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-ptx", "-O3", "-std=c++17", "--expt-relaxed-constexpr"]).arg(format!("--gpu-architecture=sm_{capability}"));
    if let Some(compiler) = env::var_os("NVCC_CCBIN") {
        command.arg("-allow-unsupported-compiler").arg("-ccbin").arg(compiler);
    }
    match command.arg("-o").arg(to).arg(format!("src/{module}.cu")).status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail(&format!("nvcc failed on candle-kernels' {module}.cu")),
        Err(e) => fail(&format!("{}: {e}. The feature `cuda` needs the CUDA 13.0 compiler: set NVCC, or CUDA_HOME", nvcc.display())),
    }
}

/// The wanted kernels of a module, and the functions and variables that they use.
fn kept(ptx: &str, wanted: impl Fn(&str) -> bool) -> String {
    let items = items(ptx);
    let mut kept = vec![false; items.len()];
    let mut queue: Vec<usize> = (0..items.len()).filter(|&i| items[i].0.is_empty() || wanted(items[i].0)).collect();
    while let Some(i) = queue.pop() {
        if !std::mem::replace(&mut kept[i], true) {
            let words: HashSet<&str> = items[i].1.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').collect();
            queue.extend((0..items.len()).filter(|&j| !items[j].0.is_empty() && words.contains(items[j].0)));
        }
    }
    items.iter().zip(kept).filter(|(_, kept)| *kept).map(|((_, text), _)| text.as_str()).collect()
}

/// What a module declares, in order, by name and without comments; first its head, which has no name.
fn items(ptx: &str) -> Vec<(&str, String)> {
    const BEGINS: [&str; 4] = [".visible .entry ", ".func ", ".extern ", ".global "];
    let mut items = vec![("", String::new())];
    for line in ptx.lines().filter(|line| !line.is_empty() && !line.trim_start().starts_with("//")) {
        if BEGINS.iter().any(|begins| line.starts_with(begins)) {
            // A function's result stands in brackets before its name.
            let declared = line.rsplit(") ").next().unwrap_or(line);
            let name = declared.split(['(', '[']).next().and_then(|text| text.split(' ').next_back()).unwrap_or_default();
            items.push((name, String::new()));
        }
        if let Some((_, text)) = items.last_mut() {
            *text += line;
            text.push('\n');
        }
    }
    items
}

/// Whether a kernel, `fast_sum_f32` or `cast_u8_bf16`, is of one of the operations and of these types only.
fn wanted(name: &str, operations: &[&str], types: &[&str]) -> bool {
    let is_type = |part: &&str| part.ends_with(|c: char| c.is_ascii_digit());
    let operation: Vec<&str> = name.split('_').take_while(|part| !is_type(part)).collect();
    operations.contains(&operation.join("_").as_str()) && name.split('_').skip(operation.len()).all(|part| types.contains(&part))
}

fn write(to: &Path, text: &str) {
    fs::write(to, text).unwrap_or_else(|e| fail(&format!("{}: {e}", to.display())));
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    println!("cargo:warning={message}");
    exit(1)
}
