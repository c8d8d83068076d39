//! candle-kernels' build script as clsgen wants it: `rustc.sh` compiles this file in the place of the crate's own.
//!
//! The crate's own spends 9 minutes on 2 cores, for the most part on kernels for quantized and mixture-of-experts weights, which clsgen
//! never launches (GGUF files are widened on the host): 35 MB of them in `libmoe.a`, instead of which this project's build.rs has an
//! archive of stubs, and 6 MB of PTX. Nearly all of the other 5 MB is for types and functions that clsgen has kernels of its own for or
//! no use of. What stays is the plain arithmetic, copies, casts and sums that candle's tensors do around our kernels: [`KEPT`]. A kernel
//! that is not there is an error of the call that wants it.
//!
//! After a change here: `cargo clean --release -p candle-kernels`, since cargo does not know this file.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{exit, Command},
    thread,
};

/// Modules in the crate's order, and the operations kept of each: a kernel's name up to its types. A module with none is an empty text.
const KEPT: [(&str, &[&str]); 11] = [
    ("affine", &["affine"]),
    ("binary", &["badd", "bsub", "bmul", "bdiv", "gt"]),
    ("cast", &["cast"]),
    ("conv", &[]),
    ("fill", &["fill", "const_set", "copy2d"]),
    // index_select
    ("indexing", &["is"]),
    ("quantized", &[]),
    ("reduce", &["sum", "fast_sum", "fast_sum_small"]),
    ("sort", &[]),
    ("ternary", &[]),
    ("unary", &["ucopy", "uneg", "usqr", "usqrt", "uabs"]),
];

/// Types of the tensors that clsgen has on a device; masks of comparisons are u8.
const TYPES: [&str; 6] = ["f32", "bf16", "f64", "u32", "i64", "u8"];

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
        for (module, operations) in KEPT {
            let (nvcc, path, capability) = (&nvcc, out.join(format!("{module}.ptx")), &capability);
            scope.spawn(move || {
                if operations.is_empty() {
                    return write(&path, "");
                }
                compile(nvcc, module, capability, &path);
                let text = fs::read_to_string(&path).unwrap_or_else(|e| fail(&format!("{}: {e}", path.display())));
                write(&path, &kept(&text, operations));
            });
        }
    });
    let constant = |(module, _): (&str, _)| {
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

/// A module without the kernels that are not wanted. nvcc says each kernel's name in a line before it; functions that kernels call may
/// stand behind any of them, and stay.
fn kept(ptx: &str, operations: &[&str]) -> String {
    const MARK: &str = "\t// .globl\t";
    let (head, kernels) = ptx.split_once(MARK).unwrap_or((ptx, ""));
    kernels.split(MARK).fold(head.to_owned(), |text, kernel| {
        let name = kernel.lines().next().unwrap_or_default();
        match (wanted(name, operations), kernel.find("\n.func")) {
            (true, _) => text + MARK + kernel,
            (false, Some(functions)) => text + &kernel[functions..],
            (false, None) => text,
        }
    })
}

/// Whether a kernel, `fast_sum_f32` or `cast_u8_bf16`, is of one of the operations and of our types only.
fn wanted(name: &str, operations: &[&str]) -> bool {
    let is_type = |part: &&str| part.ends_with(|c: char| c.is_ascii_digit());
    let operation: Vec<&str> = name.split('_').take_while(|part| !is_type(part)).collect();
    operations.contains(&operation.join("_").as_str()) && name.split('_').skip(operation.len()).all(|part| TYPES.contains(&part))
}

fn write(to: &Path, text: &str) {
    fs::write(to, text).unwrap_or_else(|e| fail(&format!("{}: {e}", to.display())));
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    println!("cargo:warning={message}");
    exit(1)
}
