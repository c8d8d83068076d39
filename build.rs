//! Packs what the program carries with it: the demonstration's model, the report's font ([`pack`]).
//!
//! With the feature `cuda`, besides: compiles every `src/ops/**/*.cu` into a fat binary and writes `fatbins.rs`, the
//! table of them that `ops::cuda` includes.
//!
//! nvcc is `$NVCC`, else `$CUDA_HOME/bin/nvcc` (or `$CUDA_PATH`), else that of /usr/local/cuda. A fat binary holds SASS
//! for 8.0 and 9.0a and PTX of 8.0, which the driver compiles for cards that have neither.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, exit},
    sync::{Mutex, PoisonError},
    thread,
    time::SystemTime,
};

use flate2::{Compression, write::ZlibEncoder};
use functions::LIBRARIES;

#[path = "src/ops/cuda/functions.rs"]
mod functions;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_else(|| fail("OUT_DIR is not set")));
    fold_identical_functions();
    pack(&out.join("packed"));
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for name in ["CUDA_HOME", "CUDA_PATH", "NVCC", "NVCC_CCBIN"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rerun-if-changed=src/ops");
    let home = ["CUDA_HOME", "CUDA_PATH"]
        .iter()
        .find_map(env::var_os)
        .map_or_else(|| PathBuf::from("/usr/local/cuda"), PathBuf::from);
    let nvcc = env::var_os("NVCC").map_or_else(|| home.join("bin/nvcc"), PathBuf::from);
    compile_all(&nvcc, &out);
    archives_instead(&out.join("instead"));
}

/// What `storage::packed` reads: a megabyte less to carry.
fn pack(to: &Path) {
    let packed = |name: &str, bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        written(to, encoder.write_all(bytes).and_then(|()| fs::write(to.join(name), encoder.finish()?)));
    };
    written(to, fs::create_dir_all(to));
    for path in ["src/demo/model/model.safetensors", "src/demo/model/tokenizer.json", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
        let bytes = fs::read(path).unwrap_or_else(|e| fail(&format!("{path}: {e}")));
        packed(path.rsplit('/').next().unwrap_or(path), &bytes);
    }
    packed("font.ttf", epaint_default_fonts::UBUNTU_LIGHT);
}

/// The profile `dist` is linked with functions of the same machine code kept once: candle has most of its loops for ten
/// types, and to many of them only a type's size matters. rustc's own linker for this target, lld, knows how.
fn fold_identical_functions() {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let dist =
        env::var_os("OUT_DIR").is_some_and(|out| Path::new(&out).components().any(|part| part.as_os_str() == "dist"));
    if dist
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// Every kernel file below `src/ops`, a few compilers at a time; `fatbins.rs` names each by its path:
/// `"swiglu/kernels"`.
fn compile_all(nvcc: &Path, out: &Path) {
    let root = Path::new("src/ops");
    let mut sources = Vec::new();
    let mut newest = modified(Path::new("build.rs"));
    visit(root, &mut |path| match path.extension().and_then(|extension| extension.to_str()) {
        Some("cu") => sources.push(path.to_owned()),
        Some("cuh") => newest = newest.max(modified(path)),
        _ => {}
    });
    // Another compiler makes all of them anew.
    let compiler = format!("{} {:?} {:?}", nvcc.display(), modified(nvcc), env::var_os("NVCC_CCBIN"));
    let by = out.join("compiler");
    if fs::read_to_string(&by).is_ok_and(|before| before != compiler) {
        newest = SystemTime::now();
    }
    sources.sort();
    let names: Vec<String> = sources
        .iter()
        .map(|path| path.strip_prefix(root).unwrap_or(path).with_extension("").display().to_string())
        .collect();
    let fatbin = |name: &str| out.join(format!("{}.fatbin", name.replace('/', "-")));
    let queue = Mutex::new(sources.iter().zip(&names).collect::<Vec<_>>());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((source, name)) = { queue.lock().unwrap_or_else(PoisonError::into_inner).pop() } {
                    let target = fatbin(name);
                    // Cargo runs all of this again when one file changes.
                    if modified(&target) <= newest.max(modified(source)) {
                        compile(nvcc, source, &target);
                    }
                }
            });
        }
    });
    written(&by, fs::write(&by, compiler));
    let entries: String =
        names.iter().map(|name| format!("    ({name:?}, include_bytes!({:?})),\n", fatbin(name))).collect();
    let table = format!("static FATBINS: &[(&str, &[u8])] = &[\n{entries}];\n");
    fs::write(out.join("fatbins.rs"), table).unwrap_or_else(|e| fail(&format!("{}: {e}", out.display())));
}

fn compile(nvcc: &Path, source: &Path, target: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-O3", "-std=c++17", "-fatbin"]).args([
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_80,code=compute_80",
        "--compress-mode=size",
    ]);
    if let Some(compiler) = env::var_os("NVCC_CCBIN") {
        command.arg("-ccbin").arg(compiler);
    }
    // One that is killed leaves no half of a file under its name.
    let unfinished = target.with_extension("unfinished.fatbin");
    match command.arg("-o").arg(&unfinished).arg(source).status() {
        Ok(status) if status.success() => written(target, fs::rename(&unfinished, target)),
        Ok(_) => fail(&format!("nvcc failed on {}", source.display())),
        Err(e) => fail(&format!(
            "{}: {e}. The feature `cuda` needs the CUDA 13.0 compiler: set NVCC, or CUDA_HOME to where bin/nvcc is \
            (README, CUDA)",
            nvcc.display()
        )),
    }
}

