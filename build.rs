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
    // Without it cudarc is linked to CUDA's libraries, and lacks the functions that ask for them at run time.
    println!("cargo:rerun-if-env-changed=RUSTC_WRAPPER");
    if !env::var("RUSTC_WRAPPER").is_ok_and(|wrapper| wrapper.ends_with(".cargo/rustc.sh")) {
        fail(
            "the feature `cuda` needs the compiler wrapper .cargo/rustc.sh: run cargo in this project's directory, \
            without RUSTC_WRAPPER",
        );
    }
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
    let written = |result: std::io::Result<()>| result.unwrap_or_else(|e| fail(&format!("{}: {e}", to.display())));
    let packed = |name: &str, bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        written(encoder.write_all(bytes).and_then(|()| fs::write(to.join(name), encoder.finish()?)));
    };
    written(fs::create_dir_all(to));
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
    let (mut sources, mut newest) = (Vec::new(), modified(Path::new("build.rs")));
    visit(root, &mut |path| match path.extension().and_then(|extension| extension.to_str()) {
        Some("cu") => sources.push(path.to_owned()),
        Some("cuh") => newest = newest.max(modified(path)),
        _ => {}
    });
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
    match command.arg("-o").arg(target).arg(source).status() {
        Ok(status) if status.success() => {}
        Ok(_) => fail(&format!("nvcc failed on {}", source.display())),
        Err(e) => fail(&format!(
            "{}: {e}. The feature `cuda` needs the CUDA 13.0 compiler: set NVCC, or CUDA_HOME to where bin/nvcc is \
            (README, CUDA)",
            nvcc.display()
        )),
    }
}

/// Archives under the names that crates ask the linker for, found before any other, so that the program starts where
/// none of these libraries is installed. cudarc says -lcuda … though, opening them itself, it refers to nothing of
/// theirs. candle-kernels says -lmoe: 32 MB of quantized and mixture-of-experts kernels, for one architecture, that
/// clsgen has no use for (GGUF files are widened on the host) and that `.cargo/candle-kernels.rs` does not compile; its
/// own build script, of which a build directory may hold results, says -lcudart and -lstdc++ for their sake. Instead of
/// them there are functions of the same names that stop the program.
fn archives_instead(to: &Path) {
    let written = |result: std::io::Result<()>| result.unwrap_or_else(|e| fail(&format!("{}: {e}", to.display())));
    written(fs::create_dir_all(to));
    for library in ["cuda", "cublas", "cublasLt", "curand", "nvrtc", "cudart", "stdc++"] {
        written(fs::write(to.join(format!("lib{library}.a")), b"!<arch>\n"));
    }
    let mut names: Vec<String> = ["moe_gemm_gguf", "moe_gemm_gguf_prefill", "moe_gemm_wmma"].map(String::from).to_vec();
    for dtype in ["bf16", "f16", "f32"] {
        names.push(format!("launch_mmvq_gguf_quantize_q8_1_{dtype}"));
        names.extend(QUANTIZED.iter().map(|kind| format!("launch_mmvq_gguf_{kind}_{dtype}_plain")));
    }
    names.extend(["D4", "DS4", "D2S6"].iter().map(|layout| format!("launch_mmq_quantize_q8_1_{layout}")));
    names.extend(QUANTIZED.iter().map(|kind| format!("launch_mmq_gguf_{kind}")));
    let functions: String = names.iter().map(|name| format!("void {name}(void) {{ __builtin_trap(); }}\n")).collect();
    let (source, object, archive) = (to.join("moe.c"), to.join("moe.o"), to.join("libmoe.a"));
    written(fs::write(&source, functions));
    let _ = fs::remove_file(&archive);
    run(Command::new("cc").args(["-c", "-O1", "-fPIC", "-o"]).arg(&object).arg(&source));
    run(Command::new("ar").arg("crs").arg(&archive).arg(&object));
    println!("cargo:rustc-link-search=native={}", to.display());
}

const QUANTIZED: [&str; 10] = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];

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

/// When a file was last written; the beginning of time where there is none.
fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    println!("cargo:warning={message}");
    exit(1)
}
