#!/bin/sh
# Compiles as cargo asks, except that the crate cudarc gets --cfg feature="dynamic-loading": it opens libcuda, libcublas
# and libcurand when they are first called. As `rustflags` the same flag would reach cudarc's build script too, which
# refuses it beside candle's `dynamic-linking`; an explicit `build.target` spares the build scripts, but moves the program
# from target/release to target/<triple>/release and builds every dependency a second time.
case " $* " in
*" --crate-name cudarc "*) exec "$@" --cfg 'feature="dynamic-loading"' ;;
*) exec "$@" ;;
esac
