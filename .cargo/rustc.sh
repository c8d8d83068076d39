#!/bin/sh
# Compiles as cargo asks, but for two crates of the feature `cuda`.
#
# cudarc gets --cfg feature="dynamic-loading": it opens libcuda, libcublas and libcurand when they are first called. As
# `rustflags` the same flag would reach cudarc's build script too, which refuses it beside candle's `dynamic-linking`; an
# explicit `build.target` spares the build scripts, but moves the program from target/release to target/<triple>/release
# and builds every dependency a second time.
#
# candle-kernels gets candle-kernels.rs, beside this file, for a build script: kernels that clsgen never launches are left out.
case " $* " in
*" --crate-name cudarc "*) exec "$@" --cfg 'feature="dynamic-loading"' ;;
*" --crate-name build_script_build "*)
  if [ "$CARGO_PKG_NAME" = candle-kernels ]; then
    instead=$(dirname "$0")/candle-kernels.rs
    for argument; do
      shift
      case "$argument" in */build.rs | build.rs) argument=$instead ;; esac
      set -- "$@" "$argument"
    done
  fi
  exec "$@"
  ;;
*) exec "$@" ;;
esac