/// Archives under the names that crates ask the linker for, found before any other, so that the program starts where
/// none of these libraries is installed.
///
/// cudarc says -lcuda and so on: of the functions that the program calls, `libcuda.a` has jumps to where
/// `ops::cuda::libraries` finds them. candle-kernels says -lmoe, and -lcudart and -lstdc++ for its sake: 35 MB of
/// quantized and mixture-of-experts kernels that clsgen has no use for (GGUF files are widened on the host). Instead of
/// them there are functions of the same names that stop the program.
fn archives_instead(to: &Path) {
    written(to, fs::create_dir_all(to));
    for library in ["cublas", "cublasLt", "curand", "nvrtc", "cudart", "stdc++"] {
        written(to, fs::write(to.join(format!("lib{library}.a")), b"!<arch>\n"));
    }
    archive(to, "cuda", &jumps());
    archive(to, "moe", &stops());
    println!("cargo:rustc-link-search=native={}", to.display());
}

/// A function for each of the list that goes to the address in its slot, whatever its arguments are; and the table of
/// slots. Hidden, so that no library finds these functions before its own.
fn jumps() -> String {
    let jump = |i: usize| match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => format!("jmp *CLSGEN_CUDA_SLOTS+{}(%rip)", 8 * i),
        Ok("aarch64") => {
            let slot = format!("CLSGEN_CUDA_SLOTS+{}", 8 * i);
            format!("adrp x16, {slot}\\n ldr x16, [x16, :lo12:{slot}]\\n br x16")
        }
        _ => fail("the feature `cuda` is for x86_64 and aarch64"),
    };
    let mut functions = String::new();
    let mut slots = String::new();
    let mut first = 0;
    for (library, names) in LIBRARIES {
        // NOT_INITIALIZED of the library's own codes: cudarc takes no others.
        let code = match library {
            "cuda" => 3,
            "cublas" | "cublasLt" => 1,
            "curand" => 101,
            _ => fail(&format!("{library}: its code for what is not initialized is not known")),
        };
        functions += &format!("static int no_{library}(void) {{ return {code}; }}\n");
        slots += &format!("(void *)no_{library},\n").repeat(names.len());
        for (i, name) in (first..).zip(names) {
            let jump = jump(i);
            functions +=
                &format!("ASM(\".globl {name}\\n .hidden {name}\\n .type {name}, %function\\n{name}: {jump}\");\n");
        }
        first += names.len();
    }
    format!(
        "#define ASM(function) __asm__(\".pushsection .text\\n\" function \"\\n.popsection\")\n{functions}\
         __attribute__((visibility(\"hidden\"))) void *CLSGEN_CUDA_SLOTS[] = {{\n{slots}}};\n"
    )
}

/// The functions of `libmoe.a`.
fn stops() -> String {
    let mut names: Vec<String> = ["moe_gemm_gguf", "moe_gemm_gguf_prefill", "moe_gemm_wmma"].map(String::from).to_vec();
    for dtype in ["bf16", "f16", "f32"] {
        names.push(format!("launch_mmvq_gguf_quantize_q8_1_{dtype}"));
        names.extend(QUANTIZED.iter().map(|kind| format!("launch_mmvq_gguf_{kind}_{dtype}_plain")));
    }
    names.extend(["D4", "DS4", "D2S6"].iter().map(|layout| format!("launch_mmq_quantize_q8_1_{layout}")));
    names.extend(QUANTIZED.iter().map(|kind| format!("launch_mmq_gguf_{kind}")));
    names.iter().map(|name| format!("void {name}(void) {{ __builtin_trap(); }}\n")).collect()
}

const QUANTIZED: [&str; 10] = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];

/// `lib<library>.a` of what the source compiles to.
fn archive(to: &Path, library: &str, source: &str) {
    let file = to.join(format!("{library}.c"));
    let object = to.join(format!("{library}.o"));
    let archive = to.join(format!("lib{library}.a"));
    written(to, fs::write(&file, source));
    let _ = fs::remove_file(&archive);
    run(Command::new("cc").args(["-c", "-O1", "-fPIC", "-o"]).arg(&object).arg(&file));
    run(Command::new("ar").arg("crs").arg(&archive).arg(&object));
}

fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail(&format!("{command:?} failed")),
        Err(e) => fail(&format!("{command:?}: {e}")),
    }
}

fn visit(dir: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| fail(&format!("{}: {e}", dir.display()))).flatten() {
        let path = entry.path();
        if path.is_dir() { visit(&path, each) } else { each(&path) }
    }
}

fn written(to: &Path, result: std::io::Result<()>) {
    result.unwrap_or_else(|e| fail(&format!("{}: {e}", to.display())));
}

/// When a file was last written; the beginning of time where there is none.
fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    println!("cargo:warning={message}");
    exit(1)
}
